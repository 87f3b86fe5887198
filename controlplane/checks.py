"""System checks: what must be right before this program may handle money.

E001 commits are not durable · E002 no or a weak secret key · E003 the public address is none ·
E004 the database is too old · W001 the broker is not there · W002 debugging in public
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 -- Django's
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from controlplane import health

MIN_SECRET_CHARS = 32
OLDEST_DATABASE = 150_000
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost", "testserver"})


@register(Tags.database)
def durable_commits(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    if not databases or health.synchronous_commit() in health.DURABLE:
        return []
    return [
        Error(
            "synchronous_commit is off: grants that were acknowledged could be lost.",
            hint="Set synchronous_commit = on for this database.",
            id="controlplane.E001",
        )
    ]


@register(Tags.database)
def young_database(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    if not databases:
        return []
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version_num")
        version = int(cursor.fetchone()[0])
    if version >= OLDEST_DATABASE:
        return []
    return [Error(f"PostgreSQL 15 is needed, this is {version}.", id="controlplane.E004")]


@register(Tags.database)
def secret_key(databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """Asked together with the database: building and typing the code needs no secret."""
    if not databases or len(_secret()) >= MIN_SECRET_CHARS:
        return []
    return [
        Error(
            f"COMPTROLLER_SECRET_KEY needs at least {MIN_SECRET_CHARS} characters.",
            hint="All peppers and signing keys come from it. Make one: openssl rand -hex 32",
            id="controlplane.E002",
        )
    ]


def _secret() -> str:
    try:
        return settings.SECRET_KEY
    except ImproperlyConfigured:
        return ""


@register(Tags.urls)
def public_address(**_: Any) -> list[CheckMessage]:
    parts = urlsplit(settings.PUBLIC_URL)
    if parts.scheme in ("http", "https") and parts.hostname and not parts.path:
        return []
    return [
        Error(
            f"COMPTROLLER_PUBLIC_URL must be like https://host, not {settings.PUBLIC_URL!r}.",
            id="controlplane.E003",
        )
    ]


@register(Tags.compatibility, deploy=True)
def broker(**_: Any) -> list[CheckMessage]:
    try:
        health.reach_broker()
    except Exception as error:  # noqa: BLE001 -- whatever is wrong is the warning
        return [
            Warning(
                f"The broker cannot be reached ({type(error).__name__}): usage is not rolled up.",
                hint="Check BROKER_URL.",
                id="controlplane.W001",
            )
        ]
    return []


@register(Tags.security, deploy=True)
def no_debugging_in_public(**_: Any) -> list[CheckMessage]:
    if not settings.DEBUG or urlsplit(settings.PUBLIC_URL).hostname in LOOPBACK:
        return []
    return [Warning("COMPTROLLER_DEBUG is on in public.", id="controlplane.W002")]
