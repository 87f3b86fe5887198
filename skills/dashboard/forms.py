"""Forms of the skill pages. They parse; what is allowed is decided in the domain."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, cast

from django import forms

from controlplane.identity.models import Agent
from enforcement.rules.cardformat import Capabilities, Caps, CardBudget, ToolCapability
from enforcement.rules.money import NANOS_PER_USD
from skills.domain.front_matter import requested_tools
from skills.models import Skill, SkillCard

_DAYS_DEFAULT = 90


class ImportForm(forms.Form):
    archive = forms.FileField(
        label="ZIP of the skill folder",
        help_text="With SKILL.md, and skill.oms.sig if its publisher signed it. At most 50 MiB.",
        widget=forms.ClearableFileInput(attrs={"accept": ".zip,application/zip"}),
    )


class SignForm(forms.Form):
    """What the next card of a skill says."""

    tools = forms.CharField(
        label="Tools it may use",
        widget=forms.Textarea(attrs={"rows": 5, "class": "mono", "spellcheck": "false"}),
        required=False,
        help_text="One a line, exactly as the agent names them; a name may end in *.",
    )
    denied_tools = forms.CharField(
        label="Tools it must never use",
        widget=forms.Textarea(attrs={"rows": 2, "class": "mono", "spellcheck": "false"}),
        required=False,
        help_text="Any spelling counts: case, width and separators do not matter.",
    )
    usd = forms.DecimalField(
        label="Dollars per activation", required=False, min_value=0, decimal_places=9
    )
    tokens = forms.IntegerField(label="Tokens per activation", required=False, min_value=0)
    tool_calls = forms.IntegerField(label="Tool calls per activation", required=False, min_value=0)
    expires = forms.DateField(
        label="Expires at the start of (UTC)", widget=forms.DateInput(attrs={"type": "date"})
    )
    reason = forms.CharField(label="Why", max_length=500)
    carry_grants = forms.BooleanField(
        label="Carry the grants of the card before over to this one",
        required=False,
        help_text="Agents keep what both cards name. Without it they are refused until granted.",
    )

    @staticmethod
    def starting(skill: Skill, *, now: datetime) -> dict[str, Any]:
        """What a fresh form shows: the tools that the skill asks for."""
        asked = requested_tools(skill.front_matter)
        ordinal = now.date().toordinal() + _DAYS_DEFAULT
        return {
            "tools": "\n".join(tool.name for tool in asked),
            "expires": now.date().fromordinal(ordinal),
        }

    def capabilities(self) -> Capabilities:
        return Capabilities(
            tools=[ToolCapability(name=name) for name in _lines(self.cleaned_data["tools"])],
            denied_tools=_lines(self.cleaned_data["denied_tools"]),
        )

    def budget(self) -> CardBudget:
        usd: Decimal | None = self.cleaned_data["usd"]
        return CardBudget(
            per_activation=Caps(
                tokens=self.cleaned_data["tokens"],
                usd_nanos=None if usd is None else int(usd * NANOS_PER_USD),
                tool_calls=self.cleaned_data["tool_calls"],
            )
        )

    def expires_at(self) -> datetime:
        return datetime.combine(self.cleaned_data["expires"], time(), tzinfo=UTC)


class GrantForm(forms.Form):
    """Which agent may use a card, and which of its tools."""

    agent = forms.ModelChoiceField(queryset=Agent.objects.none(), empty_label=None)
    tools = forms.MultipleChoiceField(
        label="Tools",
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="None ticked: all tools of the card.",
    )
    reason = forms.CharField(label="Why", max_length=500)

    def __init__(self, *args: Any, card: SkillCard, tools: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        granted = card.grants.filter(revoked_at__isnull=True).values("agent")
        agents = Agent.objects.filter(
            organization_id=card.organization_id, retired_at__isnull=True
        ).exclude(id__in=granted)
        choice = cast("forms.ModelChoiceField[Agent]", self.fields["agent"])
        choice.queryset = agents.order_by("slug")
        listed = cast("forms.MultipleChoiceField", self.fields["tools"])
        listed.choices = [(name, name) for name in tools]


class ReasonForm(forms.Form):
    reason = forms.CharField(label="Why", max_length=500)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
