"""All targets by name."""

from tests.fuzz.target import Target
from tests.fuzz.targets import chunked, head, journal, sse, usage, wire

TARGETS: dict[str, Target] = {
    module.TARGET.name: module.TARGET for module in (head, chunked, sse, usage, journal, wire)
}
