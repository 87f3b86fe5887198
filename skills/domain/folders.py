"""Read a skill's folder from an archive or a directory, trusting nothing about it.

Refused: absolute paths, `..`, symbolic links, special files, encrypted entries, names that some
file system takes for another one, and whatever is beyond the limits. Only digests leave this
module, and the three small files that we read: the signature and the front matter of SKILL.md.
"""

import hashlib
import io
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from enforcement.rules.oms import (
    BUNDLE_BYTES_MAX,
    FOLDER_BYTES_MAX,
    RESOURCES_MAX,
    SIGNATURE_FILE,
    colliding_paths,
    is_ignored,
    path_problem,
)
from skills.errors import SkillImportError

SKILL_FILE = "SKILL.md"
SKILL_FILE_BYTES_MAX = 1024 * 1024
ARCHIVE_BYTES_MAX = FOLDER_BYTES_MAX
_CHUNK = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class FileDigest:
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder as it was handed in. `directory` is None when the archive has no top folder."""

    directory: str | None
    files: dict[str, FileDigest]
    skill_file: bytes
    bundle: bytes | None


def read_archive(raw: bytes) -> Folder:
    """Read a ZIP: the skill at its top, or inside one single folder."""
    if len(raw) > ARCHIVE_BYTES_MAX:
        raise SkillImportError(f"the archive is larger than {ARCHIVE_BYTES_MAX} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            entries = _entries(archive)
            top = _top_folder([entry.filename for entry in entries])
            reader = _Reader()
            for entry in entries:
                path = entry.filename.removeprefix(f"{top}/" if top else "")
                with archive.open(entry) as stream:
                    reader.take(path, stream)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError) as error:
        raise SkillImportError(f"the archive cannot be read: {error}") from None
    except (UnicodeError, ValueError, RuntimeError) as error:
        raise SkillImportError(f"the archive is malformed: {error}") from None
    return reader.folder(top or None)


def read_directory(path: Path) -> Folder:
    """Read a directory of this machine; links are refused, not followed."""
    reader = _Reader()
    for file in _walk(path):
        with file.open("rb") as stream:
            reader.take(file.relative_to(path).as_posix(), stream)
    return reader.folder(path.resolve().name)


class _Reader:
    """Hashes files one by one and keeps count against the limits."""

    def __init__(self) -> None:
        self._files: dict[str, FileDigest] = {}
        self._kept: dict[str, bytes] = {}
        self._total = 0

    def take(self, path: str, stream: IO[bytes]) -> None:
        problem = path_problem(path)
        if problem:
            raise SkillImportError(f"path {path[:200]!a} {problem}")
        if path in self._files:
            raise SkillImportError(f"path {path!a} stands twice")
        if len(self._files) >= RESOURCES_MAX:
            raise SkillImportError(f"there are more than {RESOURCES_MAX} files")
        self._files[path] = self._hash(path, stream)

    def _hash(self, path: str, stream: IO[bytes]) -> FileDigest:
        limit = {SIGNATURE_FILE: BUNDLE_BYTES_MAX, SKILL_FILE: SKILL_FILE_BYTES_MAX}.get(path)
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            self._total += len(chunk)
            if self._total > FOLDER_BYTES_MAX:
                raise SkillImportError(f"the files are larger than {FOLDER_BYTES_MAX} bytes")
            if limit is not None:
                kept += chunk
                if size > limit:
                    raise SkillImportError(f"{path} is larger than {limit} bytes")
        if limit is not None:
            self._kept[path] = bytes(kept)
        return FileDigest(sha256=digest.hexdigest(), size=size)

    def folder(self, directory: str | None) -> Folder:
        if SKILL_FILE not in self._files:
            raise SkillImportError(f"there is no {SKILL_FILE} at the top of the skill")
        clash = colliding_paths(path for path in self._files if not is_ignored(path))
        if clash:
            raise SkillImportError(f"paths {clash[0]!a} and {clash[1]!a} collide")
        return Folder(
            directory=directory,
            files=dict(sorted(self._files.items())),
            skill_file=self._kept[SKILL_FILE],
            bundle=self._kept.get(SIGNATURE_FILE),
        )


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive, in a shape that cannot surprise."""
    infos = archive.infolist()
    if len(infos) > 2 * RESOURCES_MAX:
        raise SkillImportError(f"there are more than {RESOURCES_MAX} files")
    if sum(info.file_size for info in infos) > FOLDER_BYTES_MAX:
        raise SkillImportError(f"the files are larger than {FOLDER_BYTES_MAX} bytes")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise SkillImportError(f"{info.filename!a} is a link or a special file")
        if info.flag_bits & 0x1:
            raise SkillImportError(f"{info.filename!a} is encrypted")
        if info.orig_filename != info.filename:
            raise SkillImportError(f"{info.orig_filename!a} is not a plain name")
        problem = path_problem(info.filename.rstrip("/"))
        if problem:
            raise SkillImportError(f"path {info.filename[:200]!a} {problem}")
    return [info for info in infos if not info.is_dir()]


def _top_folder(names: list[str]) -> str:
    """The single folder that holds everything, or '' when the skill lies at the top."""
    if SKILL_FILE in names:
        return ""
    tops = {name.split("/", 1)[0] if "/" in name else "" for name in names}
    if len(tops) != 1 or "" in tops:
        raise SkillImportError(f"there is no {SKILL_FILE} at the top, nor in one single folder")
    return tops.pop()


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir() or root.is_symlink():
        raise SkillImportError(f"{root} is not a directory")
    for parent, folders, files in os.walk(root):
        for name in [*folders, *files]:
            mode = (Path(parent) / name).lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise SkillImportError(f"{name!a} is a link or a special file")
        yield from (Path(parent) / name for name in sorted(files))
