"""Reading hostile archives and directories."""

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skills.domain import folders
from skills.domain.folders import Folder, read_archive, read_directory
from skills.errors import SkillImportError
from tests.skills.publisher import FILES, write_skill

SKILL = FILES["SKILL.md"]


def archive(
    files: dict[str, bytes], *, edit: Callable[[zipfile.ZipInfo], None] = lambda _: None
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            edit(info)
            target.writestr(info, content)
    return buffer.getvalue()


def in_folder(files: dict[str, bytes], folder: str = "example-skill") -> dict[str, bytes]:
    return {f"{folder}/{path}": content for path, content in files.items()}


def digests(folder: Folder) -> dict[str, str]:
    return {path: entry.sha256 for path, entry in folder.files.items()}


def test_archive_with_one_folder() -> None:
    folder = read_archive(archive(in_folder(FILES | {"skill.oms.sig": b"{}"})))

    assert folder.directory == "example-skill"
    assert (folder.skill_file, folder.bundle) == (SKILL, b"{}")
    assert digests(folder) == {
        path: hashlib.sha256(content).hexdigest()
        for path, content in (FILES | {"skill.oms.sig": b"{}"}).items()
    }


def test_flat_archive_has_no_directory() -> None:
    folder = read_archive(archive(FILES))

    assert (folder.directory, folder.bundle) == (None, None)
    assert folder.files["scripts/hello.sh"].size == len(FILES["scripts/hello.sh"])


def test_directory_and_archive_give_the_same_digests(tmp_path: Path) -> None:
    path = write_skill(tmp_path / "example-skill", FILES, b"{}")

    from_disk = read_directory(path)

    assert from_disk.directory == "example-skill"
    assert from_disk == read_archive(archive(in_folder(FILES | {"skill.oms.sig": b"{}"})))


def test_folder_entries_are_no_files() -> None:
    assert "scripts/" not in read_archive(archive(FILES | {"scripts/": b""})).files


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"README.md": b""},
        {"a/SKILL.md": SKILL, "b/x": b""},
        {"a/b/SKILL.md": SKILL},
        {"SKILL.md": SKILL, "../x": b""},
        {"SKILL.md": SKILL, "/etc/x": b""},
        {"SKILL.md": SKILL, "a/../../x": b""},
        {"SKILL.md": SKILL, "a\\b": b""},
        {"SKILL.md": SKILL, "C:/x": b""},
        {"SKILL.md": SKILL, "a\nb": b""},
        {"SKILL.md": SKILL, "e\u0301": b""},
        {"SKILL.md": SKILL, "skill.md": b""},
        {"SKILL.md": SKILL, "a/x": b"", "A/y": b""},
        {"SKILL.md": SKILL, "ﬁ": b"", "fi": b""},
        {"SKILL.md": b"x" * (1024 * 1024 + 1)},
        {"SKILL.md": SKILL, "skill.oms.sig": b"x" * (1024 * 1024 + 1)},
    ],
    ids=lambda files: "+".join(ascii(name) for name in files) or "empty",
)
def test_archives_that_are_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(SkillImportError):
        read_archive(archive(files))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_special_files_in_archives(kind: int) -> None:
    def edit(info: zipfile.ZipInfo) -> None:
        if info.filename == "scripts/hello.sh":
            info.external_attr = (kind | 0o777) << 16

    with pytest.raises(SkillImportError, match="link or a special file"):
        read_archive(archive(FILES, edit=edit))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_name_that_stands_twice() -> None:
    buffer = io.BytesIO(archive(FILES))
    with zipfile.ZipFile(buffer, "a") as target:
        target.writestr("SKILL.md", b"another")

    with pytest.raises(SkillImportError, match="stands twice"):
        read_archive(buffer.getvalue())


def test_encrypted_entry() -> None:
    raw = bytearray(archive(FILES))
    central = raw.index(b"PK\x01\x02")
    raw[central + 8] |= 1

    with pytest.raises(SkillImportError, match="encrypted"):
        read_archive(bytes(raw))


def test_name_with_a_hidden_tail() -> None:
    raw = archive({"SKILL.md": SKILL, "a.md+x.sh": b""}).replace(b"a.md+x.sh", b"a.md\x00x.sh")

    with pytest.raises(SkillImportError, match="not a plain name"):
        read_archive(raw)


def test_archive_bomb_is_refused_by_its_declared_size() -> None:
    bomb = archive({"SKILL.md": SKILL, "zeros": bytes(51 * 1024 * 1024)})

    assert len(bomb) < 100_000
    with pytest.raises(SkillImportError, match="larger than"):
        read_archive(bomb)


def test_archive_that_lies_about_its_size() -> None:
    raw = bytearray(archive({"SKILL.md": SKILL, "zeros": bytes(1024 * 1024)}))
    central = raw.rindex(b"PK\x01\x02")
    raw[central + 24 : central + 28] = (10).to_bytes(4, "little")

    with pytest.raises(SkillImportError):
        read_archive(bytes(raw))


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "RESOURCES_MAX", 2)

    with pytest.raises(SkillImportError, match="more than 2 files"):
        read_archive(archive(FILES))


@pytest.mark.parametrize("raw", [b"", b"PK", b"not a zip", archive(FILES)[:-30]])
def test_what_is_no_archive(raw: bytes) -> None:
    with pytest.raises(SkillImportError):
        read_archive(raw)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(min_value=0), value=st.integers(0, 255))
def test_broken_archives_raise_our_error_or_read_the_same(position: int, value: int) -> None:
    good = archive(FILES)
    raw = bytearray(good)
    raw[position % len(raw)] = value

    try:
        folder = read_archive(bytes(raw))
    except SkillImportError:
        return
    assert folder.files["SKILL.md"].sha256 == hashlib.sha256(SKILL).hexdigest()


def test_symbolic_link_in_a_directory(tmp_path: Path) -> None:
    path = write_skill(tmp_path / "example-skill", FILES)
    (path / "link").symlink_to("/etc/passwd")

    with pytest.raises(SkillImportError, match="link or a special file"):
        read_directory(path)


def test_link_to_a_folder(tmp_path: Path) -> None:
    path = write_skill(tmp_path / "example-skill", FILES)
    (path / "more").symlink_to(tmp_path)

    with pytest.raises(SkillImportError, match="link or a special file"):
        read_directory(path)


def test_pipe_in_a_directory(tmp_path: Path) -> None:
    path = write_skill(tmp_path / "example-skill", FILES)
    os.mkfifo(path / "pipe")

    with pytest.raises(SkillImportError, match="link or a special file"):
        read_directory(path)


def test_what_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(SkillImportError, match="not a directory"):
        read_directory(tmp_path / "nowhere")
