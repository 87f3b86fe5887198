"""How a visit of a serving node ended: few words, as they are labels of a metric."""

from enum import StrEnum


class Outcome(StrEnum):
    """What became of it. All but `READ` say why the node's counters were not read."""

    READ = "read"
    UNREACHABLE = "unreachable"  # no name, no connection, or one that ended early
    SILENT = "silent"  # nothing within the deadline
    STATUS = "status"  # an answer that is no 200
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"  # no page of a known engine, or a broken one
    FORBIDDEN = "forbidden"  # an address that nobody is sent to
    COUNTED_ELSEWHERE = "counted_elsewhere"  # another node is the same process
