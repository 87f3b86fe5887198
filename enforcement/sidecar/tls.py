"""TLS of the sidecar's three sides: towards nodes, the control plane, and its own callers.

Files are read when a context is made. `files` remembers how they were then, so that a new
certificate at an old path makes the settings unequal and is taken up by a reload.
"""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ALPN = ["http/1.1"]
Seal = tuple[tuple[str, int, int], ...]


class TlsError(ValueError):
    """Certificates that cannot be used; the sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class ClientTls:
    """How we call others. `server_name` is asked for (SNI) and checked instead of the host."""

    ca_file: str = ""  # instead of the system's authorities
    cert_file: str = ""  # our own, where the other side wants to know us
    key_file: str = ""
    server_name: str = ""
    verify: bool = True
    files: Seal = ()

    def context(self) -> ssl.SSLContext:
        """A context for outgoing connections.

        Raises:
            TlsError: a file cannot be read or is no certificate or key.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ssl.SSLError) as error:
            where = ", ".join(filter(None, (self.ca_file, self.cert_file, self.key_file)))
            raise TlsError(f"{where}: {_why(error)}") from error
        context.set_alpn_protocols(ALPN)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


SYSTEM = ClientTls()  # the system's authorities, no certificate of our own


@dataclass(frozen=True, kw_only=True)
class ServerTls:
    """How others call us. With `client_ca_file` only callers with a certificate of it may."""

    cert_file: str
    key_file: str = ""
    client_ca_file: str = ""
    files: Seal = ()

    def context(self) -> ssl.SSLContext:
        """A context for the listener.

        Raises:
            TlsError: a file cannot be read or is no certificate or key.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.cert_file, self.key_file or None)
            if self.client_ca_file:
                context.load_verify_locations(self.client_ca_file)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            where = ", ".join(filter(None, (self.cert_file, self.key_file, self.client_ca_file)))
            raise TlsError(f"{where}: {_why(error)}") from error
        context.set_alpn_protocols(ALPN)
        return context


def seal_of(paths: Iterable[str]) -> Seal:
    """What the files look like now: path, time of change in ns, size; zeros for a missing one."""
    found = []
    for path in paths:
        try:
            stat = Path(path).stat()
            found.append((path, stat.st_mtime_ns, stat.st_size))
        except OSError:
            found.append((path, 0, 0))
    return tuple(found)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not usable: {error.reason or error}"
    return error.strerror or str(error)
