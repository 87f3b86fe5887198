"""Liveness and readiness.

Ready means that the API and the lease protocol can serve: database, migrations, durable commits.
Broker and worker are reported but do not count, as kills and leases need neither.
"""

from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from controlplane import broker as brokers
from controlplane.identity.domain import upkeep

WORKER_LATE_AFTER = timedelta(seconds=60)
DURABLE = frozenset({"on", "remote_apply"})
OK = "ok"


@require_safe
def healthz(_request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(_request: HttpRequest) -> JsonResponse:
    """Whether requests can be served, and what each part says."""
    vital = {
        "database": _state_of(_database),
        "migrations": _state_of(_migrations),
        "durability": _state_of(_durability),
    }
    others = {"broker": _state_of(_broker), "worker": _state_of(_worker)}
    ready = all(state == OK for state in vital.values())
    return JsonResponse({"ready": ready, "checks": vital | others}, status=200 if ready else 503)


def _state_of(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 -- whatever is wrong is the answer
        return f"failed: {type(error).__name__}"


def _database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return OK


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return OK if not missing else f"{len(missing)} missing"


def _durability() -> str:
    """An acknowledged grant must survive a crash (L9)."""
    level = synchronous_commit()
    return OK if level in DURABLE else f"synchronous_commit is {level}"


def synchronous_commit() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        return str(cursor.fetchone()[0])


def reach_broker() -> None:
    """Raises whatever the transport raises when the broker is not there."""
    with brokers.link_to(settings.BROKER_URL) as broker:
        brokers.reach(broker)


def _broker() -> str:
    reach_broker()
    return OK


def _worker() -> str:
    age = upkeep.age_of_pulse(now=timezone.now())
    if age is None:
        return "not seen yet"
    return OK if age <= WORKER_LATE_AFTER else f"last seen {int(age.total_seconds())} s ago"
