"""Rates that follow from other rates: discounts and aliases, in time. Pure.

1. A discounted rate is rounded up to a nano-dollar for a million tokens.
2. What follows is a whole version again: it says its rates, so that a charge needs no second look.
3. Where an own rate is set for the same name and time, it holds; what follows gives way.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import msgspec

from budgets.domain.pricelist import Span
from enforcement.rules.policy import PriceTier, Rates

PER_MILLE = 1000


class Follower(NamedTuple):
    """Rates that follow from a rule, and from the version that they were taken from."""

    span: Span
    rule: UUID
    basis: UUID


def discounted(span: Span, *, off_per_mille: int) -> Span:
    """The same times, at less."""

    def less(rates: Rates) -> Rates:
        return _each(rates, lambda nanos: -(-nanos * (PER_MILLE - off_per_mille) // PER_MILLE))

    def lesser(variants: dict[str, Rates]) -> dict[str, Rates]:
        return {tier: less(rates) for tier, rates in variants.items()}

    return span._replace(
        rates=less(span.rates),
        variants=lesser(span.variants),
        tiers=tuple(
            PriceTier(tier.above_input_tokens, less(tier.rates), lesser(tier.variants))
            for tier in span.tiers
        ),
    )


def _each(rates: Rates, change: Callable[[int], int]) -> Rates:
    said = msgspec.structs.asdict(rates)
    changed = {kind: change(nanos) for kind, nanos in said.items() if nanos is not None}
    return msgspec.structs.replace(rates, **changed)


def within(followers: Iterable[Follower], start: datetime, end: datetime | None) -> list[Follower]:
    """What is left of them in `[start, end)`."""
    found = []
    for one in followers:
        begins = max(one.span.start, start)
        ends = min((at for at in (one.span.end, end) if at is not None), default=None)
        if ends is None or begins < ends:
            found.append(one._replace(span=one.span._replace(start=begins, end=ends)))
    return found


def outside(
    followers: Sequence[Follower], taken: Iterable[tuple[datetime, datetime | None]]
) -> list[Follower]:
    """What is left of them outside of the times that are taken."""
    left = list(followers)
    for start, end in taken:
        before = [part for one in left for part in within([one], one.span.start, start)]
        after = [] if end is None else [part for one in left for part in within([one], end, None)]
        left = sorted((*before, *after), key=lambda one: one.span.start)
    return left


def joined(followers: Iterable[Follower]) -> list[Follower]:
    """In order of time; neighbours that say the same, for the same reason, are one."""
    found: list[Follower] = []
    for one in sorted(followers, key=lambda each: each.span.start):
        last = found[-1] if found else None
        if last and last.span.end == one.span.start and _said(last) == _said(one):
            found[-1] = last._replace(span=last.span._replace(end=one.span.end))
        else:
            found.append(one)
    return found


def _said(one: Follower) -> tuple[object, ...]:
    return one.rule, one.basis, one.span.rates, one.span.tiers, one.span.variants


def moments(
    spans: Iterable[Span], start: datetime, end: datetime | None
) -> list[tuple[datetime, datetime | None]]:
    """The times between changes of any of these spans, from `start` to `end`."""
    edges = {at for span in spans for at in (span.start, span.end) if at is not None}
    inner = sorted(at for at in edges if at > start and (end is None or at < end))
    return list(pairwise([start, *inner, end]))  # type: ignore[list-item]  # only the last is None
