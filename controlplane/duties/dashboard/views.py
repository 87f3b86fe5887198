"""The page of background work: what failed for good, what is due when, what it takes."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from controlplane.dashboard.web import PageRequest, page, show, writing
from controlplane.duties.domain.letters import dismiss_letter, retry_letter
from controlplane.duties.enums import LetterState
from controlplane.duties.errors import DutiesError, LetterNotFoundError
from controlplane.duties.models import DeadLetter, Duty
from controlplane.duties.sending import send

SHOWN = 100
SETTLED_SHOWN = 20


@page
def tasks(request: PageRequest) -> HttpResponse:
    letters = DeadLetter.objects.order_by("-last_at", "-id")
    context = {
        "section": "tasks",
        "dead": letters.filter(state=LetterState.DEAD)[:SHOWN],
        "settled": letters.exclude(state=LetterState.DEAD)[:SETTLED_SHOWN],
        "duties": Duty.objects.order_by("name"),
    }
    return show(request, "duties/tasks.html", context, fragment="duties/_tasks.html")


@require_POST
@writing
def settle(request: PageRequest, letter_id: UUID) -> HttpResponse:
    reason = request.POST.get("reason", "").strip()
    who: dict[str, Any] = {
        "organization_id": request.organization.id,
        "actor": request.actor,
        "now": request.now,
    }
    try:
        if "dismiss" in request.POST:
            dismiss_letter(letter_id, reason=reason, **who)
            messages.success(request, "Dismissed.")
        else:
            retry_letter(letter_id, reason=reason, send=send, **who)
            messages.success(request, "Sent again.")
    except LetterNotFoundError as error:
        raise Http404 from error
    except DutiesError as error:
        messages.warning(request, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    return redirect("duties:tasks")
