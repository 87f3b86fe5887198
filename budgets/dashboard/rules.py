"""Pages of aliases and negotiated discounts: set one, end one."""

from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from budgets.api.pricerules import PER_MILLE_OF_PERCENT
from budgets.domain.pricerules import MOST_CHARS, end_rule, living, set_rule
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.errors import PriceError, PriceRuleNotFoundError
from budgets.models import PriceRule
from controlplane.dashboard.localforms import InstantField, LocalForm
from controlplane.dashboard.web import PageRequest, show, writing

WILDCARD = "*"


class RuleForm(LocalForm):
    """What both kinds have: from when, until when, and why."""

    valid_from = InstantField(label="From", required=False, help_text="Empty: from now on.")
    valid_to = InstantField(label="Until", required=False, help_text="Empty: until it is ended.")
    reason = forms.CharField(
        max_length=500, required=False, help_text="Kept in the audit trail with your name."
    )

    def wishes(self) -> dict[str, Any]:
        """The arguments of the domain; a * at the end of the name makes it a beginning."""
        name = self.cleaned_data["model"]
        match = PriceMatch.PREFIX if name.endswith(WILDCARD) else PriceMatch.EXACT
        return self.cleaned_data | {"model": name.removesuffix(WILDCARD), "match": match}


class AliasForm(RuleForm):
    """A name that costs what another model costs."""

    model = forms.CharField(
        max_length=MOST_CHARS["model"],
        help_text="As calls name it. A * may end it; * alone is what nothing else prices.",
    )
    provider = forms.CharField(
        max_length=MOST_CHARS["provider"], required=False, help_text="Empty: calls to any."
    )
    target_model = forms.CharField(
        label="Costs like",
        max_length=MOST_CHARS["target_model"],
        help_text="A model that has a price, whatever that comes to be.",
    )
    target_provider = forms.CharField(
        label="Of the provider",
        max_length=MOST_CHARS["target_provider"],
        required=False,
        help_text="Empty: an own rate, else the dearest one.",
    )
    layout = (
        ("model", "field-half"),
        ("provider", "field-half"),
        ("target_model", "field-half"),
        ("target_provider", "field-half"),
        ("valid_from", "field-half"),
        ("valid_to", "field-half"),
        ("reason", ""),
    )


class DiscountForm(RuleForm):
    """A share off the catalogue's rates."""

    model = forms.CharField(
        max_length=MOST_CHARS["model"],
        help_text="Of the catalogue. A * may end it; * alone is every model.",
    )
    provider = forms.CharField(
        max_length=MOST_CHARS["provider"], required=False, help_text="Empty: rates of any."
    )
    percent = forms.DecimalField(
        label="Percent less", max_digits=4, decimal_places=1, help_text="Tenths at the finest."
    )
    layout = (
        ("model", "field-third"),
        ("provider", "field-third"),
        ("percent", "field-third"),
        ("valid_from", "field-half"),
        ("valid_to", "field-half"),
        ("reason", ""),
    )

    def wishes(self) -> dict[str, Any]:
        found = super().wishes()
        percent: Decimal = found.pop("percent")
        return found | {"off_per_mille": int(percent * PER_MILLE_OF_PERCENT)}


FORMS: dict[PriceRuleKind, type[RuleForm]] = {
    PriceRuleKind.ALIAS: AliasForm,
    PriceRuleKind.DISCOUNT: DiscountForm,
}


@writing
def create(request: PageRequest, kind: PriceRuleKind) -> HttpResponse:
    zone = ZoneInfo(request.organization.time_zone)
    posted = request.POST if request.method == "POST" else None
    form = FORMS[kind](posted, zone=zone, initial={"model": request.GET.get("model", "")})
    if form.is_valid():
        try:
            rule = set_rule(
                organization_id=request.organization.id,
                kind=kind,
                actor=request.actor,
                now=request.now,
                **form.wishes(),
            )
        except PriceError as error:
            form.refuse(error.field, error.message)
        else:
            begins = "from now on" if rule.valid_from == request.now else "from its beginning on"
            messages.success(request, f"{rule}: it holds {begins}.")
            return redirect("budgets:prices")
    context = {"section": "prices", "form": form, "kind": kind.value, "zone": zone.key}
    status = 422 if form.is_bound else 200
    return show(request, "budgets/rule_form.html", context, status=status)


@require_POST
@writing
def end(request: PageRequest, rule_id: UUID) -> HttpResponse:
    """End it now, or withdraw it before it begins; what it priced keeps its price."""
    try:
        rule = end_rule(
            organization_id=request.organization.id,
            rule_id=rule_id,
            actor=request.actor,
            now=request.now,
        )
    except PriceRuleNotFoundError as error:
        raise Http404 from error
    messages.success(request, f"{rule}: it has ended. Calls that it priced keep their price.")
    return redirect("budgets:prices")


def rules_shown(request: PageRequest) -> list[tuple[PriceRule, bool]]:
    """Rules that hold now or later, each with whether it has begun."""
    rows = living(request.now).filter(organization=request.organization)
    ordered = rows.order_by("kind", "provider", "model", "valid_from")
    return [(rule, rule.valid_from <= request.now) for rule in ordered]
