"""Each engine's page as it is, in older spellings, and broken."""

from decimal import Decimal
from pathlib import Path

import pytest

from enforcement.collectors.base import CollectorError, Reading
from enforcement.collectors.llamacpp import LlamaCpp
from enforcement.collectors.registry import read_page
from enforcement.collectors.vllm import Vllm

FIXTURES = Path(__file__).parent / "fixtures"


def read(name: str, headers: dict[str, str] | None = None) -> tuple[str, Reading]:
    collector, reading = read_page((FIXTURES / name).read_text(), headers)
    return collector.engine, reading


def test_llamacpp_tells_cached_prompt_tokens_apart() -> None:
    engine, reading = read("llamacpp.prom", {"process-start-time-unix": "12099056185"})
    assert engine == "llama.cpp"
    assert reading == Reading(
        prompt_tokens=56 + 23,
        cached_tokens=23,
        generation_tokens=24 + 16 + 8,
        life="12099056185",
        extra={"decodes": 52, "draft_tokens": 0, "accepted_draft_tokens": 0},
    )


def test_an_older_llamacpp_has_no_cached_tokens() -> None:
    text = "llamacpp:prompt_tokens_total 9\nllamacpp:tokens_predicted_total 1.23457e+06\n"
    _, reading = read_page(text)
    assert reading == Reading(
        prompt_tokens=9, cached_tokens=0, generation_tokens=1_234_570, resolution=10
    )


def test_vllm_sums_its_engines_and_counts_cached_in_prompts() -> None:
    engine, reading = read("vllm.prom")
    assert engine == "vllm"
    assert reading == Reading(
        prompt_tokens=1_234_567 + 33,
        cached_tokens=400,
        generation_tokens=977,
        requests_running=4,
        requests_waiting=2,
        life="1.79545525511e+09",
        started_at=Decimal("1795455255.11"),
        extra={"preemptions": 5},
    )


def test_an_older_vllm_tells_hits_of_its_prefix_cache() -> None:
    assert read("vllm_older.prom") == (
        "vllm",
        Reading(prompt_tokens=40, cached_tokens=12, generation_tokens=8),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("llamacpp:n_decode_total 4\n", "llama.cpp's page has no token counters"),
        ("vllm:prompt_tokens_total 4\n", "vLLM's page has no token counters"),
        ("litellm:spend 4\nup 1\n", "metrics of no known engine: litellm"),
        ("up 1\n", "metrics of no known engine: no names"),
        ("", "the page is cut short"),
        ("llamacpp:prompt_tokens_total NaN\n", "llamacpp:prompt_tokens is 'NaN'"),
        ("<html>\n", "answered a document, not metrics"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(CollectorError, match=words):
        read_page(text)


def test_versions_are_taken_where_they_are_text() -> None:
    assert LlamaCpp().version(b'{"build_info":"b11434-6d2a3a1"}') == "b11434-6d2a3a1"
    assert Vllm().version(b'{"version":"0.32.0"}') == "0.32.0"
    for broken in (b"", b"[]", b"<html>", b'{"version":3,"build_info":{}}'):
        assert LlamaCpp().version(broken) == ""
        assert Vllm().version(broken) == ""
