"""UUIDv7: version, order, and refusal of what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.rules.ids import uuid7, uuid7_text


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_a_uuid7_carries_its_time_version_and_variant(now_ms: int, random_bytes: bytes) -> None:
    made = uuid7(now_ms=now_ms, random_bytes=random_bytes)
    assert (made.int >> 80, made.version, made.variant) == (now_ms, 7, "specified in RFC 4122")
    assert uuid7_text(now_ms=now_ms, random_bytes=random_bytes) == str(made)


def test_later_ids_sort_later() -> None:
    assert uuid7(now_ms=1, random_bytes=b"\xff" * 10) < uuid7(now_ms=2, random_bytes=b"\0" * 10)


@pytest.mark.parametrize(
    ("now_ms", "random_bytes"), [(-1, b"\0" * 10), (2**48, b"\0" * 10), (0, b"")]
)
def test_what_does_not_fit_is_refused(now_ms: int, random_bytes: bytes) -> None:
    with pytest.raises(ValueError, match="uuid7 needs"):
        uuid7(now_ms=now_ms, random_bytes=random_bytes)
