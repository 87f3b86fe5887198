"""The page that derives rates of a model from its nodes: evidence first, then they hold."""

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect

from budgets.errors import PriceError
from controlplane.dashboard.localforms import InstantField, LocalForm
from controlplane.dashboard.web import PageRequest, show, writing
from enforcement.domain.noderates import Measured, measure, set_measured_price
from enforcement.enums import NodeState
from enforcement.errors import NodeCostError
from enforcement.models import ServingNode
from enforcement.rules.money import usd_text
from enforcement.rules.noderates import PER_MILLE, Weights

USUAL_DAYS = 7
KINDS = (("input", "Input"), ("cached_input", "Cached input"), ("output", "Output"))


class MeasureForm(LocalForm):
    """What is measured, and how tokens weigh."""

    model = forms.ChoiceField(help_text="That your own nodes serve.")
    since = InstantField(label="From", help_text="A whole hour.")
    until = InstantField(label="Until", help_text="The first hour that is not meant.")
    answer_weight = forms.DecimalField(
        label="An answer's token weighs",
        initial="4",
        max_digits=7,
        decimal_places=3,
        help_text="As many of the prompt. A choice: engines tell no price.",
    )
    cached_weight = forms.DecimalField(
        label="A cached token weighs",
        initial="0.1",
        max_digits=4,
        decimal_places=3,
        help_text="0 to 1 of the prompt.",
    )
    reason = forms.CharField(
        max_length=500, required=False, help_text="Kept in the audit trail with your name."
    )
    confirm = forms.BooleanField(label="This jump is meant", required=False)
    shown = forms.CharField(required=False, widget=forms.HiddenInput)
    layout = (
        ("model", ""),
        ("since", "field-half"),
        ("until", "field-half"),
        ("answer_weight", "field-half"),
        ("cached_weight", "field-half"),
        ("reason", ""),
    )

    def __init__(self, *args: Any, models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["model"].choices = [(name, name) for name in models]  # type: ignore[attr-defined]

    def weights(self) -> Weights:
        answer: Decimal = self.cleaned_data["answer_weight"]
        cached: Decimal = self.cleaned_data["cached_weight"]
        return Weights(
            answer_per_mille=int(answer * PER_MILLE), cached_per_mille=int(cached * PER_MILLE)
        )


@dataclass(frozen=True)
class NodeView:
    """One node of the evidence, with what it made in a second."""

    told: dict[str, Any]

    @property
    def per_second(self) -> str:
        """Tokens, in tenths, over all hours that count: waiting ones too."""
        counted_s = (self.told["hours"] - self.told["hours_left_out"]) * 3600
        made = self.told["prompt_tokens"] + self.told["answer_tokens"]
        whole, tenth = divmod(made * 10 // counted_s, 10) if counted_s else (0, 0)
        return f"{whole:,}.{tenth}"


@writing
def measure_rates(request: PageRequest) -> HttpResponse:
    zone = ZoneInfo(request.organization.time_zone)
    models = _models(request)
    posted = request.POST if request.method == "POST" else None
    form = MeasureForm(posted, zone=zone, models=models, initial=_usual(request, zone))
    context: dict[str, Any] = {"section": "prices", "form": form, "zone": zone.key}
    if form.is_valid():
        try:
            found = _measured(request, form)
            if "apply" in request.POST and _hold(request, form, found):
                return redirect("budgets:prices")
            context |= _told(found)
        except NodeCostError as error:
            form.refuse("", str(error))
        except PriceError as error:
            form.refuse(error.field, error.message)
    status = 422 if form.errors else 200
    context["has_models"] = bool(models)
    return show(request, "enforcement/measure.html", context, status=status)


def _models(request: PageRequest) -> list[str]:
    rows = ServingNode.objects.filter(organization=request.organization)
    served = rows.exclude(state=NodeState.GONE).values_list("models", flat=True)
    return sorted({name for names in served for name in names})


def _usual(request: PageRequest, zone: ZoneInfo) -> dict[str, Any]:
    """A week that ended with the last midnight."""
    until = request.now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    since = until - timedelta(days=USUAL_DAYS)
    asked = request.GET.get("model", "")
    return {
        "model": asked,
        "since": since.replace(tzinfo=None),
        "until": until.replace(tzinfo=None),
    }


def _measured(request: PageRequest, form: MeasureForm) -> Measured:
    values = form.cleaned_data
    return measure(
        organization_id=request.organization.id,
        model=values["model"],
        since=values["since"],
        until=values["until"],
        weights=form.weights(),
        now=request.now,
    )


def _hold(request: PageRequest, form: MeasureForm, found: Measured) -> bool:
    """Whether the rates hold now; not if they are others than were shown."""
    values = form.cleaned_data
    if values["shown"] != _as_shown(found):
        messages.error(request, "Nothing was changed: look at what follows first.")
        return False
    if found.jumps and not values["confirm"]:
        messages.error(request, "Nothing was changed: confirm the jump, or measure other hours.")
        return False
    set_measured_price(
        found,
        organization_id=request.organization.id,
        actor=request.actor,
        now=request.now,
        reason=values["reason"],
        confirmed=values["confirm"],
    )
    messages.success(request, f"The measured rates of {found.model} hold from now on.")
    return True


def _as_shown(found: Measured) -> str:
    return " ".join(str(getattr(found.rates, kind)) for kind, _ in KINDS)


def _told(found: Measured) -> dict[str, Any]:
    evidence = found.evidence
    return {
        "found": found,
        "shown": _as_shown(found),
        "rates": [(label, usd_text(getattr(found.rates, kind))) for kind, label in KINDS],
        "evidence": evidence,
        "nodes": [NodeView(told) for told in evidence["nodes"]],
    }
