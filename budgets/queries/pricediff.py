"""What an import of prices changes, as rows that people read before they say yes."""

from collections.abc import Iterator
from typing import Any

from budgets.domain.priceimport import Changed, ImportDiff
from enforcement.rules.money import usd_text


def counts(diff: ImportDiff) -> dict[str, Any]:
    """Figures of an import."""
    return {
        "price_list": f"{diff.source} {diff.source_version}",
        "added": len(diff.added),
        "changed": len(diff.changed),
        "unchanged": diff.unchanged,
        "only_here": diff.kept,
        "held_back": len(diff.held),
        "left_out": len(diff.left_out),
    }


def lines(diff: ImportDiff) -> list[dict[str, Any]]:
    """A row for each rate that differs; dollars for a million tokens. Doubtful models first."""
    doubtful = [one for one in (*diff.held, *diff.doubtful) if one.jumps]
    rest = [one for one in (*diff.changed, *diff.added) if not one.jumps]
    return [row for one in (*doubtful, *rest) for row in _rows(one)]


def _rows(one: Changed) -> Iterator[dict[str, Any]]:
    for kind in one.kinds:
        yield {
            "model": one.key.name,
            "what": "changed" if one.old else "new",
            "rate": kind,
            "before": _dollars(one.old.get(kind)),
            "after": _dollars(one.new.get(kind)),
            "starts_at": one.starts_at.isoformat(),
            "jump": any(said.startswith(f"{kind} ") for said in one.jumps),
        }


def _dollars(nanos: int | None) -> str | None:
    return None if nanos is None else usd_text(nanos)
