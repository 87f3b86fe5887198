"""The usage explorer: what was used, by any two dimensions, over whole days."""

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.forms import BoundField
from django.http import HttpResponse
from django.urls import reverse

from budgets.api.usage import DEFAULT_DAYS, question_of
from budgets.domain.dimensions import COLUMNS
from budgets.errors import UsageQueryError
from budgets.queries.explore import Answer, ask
from budgets.queries.exploresql import SESSION, TIMES, Question
from budgets.queries.owners import names_of
from controlplane.dashboard.web import PageRequest, page, show

SHOWN = 100
NAMES = (*COLUMNS, SESSION, *TIMES)


class QuestionForm(forms.Form):
    """What to ask. Days are UTC; the last is not included."""

    first = forms.CharField(label="By", max_length=200, help_text=f"{', '.join(NAMES)}, tag:NAME")
    second = forms.CharField(label="And by", max_length=200, required=False)
    since = forms.DateField(label="From", widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(label="Until", widget=forms.DateInput(attrs={"type": "date"}))
    filters = forms.CharField(
        max_length=2_000, required=False, help_text="model=gemma, tag:env=prod"
    )
    layout = (
        ("first", "field-half"),
        ("second", "field-half"),
        ("since", "field-half"),
        ("until", "field-half"),
        ("filters", ""),
    )

    @property
    def rows(self) -> list[tuple[BoundField, str]]:
        return [(self[name], css) for name, css in self.layout]


@page
def explore(request: PageRequest) -> HttpResponse:
    """Ask what the address says; without it, models by agent over the last thirty days."""
    usual = _usual(request.now.date())
    form = QuestionForm({**usual, **request.GET.dict()})
    question, answer, status = None, None, 422
    if form.is_valid():
        try:
            question = _question(request, form.cleaned_data)
            answer, status = ask(question), 200
        except UsageQueryError as error:
            form.add_error(None, f"{error.field}: {error.message}.")
    context: dict[str, Any] = {"section": "usage", "form": form, "answer": answer}
    if question and answer:
        context |= {
            "by": [one.name for one in question.by],
            "rows": _rows(question, answer),
            "more": answer.found - len(answer.groups),
            "export": _export_url(question),
        }
    return show(request, "budgets/usage.html", context, status=status)


def _usual(today: date) -> dict[str, str]:
    end = today + timedelta(days=1)
    since = end - timedelta(days=DEFAULT_DAYS)
    days = {"since": since.isoformat(), "until": end.isoformat()}
    return {"first": "agent", "second": "model", **days}


def _question(request: PageRequest, values: dict[str, Any]) -> Question:
    asked = {
        "group_by": ",".join(filter(None, (values["first"], values["second"]))),
        "since": values["since"],
        "until": values["until"],
        "limit": SHOWN,
    }
    words = [word.strip() for word in values["filters"].split(",") if word.strip()]
    return question_of(request.organization.id, asked, words=words, now=request.now)


def _rows(question: Question, answer: Answer) -> list[dict[str, Any]]:
    """Each group with its key in words, and its use."""
    names = [one.name for one in question.by]
    known = names_of(question.organization_id, names)
    return [
        {
            "words": [
                known.get(name, {}).get(str(value), value)
                for name, value in zip(names, group.key, strict=True)
            ],
            "use": group,
        }
        for group in answer.groups
    ]


def _export_url(question: Question) -> str:
    days = {"since": question.since.isoformat(), "until": question.until.isoformat()}
    return f"{reverse('usage-export')}?{urlencode(days)}"
