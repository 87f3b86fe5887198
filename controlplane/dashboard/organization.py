"""The settings page: people, API tokens, what the organization is."""

from typing import Any, NamedTuple
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_POST

from controlplane.dashboard.web import PageRequest, page, show, writing
from controlplane.identity.domain import (
    add_member,
    change_organization,
    change_role,
    invite,
    issue_api_token,
    remove_member,
    revoke_api_token,
)
from controlplane.identity.domain.people import member
from controlplane.identity.enums import Role, Scope, TokenKind
from controlplane.identity.errors import (
    AlreadyMemberError,
    ForeignPersonError,
    IdentityValidationError,
    LastOwnerError,
)
from controlplane.identity.models import ApiToken, Membership, Person

SECRET_IN_SESSION = "new_secret"  # noqa: S105 -- the name of a place, not a secret


class PersonForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    name = forms.CharField(max_length=200, required=False)
    role = forms.ChoiceField(choices=Role.choices, initial=Role.VIEWER)


class OrganizationForm(forms.Form):
    name = forms.CharField(max_length=200)
    time_zone = forms.CharField(max_length=64, help_text="Where its days begin.")


class TokenForm(forms.Form):
    name = forms.CharField(max_length=200, help_text="What will use it.")
    scopes = forms.MultipleChoiceField(
        label="What it may do",
        choices=[(scope.value, scope.label.capitalize()) for scope in Scope],
        initial=[Scope.READ.value],
        widget=forms.CheckboxSelectMultiple,
    )


class PersonRow(NamedTuple):
    person: Person
    label: str
    role: str


class TokenRow(NamedTuple):
    id: UUID
    name: str
    prefix: str
    kind: str
    scopes: list[str]
    state: str
    last_used_at: Any


@page
def settings(request: PageRequest) -> HttpResponse:
    return _page(request)


@require_POST
@writing
def person_add(request: PageRequest) -> HttpResponse:
    form = PersonForm(request.POST, auto_id="person-%s")
    if form.is_valid() and form.cleaned_data["role"] == Role.OWNER:
        _owners_only(request)
    try:
        if not form.is_valid():
            return _page(request, person_form=form, status=422)
        membership = add_member(
            organization_id=request.organization.id,
            email=form.cleaned_data["email"],
            name=form.cleaned_data["name"],
            role=Role(form.cleaned_data["role"]),
            actor=request.actor,
            now=request.now,
        )
    except (AlreadyMemberError, IdentityValidationError) as error:
        form.add_error("email", str(error))
        return _page(request, person_form=form, status=422)
    messages.success(request, f"{membership.person} is a member. Send them a sign-in link.")
    return redirect("settings")


@require_POST
@writing
def person_role(request: PageRequest, person_id: UUID) -> HttpResponse:
    """Change somebody's role; only owners touch owners."""
    role = request.POST.get("role", "")
    if role not in Role.values:
        raise Http404
    _refuse_owners(request, person_id, becoming=role)
    try:
        membership = change_role(
            organization_id=request.organization.id,
            person_id=person_id,
            role=Role(role),
            actor=request.actor,
            now=request.now,
        )
    except LastOwnerError as error:
        messages.error(request, f"Nothing was changed: {error}.")
    else:
        messages.success(request, f"{membership.person} is {membership.role} now.")
    return redirect("settings")


@require_POST
@writing
def person_remove(request: PageRequest, person_id: UUID) -> HttpResponse:
    """End a membership; the person's tokens end with it."""
    _refuse_owners(request, person_id)
    try:
        remove_member(
            organization_id=request.organization.id,
            person_id=person_id,
            actor=request.actor,
            now=request.now,
        )
    except LastOwnerError as error:
        messages.error(request, f"Nobody was removed: {error}.")
    else:
        messages.success(request, "They are no longer a member, and their tokens are revoked.")
    return redirect("settings")


@require_POST
@writing
def organization_change(request: PageRequest) -> HttpResponse:
    """Its name, and the time zone in which its days begin."""
    form = OrganizationForm(request.POST, auto_id="organization-%s")
    if form.is_valid():
        try:
            change_organization(
                organization_id=request.organization.id,
                changes=form.cleaned_data,
                actor=request.actor,
                now=request.now,
            )
        except IdentityValidationError as error:
            form.add_error(error.field if error.field in form.fields else None, str(error))
        else:
            messages.success(request, "Saved.")
            return redirect("settings")
    return _page(request, organization_form=form, status=422)


@require_POST
@writing
def person_link(request: PageRequest, person_id: UUID) -> HttpResponse:
    """A one-time way in for a member, shown to the owner who passes it on."""
    try:
        secret = invite(
            organization_id=request.organization.id,
            person_id=person_id,
            actor=request.actor,
            actor_is_owner=request.membership.role == Role.OWNER,
            now=request.now,
        )
    except ForeignPersonError as error:
        messages.error(request, f"No link was made: {error}.")
        return redirect("settings")
    address = request.build_absolute_uri(reverse("sign-in-link", args=[secret]))
    return _once(request, "A one-time sign-in link is ready. It works for half an hour.", address)


@require_POST
@writing
def token_issue(request: PageRequest) -> HttpResponse:
    form = TokenForm(request.POST, auto_id="token-%s")
    if not form.is_valid():
        return _page(request, token_form=form, status=422)
    if Scope.OWNER in form.cleaned_data["scopes"]:
        _owners_only(request)
    issued = issue_api_token(
        organization_id=request.organization.id,
        name=form.cleaned_data["name"],
        kind=TokenKind.API,
        scopes=form.cleaned_data["scopes"],
        person_id=request.person.id,
        actor=request.actor,
        now=request.now,
    )
    return _once(request, f"API token “{issued.token.name}” is ready.", issued.secret)


@require_POST
@writing
def token_revoke(request: PageRequest, token_id: UUID) -> HttpResponse:
    token = revoke_api_token(
        organization_id=request.organization.id,
        token_id=token_id,
        actor=request.actor,
        now=request.now,
    )
    messages.success(request, f"{token.name} is revoked.")
    return redirect("settings")


def _owners_only(request: PageRequest) -> None:
    if request.membership.role != Role.OWNER:
        raise PermissionDenied("Only owners of the organization may do this.")


def _refuse_owners(request: PageRequest, person_id: UUID, *, becoming: str = "") -> None:
    """An admin neither makes owners nor changes them."""
    membership = member(organization_id=request.organization.id, person_id=person_id)
    if Role.OWNER in (membership.role, becoming):
        _owners_only(request)


def _once(request: PageRequest, title: str, text: str) -> HttpResponse:
    """Show a secret on the next page and never again."""
    request.session[SECRET_IN_SESSION] = {"title": title, "text": text}
    return redirect("settings")


def _page(request: PageRequest, *, status: int = 200, **forms_: Any) -> HttpResponse:
    memberships = Membership.objects.filter(organization=request.organization)
    people = memberships.select_related("person").order_by("person__email")
    tokens = ApiToken.objects.filter(organization=request.organization, kind=TokenKind.API)
    context = {
        "section": "settings",
        "may_manage": request.may_write,
        "people": [PersonRow(m.person, m.person.name or m.person.email, m.role) for m in people],
        "tokens": [_token_row(token, request) for token in tokens.order_by("-created_at")],
        "new_secret": request.session.pop(SECRET_IN_SESSION, None),
        "roles": Role.choices,
        "person_form": PersonForm(auto_id="person-%s"),
        "organization_form": OrganizationForm(
            auto_id="organization-%s",
            initial={
                "name": request.organization.name,
                "time_zone": request.organization.time_zone,
            },
        ),
        "token_form": TokenForm(auto_id="token-%s"),
        **forms_,
    }
    return show(request, "dashboard/settings.html", context, status=status)


def _token_row(token: ApiToken, request: PageRequest) -> TokenRow:
    expired = token.expires_at is not None and token.expires_at <= request.now
    state = "revoked" if token.revoked_at else "expired" if expired else "live"
    return TokenRow(
        token.id, token.name, token.prefix, token.kind, token.scopes, state, token.last_used_at
    )
