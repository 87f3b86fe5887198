"""The documentation's table of engines says what the collectors find."""

from enforcement.collectors.registry import BY_ENGINE
from tests.collectors.nodes import SOURCES, WITHOUT_COUNTERS, documented, whole_table


def test_the_table_in_the_documentation_is_what_the_collectors_find() -> None:
    assert documented() == whole_table()


def test_every_collector_has_a_row() -> None:
    assert {source.engine for source in SOURCES} | set(WITHOUT_COUNTERS) == set(BY_ENGINE)
