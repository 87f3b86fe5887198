"""Where everything of one installation lies: one data directory, and short socket paths.

    DATA/up.lock  up.json     the lock of the running launcher; what it started
    DATA/secrets/             mode 0600: secret key, sidecar token, agent key
    DATA/logs/                one log per part
    DATA/services/            what the parts write: postgres, valkey, spool, beat

`services` belongs to the uid of the parts. If that uid cannot enter DATA (a clone below a home
with mode 0700, started by root), `services` is a link to a directory below /var/lib instead:
opening the home would change permissions that are not ours.
"""

import hashlib
import os
import secrets
import stat
import tempfile
from pathlib import Path

from controlplane.launcher.errors import LauncherError
from controlplane.launcher.postgres import LONGEST_SOCKET_PATH, SOCKET
from controlplane.launcher.privileges import Identity, can_enter, give_to

OUTSIDE = Path("/var/lib/comptroller")
LOG_BYTES_MAX = 10_000_000


class Places:
    """The paths of one data directory. `prepare` makes them."""

    def __init__(self, data: Path, identity: Identity | None) -> None:
        self.data = data.resolve()
        self.identity = identity
        self.services = self.data / "services"

    def prepare(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        for private in (self._secrets, self._logs):
            private.mkdir(mode=0o700, exist_ok=True)
        if not self.services.exists():
            self._make_services()
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        self._refuse_foreign_sockets()
        give_to(self.sockets, self.identity)

    def _make_services(self) -> None:
        self.services.unlink(missing_ok=True)  # a link whose target was deleted
        if can_enter(self.data, self.identity):
            self.services.mkdir(mode=0o755)
            return
        OUTSIDE.mkdir(mode=0o755, parents=True, exist_ok=True)
        home = OUTSIDE / secrets.token_hex(6)
        home.mkdir(mode=0o755)
        self.services.symlink_to(home)

    def _refuse_foreign_sockets(self) -> None:
        """Somebody else may have made that name in the shared directory before us."""
        status = self.sockets.lstat()
        ours = {os.geteuid(), self.identity.uid if self.identity else os.geteuid()}
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in ours:
            raise LauncherError(f"{self.sockets} belongs to somebody else: remove it")

    @property
    def _secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def _logs(self) -> Path:
        return self.data / "logs"

    @property
    def lock(self) -> Path:
        return self.data / "up.lock"

    @property
    def state(self) -> Path:
        return self.data / "up.json"

    @property
    def migrated(self) -> Path:
        """The seal of the migrations that the embedded database has had."""
        return self.data / "migrated"

    @property
    def sockets(self) -> Path:
        """A short directory: the kernel allows about a hundred bytes for a socket's path."""
        name = (
            f"comptroller-{hashlib.sha256(f'{os.geteuid()}{self.data}'.encode()).hexdigest()[:10]}"
        )
        path = Path(tempfile.gettempdir()) / name
        if len(str(path / SOCKET)) > LONGEST_SOCKET_PATH:
            path = Path("/tmp") / name  # noqa: S108 -- owner and kind are checked before use
        return path

    def service(self, name: str) -> Path:
        """A private directory of one part. The real path: links may not be enterable."""
        directory = self.services.resolve() / name
        give_to(directory, self.identity)
        return directory

    def log(self, name: str) -> Path:
        """The log of one part; a large one starts anew, and the old one is kept once."""
        path = self._logs / f"{name}.log"
        if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
        return path

    def read_secret(self, name: str) -> str | None:
        path = self._secrets / name
        return path.read_text().strip() if path.exists() else None

    def write_secret(self, name: str, value: str) -> None:
        """Readable by us alone from its first byte, and whole or absent."""
        unfinished = self._secrets / f".{name}"
        unfinished.unlink(missing_ok=True)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(value + "\n")
        unfinished.rename(self._secrets / name)

    def secret(self, name: str) -> str:
        """The named secret, made when it is not there."""
        value = self.read_secret(name)
        if value is None:
            value = secrets.token_urlsafe(48)
            self.write_secret(name, value)
        return value
