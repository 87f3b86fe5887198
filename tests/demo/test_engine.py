"""The engine's page of counters, as llama.cpp prints it."""

from controlplane.demo.engine import Counters, parse_metrics

PAGE = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 26
llamacpp:prompt_tokens_cached_total 14
llamacpp:tokens_predicted_total 20
llamacpp:predicted_tokens_seconds 94.0897
llamacpp:requests_processing 0
"""


def test_counters_are_read_and_comments_are_not() -> None:
    assert parse_metrics(PAGE) == {
        "prompt_tokens_total": 26,
        "prompt_tokens_cached_total": 14,
        "tokens_predicted_total": 20,
        "predicted_tokens_seconds": 94,
        "requests_processing": 0,
    }


def test_what_was_made_since_is_the_difference() -> None:
    assert Counters(140, 48).since(Counters(100, 20)) == Counters(40, 28)
