"""Why a start failed, in words for the person at the terminal."""


class LauncherError(Exception):
    """Something that `up` needs is missing or broke; the message says what to do."""


class AlreadyRunningError(LauncherError):
    """Another launcher holds the lock of this data directory."""


class NotRunningError(LauncherError):
    """No launcher holds the lock of this data directory."""
