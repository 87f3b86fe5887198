"""Pages of prices: own rates, the catalogue, models that nobody has priced."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect

from budgets.dashboard.forms import RateForm
from budgets.dashboard.rules import rules_shown
from budgets.domain.pricecsv import COLUMNS, rows_of
from budgets.domain.prices import set_own_price
from budgets.domain.priceversions import key_of, span_of
from budgets.enums import PriceMatch
from budgets.errors import PriceError
from budgets.models import PriceVersion
from budgets.queries.unpriced import unpriced_models
from controlplane.dashboard.paging import paginate
from controlplane.dashboard.web import PageRequest, csv_file, page, show, writing

PAGE_SIZE = 50


@page
def price_list(request: PageRequest) -> HttpResponse:
    query = request.GET.get("q", "").strip()
    catalogue = _catalogue(request)
    rates, pager = paginate(request, _search(catalogue, query), size=PAGE_SIZE)
    context = {
        "section": "prices",
        "query": query,
        "rates": rates,
        "pager": pager,
        "own": _own(request),
        "rules": rules_shown(request),
        "unpriced": unpriced_models(request.organization, now=request.now),
        "catalogue": _source(catalogue),
    }
    return show(request, "budgets/prices.html", context, fragment="budgets/_catalogue.html")


@page
def export(request: PageRequest) -> HttpResponse:
    """What `comptroller prices import` reads, and where each row comes from."""
    versions = [*_own(request), *_catalogue(request).order_by("provider", "model", "match")]
    rows = [
        (*row, f"{version.source} {version.source_version}".strip(), version.own)
        for version in versions
        for row in rows_of(key_of(version), span_of(version))
    ]
    return csv_file("prices", (*COLUMNS, "source", "own"), rows)


@writing
def set_rate(request: PageRequest) -> HttpResponse:
    form = RateForm(
        request.POST if request.method == "POST" else None,
        initial={"model": request.GET.get("model", ""), "match": PriceMatch.EXACT.value},
    )
    if request.method == "POST" and form.is_valid():
        cleaned = form.cleaned_data
        try:
            set_own_price(
                organization_id=request.organization.id,
                model=cleaned["model"],
                provider=cleaned["provider"],
                match=PriceMatch(cleaned["match"]),
                rates=form.rates(),
                actor=request.actor,
                now=request.now,
                reason=cleaned["reason"],
            )
        except PriceError as error:
            form.add_error(error.field if error.field in form.fields else None, error.message)
        else:
            messages.success(request, f"The rate of {cleaned['model']} holds from now on.")
            return redirect("budgets:prices")
    context = {"section": "prices", "form": form}
    status = 422 if form.is_bound else 200
    return show(request, "budgets/price_form.html", context, status=status)


def _own(request: PageRequest) -> list[PriceVersion]:
    """Own rates that hold now or later."""
    rows = PriceVersion.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=request.now), organization=request.organization
    )
    return list(rows.select_related("rule").order_by("model", "provider", "valid_from"))


def _catalogue(request: PageRequest) -> QuerySet[PriceVersion]:
    """Catalogue rates that hold now."""
    return PriceVersion.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=request.now),
        organization=None,
        valid_from__lte=request.now,
    )


def _search(rows: QuerySet[PriceVersion], query: str) -> QuerySet[PriceVersion]:
    for word in query.split():
        rows = rows.filter(Q(model__icontains=word) | Q(provider__icontains=word))
    return rows.order_by("provider", "model", "match")


def _source(catalogue: QuerySet[PriceVersion]) -> dict[str, Any]:
    newest = catalogue.order_by("-source_version").first()
    return {
        "versions": catalogue.aggregate(n=Count("id"))["n"],
        "source": f"{newest.source} {newest.source_version}" if newest else "",
    }
