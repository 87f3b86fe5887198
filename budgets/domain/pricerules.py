"""Aliases and negotiated discounts: rates of an organization that follow from other rates.

Each rule is written out as own price versions that name the rule and the version they follow from,
as far into the future as that is known. So sidecars need no second look, and a call that names its
version names the rule that priced it. Whatever changes a price calls `follow_rules`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, QuerySet

from budgets.domain.derivedprices import (
    PER_MILLE,
    Follower,
    discounted,
    joined,
    moments,
    outside,
    within,
)
from budgets.domain.pricelist import PriceKey, Span
from budgets.domain.priceversions import (
    end_versions,
    free_from,
    key_of,
    span_of,
    take_turn,
    version_of,
)
from budgets.enums import PriceMatch, PriceRuleKind
from budgets.errors import PriceError, PriceRuleNotFoundError
from budgets.models import PriceRule, PriceVersion
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Organization
from enforcement.rules.estimate import price_for
from enforcement.rules.policy import PricePolicy

MOST_FOLLOWERS = 1_000  # versions that the rules of one organization may make
MOST_CHARS = {"provider": 64, "model": 200, "target_provider": 64, "target_model": 200}


@transaction.atomic
def set_rule(
    *,
    organization_id: UUID,
    kind: PriceRuleKind,
    actor: Actor,
    now: datetime,
    provider: str = "",
    model: str = "",
    match: PriceMatch = PriceMatch.EXACT,
    target_provider: str = "",
    target_model: str = "",
    off_per_mille: int = 0,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    reason: str = "",
) -> PriceRule:
    """Let rates follow from others, from now or a later instant on. It ends the rule before it.

    Raises:
        PriceError: it cannot be meant, prices nothing, or makes too many rates.
    """
    rule = PriceRule(
        organization_id=organization_id,
        kind=kind,
        provider=provider.strip(),
        model=model.strip(),
        match=match,
        target_provider=target_provider.strip(),
        target_model=target_model.strip(),
        off_per_mille=off_per_mille,
        valid_from=now if valid_from is None else valid_from,
        valid_to=valid_to,
        reason=reason,
    )
    _check(rule, now=now)
    take_turn()
    organization = Organization.objects.select_for_update(no_key=True).get(id=organization_id)
    _end_same(rule)
    rule.save(force_insert=True)
    made = follow_rules(organization, now=now)
    if not made[rule.id]:
        wanted = "target_model" if kind is PriceRuleKind.ALIAS else "model"
        raise PriceError(wanted, "no price is known that rates could follow from")
    if sum(made.values()) > MOST_FOLLOWERS:
        raise PriceError("model", f"the rules would make more than {MOST_FOLLOWERS} rates")
    _tell(rule, "price.rule.set", actor=actor, reason=reason, now=now)
    return rule


@transaction.atomic
def end_rule(
    *, organization_id: UUID, rule_id: UUID, actor: Actor, now: datetime, reason: str = ""
) -> PriceRule:
    """End a rule now; one that has not begun never does.

    Raises:
        PriceRuleNotFoundError: the organization has no such rule, or it has ended.
    """
    take_turn()
    organization = Organization.objects.select_for_update(no_key=True).get(id=organization_id)
    rule = living(now).filter(organization=organization, id=rule_id).first()
    if rule is None:
        raise PriceRuleNotFoundError
    rule.valid_to = max(now, rule.valid_from)
    rule.save(update_fields=["valid_to"])
    follow_rules(organization, now=now)
    _tell(rule, "price.rule.end", actor=actor, reason=reason, now=now)
    return rule


def _check(rule: PriceRule, *, now: datetime) -> None:
    if rule.valid_from < now:
        raise PriceError("valid_from", "a rule cannot begin in the past")
    if rule.valid_to is not None and rule.valid_to <= rule.valid_from:
        raise PriceError("valid_to", "a rule must end after it begins")
    for name, most in MOST_CHARS.items():
        text = getattr(rule, name)
        if len(text) > most or not text.isprintable():
            raise PriceError(name, f"{name} has up to {most} printable characters")
    if not rule.model and rule.match != PriceMatch.PREFIX:
        raise PriceError("model", "a rule is of a name, or of every name by the empty prefix")
    if rule.kind == PriceRuleKind.ALIAS:
        _check_alias(rule)
    elif rule.target_model or rule.target_provider:
        raise PriceError("target_model", "only an alias has a model that it costs like")
    elif not 0 < rule.off_per_mille < PER_MILLE:
        raise PriceError("percent", "a discount is more than 0 and less than 100 percent")


def _check_alias(rule: PriceRule) -> None:
    if not rule.target_model:
        raise PriceError("target_model", "an alias needs the model that it costs like")
    if rule.off_per_mille:
        raise PriceError("percent", "an alias has no discount; it follows that of its model")


def living(now: datetime) -> QuerySet[PriceRule]:
    """Rules that hold now or will; not those that were withdrawn before they began."""
    rows = PriceRule.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now))
    return rows.exclude(valid_to=F("valid_from"))


def _end_same(rule: PriceRule) -> None:
    """A rule of the same name ends where this one begins; one that is announced gives way to it."""
    same = living(rule.valid_from).filter(
        organization_id=rule.organization_id,
        kind=rule.kind,
        provider=rule.provider,
        model=rule.model,
        match=rule.match,
    )
    for before in same:
        before.valid_to = max(before.valid_from, rule.valid_from)
        before.save(update_fields=["valid_to"])


def _tell(rule: PriceRule, action: str, *, actor: Actor, reason: str, now: datetime) -> None:
    bump_policy(rule.organization_id)
    record(
        organization_id=rule.organization_id,
        actor=actor,
        action=action,
        object_kind="price_rule",
        object_id=str(rule.id),
        reason=reason,
        after={
            "kind": rule.kind,
            "rule": str(rule),
            "valid_from": rule.valid_from.isoformat(),
            "valid_to": rule.valid_to.isoformat() if rule.valid_to else None,
        },
        now=now,
    )


# ------------------------------------------------------------------------------ following


def follow_all(*, now: datetime) -> None:
    """Every organization's rules, after the catalogue has changed."""
    owners = living(now).values("organization_id")
    for organization in (
        Organization.objects.filter(id__in=owners).order_by("id").select_for_update(no_key=True)
    ):
        follow_rules(organization, now=now)


def make_way(organization_id: UUID, keys: Iterable[PriceKey], *, at: datetime) -> datetime:
    """End what rules say of these names, as own rates are about to be set; from when on they may.

    Follow the rules again when they are.
    """
    names = set(keys)
    rows = _rows(at).filter(organization_id=organization_id, rule__isnull=False)
    theirs = [row for row in rows if key_of(row) in names]
    free = free_from(theirs, at)
    end_versions(theirs, at=free)
    return free


def follow_rules(organization: Organization, *, now: datetime) -> dict[UUID, int]:
    """Write out what rules say from now on; how many versions each has. The caller holds the lock.

    Safe to run again: what is written already stays.
    """
    rules = list(living(now).filter(organization=organization).order_by("valid_from", "id"))
    rows = list(_rows(now).filter(organization=organization, rule__isnull=False))
    if not rules and not rows:
        return {}
    written, now = _by_key(rows), free_from(rows, now)
    own = _by_key(_rows(now).filter(organization=organization, rule=None))
    catalogue = _by_key(_rows(now).filter(organization=None)) if rules else {}
    reduced = _beside(own, _discounts(rules, catalogue, now=now))
    wanted = reduced | _beside(own, _aliases(rules, [own, catalogue], reduced, now=now))
    for key in {*wanted, *written}:
        _rewrite(key, wanted.get(key, []), written.get(key, []), organization=organization, now=now)
    made: dict[UUID, int] = defaultdict(int)
    for followers in wanted.values():
        for one in followers:
            made[one.rule] += 1
    return made


def _rows(now: datetime) -> QuerySet[PriceVersion]:
    return PriceVersion.objects.filter(Q(valid_to=None) | Q(valid_to__gt=now))


def _by_key(rows: Iterable[PriceVersion]) -> dict[PriceKey, list[PriceVersion]]:
    found: dict[PriceKey, list[PriceVersion]] = defaultdict(list)
    for row in rows:
        found[key_of(row)].append(row)
    return found


def _beside(
    own: dict[PriceKey, list[PriceVersion]], found: dict[PriceKey, list[Follower]]
) -> dict[PriceKey, list[Follower]]:
    """What is left where own rates are set for the same name."""
    taken = {key: [(row.valid_from, row.valid_to) for row in own.get(key, [])] for key in found}
    return {key: joined(outside(followers, taken[key])) for key, followers in found.items()}


def _discounts(
    rules: Iterable[PriceRule], catalogue: dict[PriceKey, list[PriceVersion]], *, now: datetime
) -> dict[PriceKey, list[Follower]]:
    """What the catalogue costs less; where several rules fit a name, the most exact holds."""
    ranked = sorted(
        (rule for rule in rules if rule.kind == PriceRuleKind.DISCOUNT),
        key=lambda rule: (rule.provider != "", rule.match == PriceMatch.EXACT, len(rule.model)),
        reverse=True,
    )
    found: dict[PriceKey, list[Follower]] = {}
    for key, rows in catalogue.items() if ranked else ():
        taken: list[tuple[datetime, datetime | None]] = []
        for rule in (rule for rule in ranked if _fits(rule, key)):
            start = max(now, rule.valid_from)
            followers = [
                Follower(
                    discounted(span_of(row), off_per_mille=rule.off_per_mille), rule.id, row.id
                )
                for row in rows
            ]
            parts = outside(within(followers, start, rule.valid_to), taken)
            found.setdefault(key, []).extend(parts)
            taken.append((start, rule.valid_to))
    return found


def _fits(rule: PriceRule, key: PriceKey) -> bool:
    if rule.provider and rule.provider != key.provider:
        return False
    if rule.match == PriceMatch.PREFIX:
        return key.model.startswith(rule.model)
    return (key.model, key.match) == (rule.model, PriceMatch.EXACT.value)


def _aliases(
    rules: Iterable[PriceRule],
    sources: Iterable[dict[PriceKey, list[PriceVersion]]],
    reduced: dict[PriceKey, list[Follower]],
    *,
    now: datetime,
) -> dict[PriceKey, list[Follower]]:
    """What names cost that are priced like others, discounts included."""
    aliases = [rule for rule in rules if rule.kind == PriceRuleKind.ALIAS]
    if not aliases:
        return {}
    priced = list(_priced(sources, reduced))
    priced.sort(key=lambda one: (-one[0].own, -one[0].rates.output, -one[0].rates.input))
    found: dict[PriceKey, list[Follower]] = {}
    for rule in aliases:
        key = PriceKey(rule.provider, rule.model, rule.match)
        found.setdefault(key, []).extend(_like(rule, priced, now=now))
    return found


def _priced(
    sources: Iterable[dict[PriceKey, list[PriceVersion]]], reduced: dict[PriceKey, list[Follower]]
) -> Iterator[tuple[PricePolicy, Span]]:
    """Everything that names a price; the policy's id is that of the version to follow."""
    for rows_by_key in sources:
        for rows in rows_by_key.values():
            for row in rows:
                yield row.to_policy(), span_of(row)
    for key, followers in reduced.items():
        for one in followers:
            row = version_of(key, one.span, source="", source_version="")
            row.id, row.own = one.basis, True
            yield row.to_policy(), one.span


def _like(
    rule: PriceRule, priced: Iterable[tuple[PricePolicy, Span]], *, now: datetime
) -> Iterator[Follower]:
    target = {"model": rule.target_model, "provider": rule.target_provider}
    fitting = [(policy, span) for policy, span in priced if price_for([policy], **target)]
    spans = [span for _, span in fitting]
    for start, end in moments(spans, max(now, rule.valid_from), rule.valid_to):
        holding = (
            policy
            for policy, span in fitting
            if span.start <= start and (span.end is None or start < span.end)
        )
        best = price_for(holding, **target)
        if best is not None:
            span = Span(start, end, best.rates, tuple(best.tiers), best.variants)
            yield Follower(span, rule.id, UUID(best.id))


def _rewrite(
    key: PriceKey,
    wanted: list[Follower],
    written: list[PriceVersion],
    *,
    organization: Organization,
    now: datetime,
) -> None:
    """Bring one name to what its rules say from now on."""
    known = [
        Follower(span_of(row), row.rule_id, row.basis_id)
        for row in written
        if row.rule_id and row.basis_id
    ]
    if joined(within(known, now, None)) == wanted:
        return
    end_versions(written, at=now)
    for one in wanted:
        row = version_of(key, one.span, source="rule", source_version="")
        row.organization, row.own = organization, True
        row.rule_id, row.basis_id = one.rule, one.basis
        row.save(force_insert=True)
