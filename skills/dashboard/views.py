"""Pages of skills and cards: parse, call one domain function, show."""

import json
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from controlplane.dashboard.web import PageRequest, page, show, writing
from enforcement.rules.dsse import decode_base64
from skills import queries
from skills.dashboard.badges import card_badge, skill_badge
from skills.dashboard.forms import GrantForm, ImportForm, ReasonForm, SignForm
from skills.domain.cards import revoke_card, sign_card
from skills.domain.grants import grant_card, revoke_grant
from skills.domain.importing import import_skill
from skills.domain.requirement import require_cards
from skills.domain.roots import known_roots
from skills.domain.trust import switch_trust_root
from skills.domain.verification import verify_skill
from skills.enums import SIGNABLE, CardState
from skills.errors import SkillsError
from skills.models import Skill, SkillCard, SkillGrant, TrustRoot

_ROWS_MAX = 200


@page
@require_GET
def skill_list(request: PageRequest) -> HttpResponseBase:
    organization_id = request.organization.pk
    skills = Skill.objects.filter(organization_id=organization_id)[:_ROWS_MAX]
    judge = queries.Judge(organization_id, now=request.now)
    cards = queries.newest_cards(skills)
    rows = [_skill_row(skill, cards.get(skill.pk), judge) for skill in skills]
    context = {
        "section": "skills",
        "rows": rows,
        "roots": known_roots(organization_id=organization_id),
        "truncated": len(rows) == _ROWS_MAX,
    }
    return show(request, "skills/list.html", context, fragment="skills/_list.html")


def _skill_row(skill: Skill, card: SkillCard | None, judge: queries.Judge) -> dict[str, Any]:
    verdict = judge.verdict(card) if card else None
    return {
        "skill": skill,
        "badge": skill_badge(skill.state),
        "reason": skill.reasons[0]["message"] if skill.reasons else "",
        "card": card,
        "card_badge": card_badge(verdict.code) if verdict else None,
    }


@writing
@require_http_methods(["GET", "POST"])
def skill_import(request: PageRequest) -> HttpResponseBase:
    form = ImportForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            skill = import_skill(
                organization_id=request.organization.pk,
                archive=form.cleaned_data["archive"].read(),
                actor=request.actor,
                now=request.now,
            )
        except SkillsError as error:
            form.add_error("archive", str(error))
        else:
            messages.success(request, f"{skill.name} was imported.")
            return redirect("skills:detail", skill.pk)
    status = 422 if form.errors else 200
    return show(request, "skills/import.html", {"section": "skills", "form": form}, status=status)


@page
@require_GET
def skill_detail(request: PageRequest, skill_id: UUID) -> HttpResponseBase:
    skill = _skill(request, skill_id)
    judge = queries.Judge(request.organization.pk, now=request.now)
    cards = queries.cards_of(request.organization.pk).filter(name=skill.name)
    context = {
        "section": "skills",
        "skill": skill,
        "badge": skill_badge(skill.state),
        "signable": skill.state in SIGNABLE,
        "cards": [
            {"card": card, "badge": card_badge(judge.verdict(card).code)}
            for card in cards[:_ROWS_MAX]
        ],
        "files": [{"path": path, **entry} for path, entry in sorted(skill.files.items())],
        "findings": {name.replace("_", " "): paths for name, paths in skill.findings.items()},
    }
    return show(request, "skills/detail.html", context)


@writing
@require_POST
def skill_verify(request: PageRequest, skill_id: UUID) -> HttpResponseBase:
    skill = verify_skill(skill=_skill(request, skill_id), actor=request.actor, now=request.now)
    messages.info(request, f"{skill.name}: {skill_badge(skill.state).label.lower()}.")
    return redirect("skills:detail", skill.pk)


@writing
@require_http_methods(["GET", "POST"])
def card_sign(request: PageRequest, skill_id: UUID) -> HttpResponseBase:
    skill = _skill(request, skill_id)
    form = SignForm(request.POST or None, initial=SignForm.starting(skill, now=request.now))
    if request.method == "POST" and form.is_valid():
        try:
            card = sign_card(
                skill=skill,
                capabilities=form.capabilities(),
                budget=form.budget(),
                expires=form.expires_at(),
                carry_grants=form.cleaned_data["carry_grants"],
                actor=request.actor,
                reason=form.cleaned_data["reason"],
                now=request.now,
            )
        except SkillsError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"Revision {card.card_rev} of the card was signed.")
            return redirect("skills:card", card.pk)
    context = {"section": "skills", "skill": skill, "form": form}
    return show(request, "skills/sign.html", context, status=422 if form.errors else 200)


@page
@require_GET
def card_detail(request: PageRequest, card_id: UUID) -> HttpResponseBase:
    return _card_page(request, _card(request, card_id))


def _card_page(request: PageRequest, card: SkillCard, **forms: Any) -> HttpResponse:
    judge = queries.Judge(request.organization.pk, now=request.now)
    verdict, opened = judge.verdict(card), judge.open(card)
    tools = opened.tools if opened else []
    context = {
        "section": "skills",
        "card": card,
        "skill": card.skill,
        "skill_badge": skill_badge(card.skill.state),
        "verdict": verdict,
        "badge": card_badge(verdict.code),
        "body": opened.body if opened else None,
        "grants": queries.live_grants(card),
        "raw": _pretty(card.envelope),
        "command": queries.verify_command(card),
        "grantable": card.state == CardState.ACTIVE and verdict.code == "valid",
        "grant_form": GrantForm(card=card, tools=tools),
        "revoke_form": ReasonForm(prefix="revoke"),
        **forms,
    }
    failed = any(form.errors for form in forms.values())
    return show(request, "skills/card.html", context, status=422 if failed else 200)


@page
@require_GET
def card_envelope(request: PageRequest, card_id: UUID) -> HttpResponseBase:
    card = _card(request, card_id)
    return HttpResponse(
        card.envelope,
        content_type="application/vnd.in-toto+json",
        headers={"Content-Disposition": f'attachment; filename="{queries.file_name(card)}"'},
    )


@writing
@require_POST
def card_revoke(request: PageRequest, card_id: UUID) -> HttpResponseBase:
    card = _card(request, card_id)
    form = ReasonForm(request.POST, prefix="revoke")
    if form.is_valid():
        try:
            revoke_card(
                card=card,
                actor=request.actor,
                reason=form.cleaned_data["reason"],
                now=request.now,
            )
        except SkillsError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, "The card was revoked. Sidecars refuse it from now on.")
            return redirect("skills:card", card.pk)
    return _card_page(request, card, revoke_form=form)


@writing
@require_POST
def card_grant(request: PageRequest, card_id: UUID) -> HttpResponseBase:
    card = _card(request, card_id)
    opened = queries.Judge(request.organization.pk, now=request.now).open(card)
    form = GrantForm(request.POST, card=card, tools=opened.tools if opened else [])
    if form.is_valid():
        try:
            grant = grant_card(
                card=card,
                agent=form.cleaned_data["agent"],
                tools=form.cleaned_data["tools"] or None,
                actor=request.actor,
                reason=form.cleaned_data["reason"],
                now=request.now,
            )
        except SkillsError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{grant.agent} may use this card.")
            return redirect("skills:card", card.pk)
    return _card_page(request, card, grant_form=form)


@writing
@require_POST
def grant_revoke(request: PageRequest, grant_id: UUID) -> HttpResponseBase:
    grant = get_object_or_404(SkillGrant, organization=request.organization, pk=grant_id)
    try:
        revoke_grant(grant=grant, actor=request.actor, now=request.now)
    except SkillsError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, "The grant was taken back.")
    return redirect("skills:card", grant.card_id)


@writing
@require_POST
def root_switch(request: PageRequest, root_id: UUID) -> HttpResponseBase:
    enabled = request.POST.get("enabled") == "1"
    try:
        root = switch_trust_root(
            organization_id=request.organization.pk,
            trust_root_id=root_id,
            enabled=enabled,
            actor=request.actor,
            reason=request.POST.get("reason", "")[:500],
            now=request.now,
        )
    except TrustRoot.DoesNotExist:
        raise Http404 from None
    word = "trusted" if enabled else "no longer trusted"
    messages.success(request, f"{root.name} is {word}. Every skill was verified again.")
    return redirect("skills:list")


@writing
@require_POST
def requirement_switch(request: PageRequest) -> HttpResponseBase:
    required = request.POST.get("required") == "1"
    require_cards(
        organization_id=request.organization.pk,
        required=required,
        actor=request.actor,
        reason=request.POST.get("reason", "")[:500],
        now=request.now,
    )
    if required:
        messages.success(request, "Every call now needs a valid skill card.")
    else:
        messages.success(request, "Calls no longer need a skill card.")
    return redirect("skills:list")


def _skill(request: PageRequest, skill_id: UUID) -> Skill:
    return get_object_or_404(Skill, organization=request.organization, pk=skill_id)


def _card(request: PageRequest, card_id: UUID) -> SkillCard:
    return get_object_or_404(queries.cards_of(request.organization.pk), pk=card_id)


def _pretty(envelope: str) -> str:
    """The signed statement, readable; the signature covers the file that is downloaded."""
    payload = decode_base64(json.loads(envelope)["payload"], what="payload")
    return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
