"""All targets by name."""

from tests.fuzz.target import Target
from tests.fuzz.targets import chunked, dialects, head, journal, sse, usage, wire

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (head, chunked, sse, dialects, usage, journal, wire)
}
