"""Bring a whole list of prices into the catalogue, or into an organization's own rates.

1. Versions are dated and never edited: what a list changes holds from now on, or from the later
   instant that it names. Importing it again changes nothing.
2. What is not in the list any more keeps its price: a model must not become unpriced by surprise.
3. A price that a file brought stays when the installed snapshot is imported at the next start.
4. Rates that jump a hundredfold stop the import of a file until each such model is confirmed by
   name. Of the installed snapshot, which comes in unasked, only those models are held back.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import transaction

from budgets.domain.catalogue import SOURCE, installed
from budgets.domain.pricelist import Catalogue, PriceKey, PriceList, Span, flat, jumps
from budgets.domain.pricerules import follow_all, follow_rules, make_way
from budgets.domain.priceversions import (
    check_price,
    end_versions,
    key_of,
    span_of,
    take_turn,
    version_of,
)
from budgets.errors import PriceError
from budgets.models import PriceVersion
from controlplane.audit.domain import Actor, record
from controlplane.identity.domain import bump_policy
from controlplane.identity.models import Organization

MOST_OWN = 1_000  # own rates go to every sidecar, whether a node serves the model or not
_BATCH = 1000
_NAMED = 20  # models that one message names


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A model whose price an import adds or changes: its rates before and after, nano-dollars."""

    key: PriceKey
    starts_at: datetime
    old: dict[str, int]
    new: dict[str, int]
    jumps: list[str]

    @property
    def kinds(self) -> list[str]:
        """The rates that differ."""
        every = dict.fromkeys([*self.old, *self.new])
        return [kind for kind in every if self.old.get(kind) != self.new.get(kind)]


@dataclass(kw_only=True)
class ImportDiff:
    """What an import changed, or would change."""

    source: str
    source_version: str
    added: list[Changed] = field(default_factory=list)
    changed: list[Changed] = field(default_factory=list)
    unchanged: int = 0
    kept: int = 0  # in the table, no longer in the source
    left_out: list[str] = field(default_factory=list)
    held: list[Changed] = field(default_factory=list)  # jumps that were not taken

    @property
    def doubtful(self) -> list[Changed]:
        """What must be confirmed by name, among what was added or changed."""
        return [one for one in (*self.added, *self.changed) if one.jumps]


@transaction.atomic
def import_catalogue(
    *,
    now: datetime,
    catalogue: Catalogue | None = None,
    confirmed: Collection[str] = (),
    dry_run: bool = False,
) -> ImportDiff:
    """Bring the catalogue to what the installed snapshot says from now on.

    A model that is new comes with its history; of a known one only the future changes. One that
    jumps and is not `confirmed` keeps its old price, or none.
    """
    take_turn()
    wanted = installed()
    if catalogue is not None:
        wanted = PriceList(source=SOURCE, version=wanted.version, prices=catalogue)
    known = _known(None)
    ours = {
        key: spans
        for key, spans in wanted.prices.items()
        if all(row.source == SOURCE for row in known.get(key, []) if _holds(row, now))
    }
    diff, fresh = _compare(wanted, ours, known, now=now, history=True)
    _hold_back(diff, fresh, confirmed)
    if not dry_run:
        _apply(fresh, known, wanted, organization=None)
        if fresh:
            follow_all(now=now)
            for organization in Organization.objects.order_by("id"):
                bump_policy(organization.id)
    return diff


@transaction.atomic
def import_prices(
    wanted: PriceList,
    *,
    organization_id: UUID | None,
    actor: Actor,
    now: datetime,
    reason: str = "",
    confirmed: Collection[str] = (),
    dry_run: bool = False,
) -> ImportDiff:
    """Take a price file: into an organization's own rates, or the catalogue of the installation.

    `confirmed`: names (`PriceKey.name`) of models whose jump is meant.

    Raises:
        PriceError: a price cannot be, or jumps and nobody confirmed it. Nothing is imported.
    """
    take_turn()
    organizations = Organization.objects.order_by("id").select_for_update(no_key=True)
    told = list(organizations.filter(id=organization_id) if organization_id else organizations)
    if organization_id and len(wanted.prices) > MOST_OWN:
        raise PriceError("content", f"own rates are taken up to {MOST_OWN} models at once")
    for key, spans in wanted.prices.items():
        for span in spans:
            _check(key, span)
    known = _known(organization_id)
    compared = known if organization_id is None else {**_known(None), **known}
    diff, fresh = _compare(wanted, wanted.prices, known, now=now, compared=compared)
    if dry_run:
        return diff
    _refuse_doubtful(diff, confirmed)
    if organization_id:
        free = make_way(organization_id, fresh, at=now)
        fresh = {key: _clipped(spans, free) for key, spans in fresh.items()}
    _apply(fresh, known, wanted, organization=told[0] if organization_id else None)
    for organization in told if fresh else ():
        follow_rules(organization, now=now)
    for organization in told if fresh else ():
        bump_policy(organization.id)
        _record(organization, diff, actor=actor, reason=reason, confirmed=confirmed, now=now)
    return diff


def _known(organization_id: UUID | None) -> dict[PriceKey, list[PriceVersion]]:
    known: dict[PriceKey, list[PriceVersion]] = defaultdict(list)
    for row in PriceVersion.objects.filter(organization=organization_id, rule=None).order_by(
        "valid_from"
    ):
        known[key_of(row)].append(row)
    return dict(known)


def _check(key: PriceKey, span: Span) -> None:
    try:
        check_price(key, span)
    except PriceError as error:
        raise PriceError("content", f"{key.name[:100]}: {error.message}") from error


def _holds(row: PriceVersion, now: datetime) -> bool:
    return row.valid_to is None or row.valid_to > now


# ------------------------------------------------------------------------------ comparing


def _compare(
    wanted: PriceList,
    prices: Catalogue,
    known: dict[PriceKey, list[PriceVersion]],
    *,
    now: datetime,
    history: bool = False,
    compared: dict[PriceKey, list[PriceVersion]] | None = None,
) -> tuple[ImportDiff, Catalogue]:
    """What differs, and the spans that must follow.

    `compared`: where a jump is measured from; of a model that is not there, from its price at
    another provider.
    """
    diff = ImportDiff(
        source=wanted.source,
        source_version=wanted.version,
        kept=len(known.keys() - prices.keys()),
        left_out=wanted.left_out,
    )
    fresh: Catalogue = {}
    among = compared or known
    by_name = {(key.model, key.match): rows for key, rows in among.items()}
    for key, spans in prices.items():
        future = spans if history and key not in known else _clipped(spans, now)
        if not future or (
            key in known
            and future == _clipped([span_of(row) for row in known[key]], future[0].start)
        ):
            diff.unchanged += 1
            continue
        fresh[key] = future
        like = among.get(key) or by_name.get((key.model, key.match), [])
        changed = _changed(key, known.get(key, []), like, future=future, now=now)
        (diff.changed if key in known else diff.added).append(changed)
    return diff, fresh


def _changed(
    key: PriceKey,
    rows: Iterable[PriceVersion],
    like: Iterable[PriceVersion],
    *,
    future: list[Span],
    now: datetime,
) -> Changed:
    """The first rate that follows beside the one that holds until then."""
    first = (_clipped(future, now) or future)[0]
    old = next(iter(_clipped([span_of(row) for row in rows], first.start)), None)
    usual = next(iter(_clipped([span_of(row) for row in like], first.start)), None)
    return Changed(
        key=key,
        starts_at=first.start,
        old=flat(old) if old else {},
        new=flat(first),
        jumps=list(dict.fromkeys(said for span in future for said in jumps(usual, span))),
    )


def _clipped(spans: Iterable[Span], start: datetime) -> list[Span]:
    """What is left of spans from an instant on."""
    return [
        span._replace(start=max(span.start, start))
        for span in spans
        if span.end is None or span.end > start
    ]


def _unconfirmed(diff: ImportDiff, confirmed: Collection[str]) -> list[Changed]:
    return [one for one in diff.doubtful if one.key.name not in confirmed]


def _hold_back(diff: ImportDiff, fresh: Catalogue, confirmed: Collection[str]) -> None:
    diff.held = _unconfirmed(diff, confirmed)
    for one in diff.held:
        del fresh[one.key]
    diff.added = [one for one in diff.added if one.key in fresh]
    diff.changed = [one for one in diff.changed if one.key in fresh]


def _refuse_doubtful(diff: ImportDiff, confirmed: Collection[str]) -> None:
    doubtful = _unconfirmed(diff, confirmed)
    if doubtful:
        said = "; ".join(f"{one.key.name}: {one.jumps[0]}" for one in doubtful[:_NAMED])
        more = f" … and {len(doubtful) - _NAMED} more" if len(doubtful) > _NAMED else ""
        raise PriceError("confirm", f"nothing is imported until these are confirmed: {said}{more}")


# ------------------------------------------------------------------------------ writing


def _apply(
    fresh: Catalogue,
    known: dict[PriceKey, list[PriceVersion]],
    wanted: PriceList,
    *,
    organization: Organization | None,
) -> None:
    """End what holds, withdraw what was to come, and add the versions that follow."""
    rows: list[PriceVersion] = []
    for key, spans in fresh.items():
        end_versions(known.get(key, []), at=spans[0].start)
        for span in spans:
            row = version_of(key, span, source=wanted.source, source_version=wanted.version)
            row.organization, row.own = organization, organization is not None
            rows.append(row)
    PriceVersion.objects.bulk_create(rows, batch_size=_BATCH)


def _record(
    organization: Organization,
    diff: ImportDiff,
    *,
    actor: Actor,
    reason: str,
    confirmed: Collection[str],
    now: datetime,
) -> None:
    record(
        organization_id=organization.id,
        actor=actor,
        action="price.import",
        object_kind="price_list",
        object_id=f"{diff.source} {diff.source_version}",
        reason=reason,
        after={
            "added": len(diff.added),
            "changed": len(diff.changed),
            "unchanged": diff.unchanged,
            "left_out": len(diff.left_out),
            "models": [one.key.name for one in (*diff.changed, *diff.added)][:_NAMED],
            "confirmed": sorted(confirmed),
        },
        now=now,
    )
