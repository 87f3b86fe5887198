"""All targets by name."""

from tests.fuzz.target import Target
from tests.fuzz.targets import body, chunked, dialects, head, journal, sse, usage, wire

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET
    for module in (head, chunked, body, sse, dialects, usage, journal, wire)
}
