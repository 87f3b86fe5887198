"""All hostile cases, by what they attack. Each has a name of its own and a reason."""

from tests.hostile.case import Case
from tests.hostile.cases import bodies, chunks, dialects, fields, heads, lengths, targets

GROUPS: dict[str, tuple[Case, ...]] = {
    "lengths": lengths.CASES,
    "chunks": chunks.CASES,
    "heads": heads.CASES,
    "targets": targets.CASES,
    "fields": fields.CASES,
    "bodies": bodies.CASES,
    "dialects": dialects.CASES,
}
ALL = tuple(case for cases in GROUPS.values() for case in cases)
