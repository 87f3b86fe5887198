"""The page of reconciliation: what was metered, what engines counted, what providers billed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse

from controlplane.dashboard.paging import paginate
from controlplane.dashboard.web import PageRequest, csv_file, page, show
from enforcement.models import BillAccount, BillLine, Reconciliation
from enforcement.rules.reconcile import Verdict

PAGE_SIZE = 50
EXPORT_MAX = 50_000
LATELY = timedelta(days=1)
VERDICTS = [verdict.value for verdict in Verdict]
COLUMNS = (
    "node", "provider", "model", "starts_at", "ends_at", "verdict", "calls",
    "metered_prompt_tokens", "produced_prompt_tokens", "billed_prompt_tokens",
    "metered_generation_tokens", "produced_generation_tokens", "billed_generation_tokens",
    "charge_nanos", "billed_nanos", "cause_kind", "cause",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One count of a row; None: nobody told it."""

    prompt: int | None
    generation: int | None

    @property
    def is_told(self) -> bool:
        return self.generation is not None

    def apart(self, metered: "Side") -> int:
        """The larger difference from what was metered; positive: more."""
        if self.prompt is None or self.generation is None:
            return 0
        apart = (
            self.prompt - (metered.prompt or 0),
            self.generation - (metered.generation or 0),
        )
        return max(apart, key=abs)


@dataclass(frozen=True)
class RowView:
    """A row as the page shows it."""

    row: Reconciliation
    metered: Side
    engine: Side
    bill: Side

    @property
    def engine_apart(self) -> int:
        return self.engine.apart(self.metered)

    @property
    def bill_apart(self) -> int:
        return self.bill.apart(self.metered)


@page
def listing(request: PageRequest) -> HttpResponse:
    rows, pager = paginate(request, _rows(request), size=PAGE_SIZE)
    context = {
        "section": "reconciliation",
        "rows": [_view(row) for row in rows],
        "pager": pager,
        "verdict": request.GET.get("verdict", ""),
        "query": request.GET.get("q", ""),
        "verdicts": VERDICTS,
        "is_filtered": any(request.GET.get(name) for name in ("verdict", "q")),
        "figures": _figures(request),
        "last_bill": BillLine.objects.filter(organization=request.organization)
        .order_by("-read_at")
        .first(),
        "accounts": BillAccount.objects.filter(organization=request.organization).order_by(
            "provider", "account"
        ),
    }
    return show(request, "enforcement/reconciliation.html", context)


@page
def export(request: PageRequest) -> HttpResponse:
    rows = [[_text(getattr(row, name)) for name in COLUMNS] for row in _rows(request)[:EXPORT_MAX]]
    return csv_file("reconciliation", COLUMNS, rows)


def _rows(request: PageRequest) -> QuerySet[Reconciliation]:
    rows = Reconciliation.objects.filter(organization=request.organization)
    verdict, query = request.GET.get("verdict", ""), request.GET.get("q", "").strip()
    if verdict in VERDICTS:
        rows = rows.filter(verdict=verdict)
    if query:
        rows = rows.filter(
            Q(node__icontains=query) | Q(provider__icontains=query) | Q(model__icontains=query)
        )
    return rows.order_by("-starts_at", "ends_at", "node", "model", "-id")


def _figures(request: PageRequest) -> dict[str, int]:
    """How many rows of the last day have each verdict."""
    lately = Reconciliation.objects.filter(
        organization=request.organization, starts_at__gt=request.now - LATELY
    )
    counts = dict(lately.order_by().values_list("verdict").annotate(Count("id")))
    return {verdict: counts.get(verdict, 0) for verdict in VERDICTS}


def _view(row: Reconciliation) -> RowView:
    return RowView(
        row=row,
        metered=Side(row.metered_prompt_tokens, row.metered_generation_tokens),
        engine=Side(row.produced_prompt_tokens, row.produced_generation_tokens),
        bill=Side(row.billed_prompt_tokens, row.billed_generation_tokens),
    )


def _text(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
