"""The web process: the lease protocol on its own path, everything else to Django."""

import gc
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
os.environ.setdefault("COMPTROLLER_DATABASE_POOL", "10")  # a request borrows, it does not connect

from django.core.asgi import get_asgi_application

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_django = get_asgi_application()

from controlplane.bodies import bounded  # noqa: E402 -- needs Django's apps
from enforcement.leasing.asgi import application as _leasing  # noqa: E402

gc.freeze()  # what is loaded stays: each full collection would look at all of it again


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan events go to the lease protocol: it alone has a pool to open and to close."""
    leasing = scope["type"] == "lifespan" or scope.get("path", "").startswith("/sidecar/v1/")
    if leasing:
        await _leasing(scope, receive, send)
    else:
        await bounded(_django, scope, receive, send)  # type: ignore[arg-type]
