"""The page that explains what would become of a request."""

from typing import Any

from django import forms
from django.forms import BoundField
from django.http import HttpResponse

from budgets.api.explain import parse_tags
from budgets.queries.explain import Explained, Wish, explain_request
from controlplane.dashboard.web import PageRequest, page, show
from controlplane.identity.models import Agent
from enforcement.rules.explain import Fate

WORDS = {
    Fate.COUNT: "counts it, whatever stands there",
    Fate.ALLOW: "lets it through",
    Fate.CLAMP: "lets a shorter answer through",
    Fate.WAIT: "makes it wait: others hold what is left",
    Fate.REFUSE: "refuses it",
}


class WishForm(forms.Form):
    """A request to explain. All but the agent may stay empty."""

    agent = forms.ModelChoiceField(queryset=Agent.objects.none(), empty_label=None)
    model = forms.CharField(max_length=200, required=False, help_text="As the call names it.")
    session = forms.CharField(max_length=128, required=False)
    user = forms.CharField(max_length=200, required=False)
    node = forms.CharField(max_length=200, required=False)
    skill = forms.CharField(max_length=200, required=False)
    tags = forms.CharField(max_length=2_000, required=False, help_text="env=prod, team=search")
    input_tokens = forms.IntegerField(
        label="Prompt tokens", min_value=0, max_value=10**9, required=False, initial=1_000
    )
    output_tokens = forms.IntegerField(
        label="Most output tokens", min_value=1, max_value=10**9, required=False, initial=4_096
    )
    layout = (
        ("agent", "field-third"),
        ("model", "field-third"),
        ("session", "field-third"),
        ("user", "field-third"),
        ("node", "field-third"),
        ("skill", "field-third"),
        ("input_tokens", "field-third"),
        ("output_tokens", "field-third"),
        ("tags", "field-third"),
    )

    def __init__(self, *args: Any, organization: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        agents = Agent.objects.select_related("project").filter(
            organization=organization, retired_at__isnull=True
        )
        self.fields["agent"].queryset = agents.order_by("name")  # type: ignore[attr-defined]

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]

    def clean_tags(self) -> dict[str, str]:
        try:
            return parse_tags(self.cleaned_data["tags"])
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error

    def wish(self) -> Wish:
        values = {name: value for name, value in self.cleaned_data.items() if value is not None}
        return Wish(**values)


@page
def explain(request: PageRequest) -> HttpResponse:
    asked = request.GET if "agent" in request.GET else None
    form = WishForm(asked, organization=request.organization)
    context: dict[str, Any] = {"section": "budgets", "form": form}
    if form.is_valid():
        found = explain_request(form.wish(), now=request.now)
        context |= {"found": found, "rows": _rows(found), "fate": WORDS[found.explanation.fate]}
    status = 422 if form.is_bound and not form.is_valid() else 200
    return show(request, "budgets/explain.html", context, status=status)


def _rows(found: Explained) -> list[dict[str, Any]]:
    return [
        {
            "budget": row.budget,
            "value": row.line.value,
            "standing": row.line.standing,
            "need": row.line.need,
            "unit": row.budget.unit,
            "window_end": row.window_end,
            "fate": row.line.fate.value,
            "words": WORDS[row.line.fate],
            "decides": str(row.budget.id) == found.explanation.decided_by,
        }
        for row in found.budgets
    ]
