"""What all sources come down to: ids, counts that can be true, wholes and parts."""

from uuid import UUID

import pytest

from enforcement.rules.reports.call import (
    MAX_TOKENS,
    ReportedCall,
    ReportError,
    Source,
    address_of,
    count_of,
    duration_ms,
    event_id,
    milliseconds_of,
    provider_of,
    text_of,
    token_usage,
    usage_event,
)

ACME, OTHER = UUID(int=1), UUID(int=2)


def test_an_event_is_named_by_organization_source_and_name_of_the_call() -> None:
    ids = {
        event_id(organization, source, key)
        for organization in (ACME, OTHER)
        for source in Source
        for key in ("1", "2")
    }
    assert len(ids) == 12
    assert event_id(ACME, Source.OTLP, "1") == UUID("232a18a0-bde3-5cf2-999d-7abe1261cd74")


@pytest.mark.parametrize(
    ("said", "count"), [(0, 0), (7, 7), (7.0, 7), ("12", 12), (MAX_TOKENS, MAX_TOKENS)]
)
def test_whole_numbers_are_counts(said: object, count: int) -> None:
    assert count_of(said, "n") == count


@pytest.mark.parametrize(
    "said", [-1, 1.5, float("nan"), float("inf"), True, None, "", "-1", "٣", "1e3", [], 10**30]
)
def test_all_else_is_an_error_in_words(said: object) -> None:
    with pytest.raises(ReportError, match=r"n is (no whole number|negative or more than)"):
        count_of(said, "n")


def test_parts_are_in_their_whole_or_added_to_it() -> None:
    inside = token_usage(input_tokens=100, output_tokens=50, cached=60, written=40, reasoning=50)
    assert (inside.input_tokens, inside.output_tokens) == (100, 50)
    apart = token_usage(input_tokens=10, output_tokens=5, cached=60, written=40, reasoning=6)
    assert (apart.input_tokens, apart.output_tokens) == (110, 11)
    assert (apart.cached_input_tokens, apart.cache_write_tokens, apart.reasoning_tokens) == (
        60,
        40,
        6,
    )


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (" a\x00b ", "ab"),
        (7, "7"),
        ("x" * 999, "x" * 256),
        (True, ""),
        (None, ""),
        (1.5, ""),
        ({}, ""),
        (2**63, ""),
    ],
)
def test_names_are_short_texts(said: object, text: str) -> None:
    assert text_of(said) == text


def test_times_of_broken_clocks_are_none() -> None:
    assert milliseconds_of(1.5) == 1_500
    assert [milliseconds_of(bad) for bad in (-1, 2.0**41, float("nan"), "1", None, True)] == [0] * 6
    assert duration_ms(1_000_000, 9_999_999) == 8
    assert duration_ms(2_000_000, 1_000_000) == 0
    assert duration_ms(0, 10**18) == 0


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8400/v1/chat/completions", "127.0.0.1:8400"),
        ("https://API.example/v1", "api.example:443"),
        ("http://[::1]:8400", "::1:8400"),
        ("sidecar:8400", "sidecar:8400"),
        ("http://host:999999", ""),
        ("http://[", ""),
        ("", ""),
    ],
)
def test_an_address_is_host_and_port(url: str, address: str) -> None:
    assert address_of(url) == address


def test_providers_are_called_as_the_price_catalogue_calls_them() -> None:
    names = ("OpenAI", "gcp.vertex_ai", "az.ai.openai", "aws.bedrock", "hosted_vllm")
    assert [provider_of(name) for name in names] == [
        "openai",
        "google",
        "azure",
        "aws",
        "hosted_vllm",
    ]


def test_only_ids_that_can_be_one_calls_alone_tell_of_it() -> None:
    usage = token_usage(input_tokens=1, output_tokens=1)
    calls = [
        ReportedCall(Source.WEBHOOK, "k", "m", 0, usage, response_id=answer)
        for answer in ("", "chatcmpl-123", "chatcmpl-0123456789")
    ]
    assert [call.telling_id for call in calls] == ["", "", "chatcmpl-0123456789"]


def test_an_event_says_what_the_call_says_and_what_it_costs() -> None:
    usage = token_usage(input_tokens=9, output_tokens=4, cached=3, tier="flex")
    call = ReportedCall(Source.OTLP, "k", "m", 5_000, usage, user="u", tags={"a": "b"})
    event = usage_event(call, organization=ACME, agent=OTHER, charge_nanos=70, price_version="p")
    assert UUID(event.id) == event_id(ACME, Source.OTLP, "k")
    assert (event.agent, event.model, event.started_at_ms) == (str(OTHER), "m", 5_000)
    assert (event.input_tokens, event.cached_input_tokens, event.output_tokens) == (9, 3, 4)
    assert (event.charge_nanos, event.price_version, event.service_tier) == (70, "p", "flex")
    assert (event.user, event.tags, event.parts) == ("u", {"a": "b"}, [])
