"""Readers of environment variables: loud on bad values.

A secret `X` may be given as `X_FILE`, the path of a file that holds it.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})
POSTGRES_SCHEMES = frozenset({"postgres", "postgresql"})


class SettingError(ValueError):
    """A variable has a value that cannot be used. The message names the variable."""


def env_text(name: str, *, default: str = "") -> str:
    return os.environ.get(name, default)


def env_bool(name: str, *, default: bool = False) -> bool:
    text = os.environ.get(name)
    if text is None:
        return default
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise SettingError(f"{name} must be true or false, not {text!r}")


def env_int(name: str, *, default: int, minimum: int = 0) -> int:
    text = os.environ.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise SettingError(f"{name} must be a whole number, not {text!r}") from None
    if value < minimum:
        raise SettingError(f"{name} must be at least {minimum}, not {value}")
    return value


def env_secret(name: str, *, default: str = "") -> str:
    """The variable, or the content of the file that `<name>_FILE` names; never both."""
    value, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value is not None and path is not None:
        raise SettingError(f"{name} and {name}_FILE are both set: keep one")
    if path is None:
        return default if value is None else value
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingError(f"{name}_FILE cannot be read: {error}") from None


def database_settings(url: str, *, pool_size: int = 0) -> dict[str, Any]:
    """Django's database entry for a `postgresql://` address.

    The query is libpq's: `host` names a directory of Unix sockets, `sslmode` and others go to the
    driver. With `pool_size` 0 every request opens its own connection.
    """
    parts = urlsplit(url)
    if parts.scheme not in POSTGRES_SCHEMES:
        raise SettingError(f"DATABASE_URL must start with postgresql://, not {parts.scheme!r}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        port = parts.port
    except ValueError:
        raise SettingError("DATABASE_URL has a port that is no number") from None
    host = query.pop("host", "") or unquote(parts.hostname or "")
    port_text = query.pop("port", "") or (str(port) if port else "")
    options: dict[str, Any] = {"application_name": "comptroller", **query}
    if pool_size:
        options["pool"] = {"min_size": 1, "max_size": pool_size, "timeout": 10}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "comptroller",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": port_text,
        "OPTIONS": options,
        "CONN_MAX_AGE": 0,  # under ASGI a kept connection belongs to no thread; the pool keeps them
    }
