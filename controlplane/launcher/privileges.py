"""Run children without root's powers, and never longer than the launcher lives.

PostgreSQL refuses to run as root, and nothing else here needs root either. When the launcher is
root its children become `nobody`: a uid that exists on every machine, so no user is made.
Permissions are changed only inside directories of our own.
"""

import ctypes
import os
import pwd
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

UNPRIVILEGED = "nobody"
PR_SET_PDEATHSIG = 1


class Identity(NamedTuple):
    """Whom the children run as."""

    uid: int
    gid: int


def service_identity() -> Identity | None:
    """`nobody` when the launcher is root, else None: the children stay who we are."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(UNPRIVILEGED)
    return Identity(uid=entry.pw_uid, gid=entry.pw_gid)


def can_enter(path: Path, identity: Identity | None) -> bool:
    """Whether the identity may walk through every directory down to this one."""
    if identity is None:
        return True
    resolved = path.resolve()
    return all(_may_search(part.stat(), identity) for part in (resolved, *resolved.parents))


def _may_search(status: os.stat_result, identity: Identity) -> bool:
    if status.st_uid == identity.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == identity.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def give_to(path: Path, identity: Identity | None) -> None:
    """Make a directory of our own private to the identity, with all that is in it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    if identity is None or path.stat().st_uid == identity.uid:
        return
    os.chown(path, *identity)
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            os.chown(Path(folder) / name, *identity, follow_symlinks=False)


def child_options(identity: Identity | None, *, farewell: signal.Signals) -> dict[str, Any]:
    """Arguments for `subprocess.Popen`: drop the uid, and get `farewell` when we die.

    A session of its own keeps the terminal's Ctrl-C away from the child: the launcher alone
    decides the order of stopping.
    """
    options: dict[str, Any] = {
        "preexec_fn": _die_with_parent(farewell),
        "start_new_session": True,
    }
    if identity is not None:
        options |= {"user": identity.uid, "group": identity.gid, "extra_groups": []}
    return options


def _die_with_parent(farewell: signal.Signals) -> Callable[[], None] | None:
    """To be run in the child after the change of uid, which would clear the setting."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask_for_signal() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(farewell))
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), farewell)

    return ask_for_signal


def readable_copy(programs: Path, *, cache: Path, identity: Identity | None) -> Path:
    """`programs`, or a copy below `cache` if the identity cannot enter its place.

    A virtual environment below a home with mode 0700 is the usual case. Programs look for their
    libraries beside themselves, so the whole package `NAME` is copied, and with it the folder
    `NAME.libs` in which wheels keep the libraries that they bring.
    """
    if can_enter(programs, identity):
        return programs
    package = programs.parent.parent
    status = programs.stat()
    copy = cache / f"{package.name}-{status.st_ino:x}-{status.st_mtime_ns:x}"
    if not copy.is_dir():
        unfinished = copy.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in (package, package.with_name(f"{package.name}.libs")):
            if folder.is_dir():
                shutil.copytree(folder, unfinished / folder.name, symlinks=True)
        unfinished.rename(copy)
    return copy / package.name / programs.relative_to(package)
