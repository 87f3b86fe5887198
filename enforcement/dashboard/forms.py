"""Forms of agents, their keys and interventions, and of sidecars."""

from typing import Any

from django import forms
from django.forms import BoundField

from controlplane.identity.models import Agent, Organization, Person, Project, Team
from enforcement.rules.money import parse_usd
from enforcement.rules.nodecost import MOST_ACCELERATORS, MOST_WATTS


class AgentForm(forms.Form):
    """Who an agent is, where it belongs and how fast it may call."""

    name = forms.CharField(max_length=200, help_text="As people call it.")
    slug = forms.SlugField(
        max_length=63, help_text="Its lasting name in the API: small letters, digits and hyphens."
    )
    team = forms.ModelChoiceField(queryset=Team.objects.none(), required=False)
    project = forms.ModelChoiceField(queryset=Project.objects.none(), required=False)
    owner = forms.ModelChoiceField(queryset=Person.objects.none(), required=False)
    requests_per_minute = forms.IntegerField(
        min_value=1, required=False, help_text="Empty: not limited."
    )
    tokens_per_minute = forms.IntegerField(
        min_value=1, required=False, help_text="Empty: not limited."
    )
    priority = forms.IntegerField(
        min_value=0,
        max_value=9,
        initial=0,
        required=False,
        help_text="0 to 9. Higher ones get more of a busy node.",
    )
    hand_back_tokens = forms.IntegerField(
        label="Last call when paused, tokens",
        min_value=1,
        max_value=1_000_000,
        required=False,
        help_text="Each paused session may make one more call of so much output. Empty: none.",
    )
    layout = (
        ("name", "field-half"),
        ("slug", "field-half"),
        ("team", "field-half"),
        ("project", "field-half"),
        ("owner", ""),
        ("requests_per_minute", "field-half"),
        ("tokens_per_minute", "field-half"),
        ("priority", "field-half"),
        ("hand_back_tokens", "field-half"),
    )

    def __init__(
        self, *args: Any, organization: Organization, agent: Agent | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **{"initial": _initial(agent), **kwargs})
        choices: dict[str, Any] = {
            "team": Team.objects.filter(organization=organization).order_by("name"),
            "project": Project.objects.filter(organization=organization).order_by("name"),
            "owner": Person.objects.filter(memberships__organization=organization).order_by(
                "email"
            ),
        }
        for name, queryset in choices.items():
            self.fields[name].queryset = queryset  # type: ignore[attr-defined]
        if agent is not None:
            del self.fields["slug"]  # lasting: its balances hang on the agent (L15)

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        return [(self[name], css) for name, css in self.layout if name in self.fields]

    def wishes(self) -> dict[str, Any]:
        """The arguments of the domain: ids instead of objects."""
        cleaned = dict(self.cleaned_data)
        for name in ("team", "project", "owner"):
            chosen = cleaned.pop(name)
            cleaned[f"{name}_id"] = chosen.id if chosen else None
        cleaned["priority"] = cleaned["priority"] or 0
        return cleaned


def _initial(agent: Agent | None) -> dict[str, Any]:
    if agent is None:
        return {}
    names = ("name", "requests_per_minute", "tokens_per_minute", "priority", "hand_back_tokens")
    places = {"team": agent.team_id, "project": agent.project_id, "owner": agent.owner_id}
    return {**{name: getattr(agent, name) for name in names}, **places}


class KeyForm(forms.Form):
    name = forms.CharField(label="Name of the new key", max_length=100)


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=500,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Kept in the audit trail with your name, and shown on the agent's page.",
    )


class ResumeForm(ReasonForm):
    session = forms.CharField(
        max_length=256, required=False, help_text="Only this session. Empty: the whole agent."
    )


class StopForm(ResumeForm):
    drain = forms.BooleanField(
        label="Let running calls end",
        required=False,
        help_text="Within what they hold. New calls are refused at once either way.",
    )


class SidecarForm(forms.Form):
    name = forms.CharField(max_length=100, help_text="Where it runs, like gpu-1 or vllm-0.")


class NodeCostForm(forms.Form):
    """What a node costs by the hour, and what stands there."""

    per_hour = forms.CharField(
        label="Dollars for each hour",
        max_length=40,
        help_text="Idle hours too. Rent, or depreciation and power.",
    )
    valid_from = forms.DateTimeField(
        label="Since",
        required=False,
        widget=forms.DateTimeInput(attrs={"placeholder": "2026-05-01 00:00"}),
        help_text="Empty: from now on. In UTC.",
    )
    accelerator = forms.CharField(
        max_length=100, required=False, help_text="Its kind, such as NVIDIA H100. Empty: none."
    )
    accelerator_count = forms.IntegerField(
        min_value=1, max_value=MOST_ACCELERATORS, required=False, label="How many"
    )
    watts = forms.IntegerField(
        min_value=1,
        max_value=MOST_WATTS,
        required=False,
        help_text="Of the whole node, under load. Empty: not known.",
    )
    reason = forms.CharField(
        max_length=500, required=False, help_text="Why; it stands in the audit trail."
    )
    layout = (
        ("per_hour", "field-half"),
        ("valid_from", "field-half"),
        ("accelerator", "field-half"),
        ("accelerator_count", "field-half"),
        ("watts", "field-half"),
        ("reason", "field-half"),
    )

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]

    def clean_per_hour(self) -> int:
        text = str(self.cleaned_data["per_hour"]).strip().removeprefix("$")
        try:
            return parse_usd(text)
        except ValueError:
            raise forms.ValidationError("Write dollars, like 2.49.") from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if not cleaned.get("accelerator") and cleaned.get("accelerator_count"):
            self.add_error("accelerator", "Say of which kind.")
        return cleaned

    def wishes(self) -> dict[str, Any]:
        """The arguments of the domain."""
        cleaned = dict(self.cleaned_data)
        cleaned["cost_per_hour_nanos"] = cleaned.pop("per_hour")
        cleaned["accelerator_count"] = (
            cleaned["accelerator_count"] or 1 if cleaned["accelerator"] else 0
        )
        return cleaned
