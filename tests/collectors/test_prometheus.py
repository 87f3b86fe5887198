"""The text format, as far as counters and gauges need it."""

from decimal import Decimal

import pytest

from enforcement.collectors.prometheus import PageError, normalised, parse_page


def test_only_named_series_are_kept() -> None:
    page = parse_page("# TYPE a counter\na_total 3\nb 4\n\nvllm:c 5\n", names={"a"})
    assert page.total("a") == 3
    assert page.total("b") is None
    assert not page.has("vllm:c")
    assert page.prefixes == {"", "vllm"}


def test_labels_are_read_with_their_escapes_and_a_last_comma() -> None:
    page = parse_page('a{x="1,}\\"2\\n",y="\\\\",} 7 1700000000\na{} 1\n', names={"a"})
    (one, other) = page.series["a"]
    assert one.labels == {"x": '1,}"2\n', "y": "\\"}
    assert one.value == Decimal(7)
    assert other.labels == {}
    assert page.total("a") == 8


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_only_a_line_feed_ends_a_line(odd: str) -> None:
    page = parse_page(f'a{{model="x{odd}b 99 "}} 5\r\nb 1\n', names={"a", "b"})
    assert (page.total("a"), page.total("b")) == (5, 1)


def test_a_counter_in_two_spellings_is_one() -> None:
    page = parse_page('a_total{e="0"} 5\na_total{e="1"} 6\na{e="0"} 5\na{e="1"} 6\n', names={"a"})
    assert page.total("a") == 11


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("vllm:generation_tokens_total", "vllm:generation_tokens"),
        ("vllm_generation_tokens", "vllm:generation_tokens"),
        ("llamacpp_prompt_tokens_total", "llamacpp:prompt_tokens"),
        ("process_start_time_seconds", "process_start_time_seconds"),
    ],
)
def test_spellings_of_a_name_are_one(name: str, same: str) -> None:
    assert normalised(name) == same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!doctype html>\n", "a document"),
        ('  {"error": 1}\n', "a document"),
        ("a 12", "cut short"),
        ("a\n", "a has no value"),
        ("a 1 2 3\n", "a has no value"),
        ('a{x="1} 2\n', "broken labels"),
        ("!? 1\n", "not metrics"),
        ('a{x="1"} 2\na{x="1"} 3\n', "a stands twice"),
    ],
)
def test_a_broken_page_is_refused(text: str, words: str) -> None:
    with pytest.raises(PageError, match=words):
        parse_page(text, names={"a"})


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e30", "many"])
def test_a_total_that_counts_nothing_is_refused(value: str) -> None:
    page = parse_page(f"a {value}\n", names={"a"})
    with pytest.raises(PageError, match="a is"):
        page.total("a")


@pytest.mark.parametrize(
    ("value", "step"),
    [
        ("999999", 1),
        ("1.23457e+06", 10),
        ("1.2e+07", 1_000_000),
        ("66.0", 1),
        ("0", 1),
        ("1e3", 1000),
    ],
)
def test_the_step_of_a_rounded_total_is_seen(value: str, step: int) -> None:
    assert parse_page(f"a {value}\n", names={"a"}).resolution("a", "b") == step
