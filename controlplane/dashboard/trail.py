"""The audit trail as a page."""

from django.db.models import Q, QuerySet
from django.http import HttpResponse

from controlplane.audit.models import AuditEntry
from controlplane.dashboard.history import entry_of
from controlplane.dashboard.paging import paginate
from controlplane.dashboard.web import PageRequest, csv_file, page, show

PAGE_SIZE = 50
EXPORT_MAX = 50_000


@page
def trail(request: PageRequest) -> HttpResponse:
    rows, pager = paginate(request, _entries(request), size=PAGE_SIZE)
    context = {
        "section": "audit",
        "entries": [entry_of(row) for row in rows],
        "pager": pager,
        "kind": request.GET.get("kind", ""),
        "query": request.GET.get("q", ""),
        "kinds": _kinds(request),
    }
    return show(request, "dashboard/audit.html", context)


@page
def export(request: PageRequest) -> HttpResponse:
    head = ("at", "actor", "actor kind", "action", "object", "id", "reason", "before", "after")
    rows = [
        (
            row.at.isoformat(),
            row.actor_label,
            row.actor_kind,
            row.action,
            row.object_kind,
            row.object_id,
            row.reason,
            row.before,
            row.after,
        )
        for row in _entries(request)[:EXPORT_MAX]
    ]
    return csv_file("audit", head, rows)


def _entries(request: PageRequest) -> QuerySet[AuditEntry]:
    rows = AuditEntry.objects.filter(organization_id=request.organization.id).order_by("-id")
    kind, query = request.GET.get("kind", ""), request.GET.get("q", "").strip()
    if kind:
        rows = rows.filter(object_kind=kind)
    if query:
        rows = rows.filter(
            Q(actor_label__icontains=query)
            | Q(action__icontains=query)
            | Q(reason__icontains=query)
            | Q(object_id__iendswith=query)
        )
    return rows


def _kinds(request: PageRequest) -> list[str]:
    rows = AuditEntry.objects.filter(organization_id=request.organization.id)
    return list(rows.order_by("object_kind").values_list("object_kind", flat=True).distinct())
