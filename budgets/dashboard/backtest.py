"""The page that tries budgets on recorded calls."""

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from django import forms
from django.http import HttpResponse

from budgets.errors import BudgetValidationError
from budgets.queries.backtest import Replay, replay_trace, replay_usage
from controlplane.dashboard.formats import amount
from controlplane.dashboard.uploads import SmallFile
from controlplane.dashboard.web import PageRequest, page, show
from controlplane.filetext import text_of
from enforcement.rules.backtest import Episode, lowest
from enforcement.rules.policy import BudgetPolicy

MAX_TRACE_BYTES = 8_000_000
EPISODES_SHOWN = 50
EXAMPLE = """\
- name: each agent a day
  unit: usd
  limit: "5.00"
  per: agent
  window: day
- name: gpt by the hour
  unit: tokens
  limit: 200000
  filters: {model: ["gpt-*"]}
  window: hour
"""
PERIODS = [("1", "The last 24 hours"), ("7", "The last 7 days"), ("30", "The last 30 days")]


class BacktestForm(forms.Form):
    """What to replay, against which budgets."""

    budgets = forms.CharField(
        label="Proposed budgets",
        widget=forms.Textarea(attrs={"rows": 11, "spellcheck": "false"}),
        max_length=100_000,
        initial=EXAMPLE,
        help_text="YAML or JSON, a list. Scopes are organization, team:SLUG, project:SLUG or"
        " agent:SLUG; all fields are in the documentation.",
    )
    period = forms.ChoiceField(label="Calls of", choices=PERIODS, initial="7")
    trace = SmallFile(
        label="Or a CSV",
        required=False,
        help_text="As comptroller backtest reads it.",
        most_bytes=MAX_TRACE_BYTES,
        larger="Use the command.",
        accept=".csv,text/csv",
    )

    def clean_budgets(self) -> Any:
        try:
            found = yaml.safe_load(self.cleaned_data["budgets"])
        except yaml.YAMLError as error:
            raise forms.ValidationError(f"This is no YAML: {error}") from error
        return found if isinstance(found, dict) else {"budgets": found}

    def clean_trace(self) -> str:
        trace = self.cleaned_data["trace"]
        try:
            return text_of(trace.content) if trace else ""
        except ValueError as error:
            raise forms.ValidationError(f"Not a CSV: {error}.") from error


@page
def backtest(request: PageRequest) -> HttpResponse:
    posted = request.method == "POST"
    form = BacktestForm(request.POST or None, request.FILES or None)
    context: dict[str, Any] = {"section": "budgets", "form": form}
    if posted and form.is_valid():
        try:
            found = _replay(request, form.cleaned_data)
        except BudgetValidationError as error:
            name = {"since": "period", "until": "period"}.get(error.field, error.field)
            form.add_error(name if name in form.fields else None, _sentence(error))
        else:
            context |= _told(found, ZoneInfo(request.organization.time_zone))
    status = 422 if form.errors else 200
    return show(request, "budgets/backtest.html", context, status=status)


def _sentence(error: BudgetValidationError) -> str:
    return error.message[:1].upper() + error.message[1:] + "."


def _replay(request: PageRequest, values: dict[str, Any]) -> Replay:
    if values["trace"]:
        return replay_trace(text=values["trace"], proposal=values["budgets"])
    return replay_usage(
        organization_id=request.organization.id,
        since=request.now - timedelta(days=int(values["period"])),
        until=request.now,
        proposal=values["budgets"],
    )


def _told(found: Replay, zone: ZoneInfo) -> dict[str, Any]:
    """The report as the page shows it: totals, agents, balances, and one picture each budget."""
    report = found.report
    by_id = {budget.id: budget for budget in found.budgets}
    names = {budget.id: budget.name for budget in found.budgets}
    fullest = lowest(report, names)
    stopped = [e for e in report.episodes if e.throttled or e.cut or e.refused or e.above]
    stopped.sort(key=lambda e: (-(e.refused + e.cut + e.throttled + e.above), e.budget, e.value))
    return {
        "report": report,
        "agents": sorted(report.agents.items(), key=lambda item: -item[1].saved),
        "episodes": [_row(episode, by_id[episode.budget]) for episode in stopped[:EPISODES_SHOWN]],
        "episode_count": len(stopped),
        "pictures": [
            _picture(budget, fullest[budget.name], zone)
            for budget in found.budgets
            if budget.name in fullest
        ],
    }


def _row(episode: Episode, budget: BudgetPolicy) -> dict[str, Any]:
    return {"episode": episode, "name": budget.name, "unit": budget.unit.value}


def _picture(budget: BudgetPolicy, episode: Episode, zone: ZoneInfo) -> dict[str, Any]:
    """How the balance that came nearest to its limit would have been used up."""
    unit = budget.unit.value
    return {
        "name": budget.name,
        "value": episode.value,
        "unit": unit,
        "limit": episode.limit,
        "wanted": episode.wanted,
        "points": [
            {
                "at": at,
                "epoch": int(at.timestamp()),
                "spent": spent,
                "wanted": wanted,
                "label": f"{at.astimezone(zone):%-d %b %H:%M} · {amount(spent, unit)}"
                f" of {amount(wanted, unit)} wanted",
            }
            for at, wanted, spent in episode.points
        ],
    }
