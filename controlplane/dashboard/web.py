"""What every page of every app begins with: who asks, for which organization, what they may do.

This module imports no app above identity, so that the pages of each app can stand on it.
"""

import csv
import functools
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, cast
from urllib.parse import quote

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render, resolve_url
from django.utils import timezone
from django.views.decorators.cache import never_cache

from controlplane.audit.domain import Actor
from controlplane.audit.enums import ActorKind
from controlplane.identity.enums import Role
from controlplane.identity.errors import NotFoundInOrganizationError, OwnersOnlyError
from controlplane.identity.models import Membership, Organization, Person

ORGANIZATION_IN_SESSION = "organization"
WRITERS = (Role.OWNER, Role.ADMIN)
P = ParamSpec("P")


class PageRequest(HttpRequest):
    """A request of somebody who is signed in and a member of the organization shown.

    Never made as such: `admit` sets these on the handler's own request.
    """

    person: Person
    membership: Membership
    organization: Organization
    actor: Actor  # the person, as the audit trail names them
    may_write: bool
    now: datetime


View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]
PageView = Callable[Concatenate[PageRequest, P], HttpResponseBase]


def page(view: PageView[P]) -> View[P]:
    """A page for members of an organization, whatever their role. Writes need `writing`."""

    @functools.wraps(view)
    def checked(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        asked = admit(request)
        if asked is None:
            return _to_sign_in(request)
        try:
            return view(asked, *args, **kwargs)
        except NotFoundInOrganizationError as error:
            raise Http404(str(error)) from None
        except OwnersOnlyError as error:
            raise PermissionDenied(str(error)) from None

    return cast("View[P]", never_cache(checked))


def writing(view: PageView[P]) -> View[P]:
    """A page that changes something: for owners and admins."""

    @functools.wraps(view)
    def checked(request: PageRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not request.may_write:
            raise PermissionDenied("Only owners and admins of the organization may do this.")
        return view(request, *args, **kwargs)

    return page(checked)


def admit(request: HttpRequest) -> PageRequest | None:
    """The request with its person, organization and role, or None if they are nobody here."""
    person = request.user
    if not isinstance(person, Person):
        return None
    chosen = request.session.get(ORGANIZATION_IN_SESSION)
    memberships = person.memberships.select_related("organization").order_by("created_at", "id")
    membership = memberships.filter(organization_id=chosen).first() if chosen else None
    membership = membership or memberships.first()
    if membership is None:
        raise PermissionDenied("You are not a member of any organization. Ask an owner to add you.")
    asked = cast("PageRequest", request)
    asked.person, asked.membership = person, membership
    asked.organization, asked.now = membership.organization, timezone.now()
    asked.actor = Actor(kind=ActorKind.PERSON, id=str(person.id), label=str(person))
    asked.may_write = membership.role in WRITERS
    return asked


def _to_sign_in(request: HttpRequest) -> HttpResponse:
    """A fragment must not be replaced by the sign-in page: its whole page goes there."""
    address = f"{resolve_url(settings.LOGIN_URL)}?next={quote(request.get_full_path())}"
    if request.headers.get("HX-Request"):
        return HttpResponse(status=401, headers={"HX-Redirect": resolve_url(settings.LOGIN_URL)})
    return HttpResponseRedirect(address)


def show(
    request: PageRequest,
    template: str,
    context: dict[str, Any],
    *,
    fragment: str = "",
    status: int = 200,
) -> HttpResponse:
    """Render a page, or only its live fragment when htmx asks for that."""
    wants_fragment = bool(fragment) and request.headers.get("HX-Request") == "true"
    return render(request, fragment if wants_fragment else template, context, status=status)


def csv_file(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> HttpResponse:
    """A table as a CSV download. Cells that a spreadsheet would run as formulas are quoted."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows([[_inert(cell) for cell in row] for row in rows])
    return HttpResponse(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t") else cell
