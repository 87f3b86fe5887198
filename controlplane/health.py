"""Liveness and readiness."""

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from kombu import Connection

BROKER_TIMEOUT_S = 1


def healthz(_request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


def readyz(_request: HttpRequest) -> JsonResponse:
    """Whether requests can be served: database, migrations and broker, each by name."""
    checks = {"database": _database(), "migrations": _migrations(), "broker": _broker()}
    ready = all(state == "ok" for state in checks.values())
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:  # noqa: BLE001 -- whatever is wrong is the answer
        return f"failed: {type(error).__name__}"
    return "ok"


def _migrations() -> str:
    try:
        executor = MigrationExecutor(connection)
        missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except Exception as error:  # noqa: BLE001 -- whatever is wrong is the answer
        return f"failed: {type(error).__name__}"
    return "ok" if not missing else f"{len(missing)} missing"


def _broker() -> str:
    try:
        with Connection(settings.BROKER_URL, connect_timeout=BROKER_TIMEOUT_S) as broker:
            broker.ensure_connection(max_retries=0, timeout=BROKER_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 -- whatever is wrong is the answer
        return f"failed: {type(error).__name__}"
    return "ok"
