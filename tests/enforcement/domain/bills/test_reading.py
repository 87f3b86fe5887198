"""Every form of a bill that is read, and what is refused with its place."""

import json
from datetime import timedelta
from typing import Any

import pytest

from enforcement.domain.bills import reading
from enforcement.domain.bills.lines import Line, Period
from enforcement.domain.bills.reading import read_bill
from enforcement.errors import BillError
from tests.enforcement.domain.bills.pages import (
    DAY,
    DAY_S,
    anthropic_page,
    completions,
    costs,
    messages,
    openai_page,
)

TEN = Period(DAY + timedelta(hours=10), DAY + timedelta(hours=11))
WHOLE_DAY = Period(DAY, DAY + timedelta(days=1))


def usage(provider: str, model: str, period: Period, *amounts: int | None) -> Line:
    prompt, cached, generation, calls = amounts
    return Line(
        provider,
        period,
        model,
        prompt_tokens=prompt,
        cached_tokens=cached,
        generation_tokens=generation,
        calls=calls,
    )


def cost(provider: str, model: str, item: str, nanos: int, period: Period = WHOLE_DAY) -> Line:
    return Line(provider, period, model, item, cost_nanos=nanos)


def test_usage_of_openai_is_summed_by_model() -> None:
    page = openai_page(
        [
            completions("gpt-4o-2024-08-06", 1_000, 500, input_cached_tokens=800),
            completions("gpt-4o-2024-08-06", 10, 5, project_id="proj_b"),
            completions("gpt-4o-mini", 7, 1),
            {"object": "organization.usage.images.result", "images": 3, "num_model_requests": 3},
        ]
    )
    assert read_bill(page) == [
        usage("openai", "gpt-4o-2024-08-06", TEN, 1_010, 800, 505, 2),
        usage("openai", "gpt-4o-mini", TEN, 7, 0, 1, 1),
    ]


@pytest.mark.parametrize(
    ("more", "prompt", "generation"),
    [
        ({"input_audio_tokens": 30, "output_audio_tokens": 4}, 130, 24),
        ({"input_audio_tokens": 30, "output_audio_tokens": 4, "input_text_tokens": 70}, 100, 20),
    ],
    ids=["beside text", "part of the total"],
)
def test_audio_of_openai_is_counted_once(
    more: dict[str, int], prompt: int, generation: int
) -> None:
    (line,) = read_bill(openai_page([completions("gpt-4o-audio", 100, 20, **more)]))
    assert (line.prompt_tokens, line.generation_tokens) == (prompt, generation)


def test_costs_of_openai_are_of_models_or_of_something_else() -> None:
    page = openai_page(
        [
            costs(0.06, "gpt-4o-2024-08-06, input"),
            costs("0.13080438340307526", "gpt-4o-2024-08-06, output"),
            costs(1, "Code interpreter sessions"),
        ],
        hour=0,
        hours=24,
    )
    assert read_bill(page) == [
        cost("openai", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06, input", 60_000_000),
        cost("openai", "gpt-4o-2024-08-06", "gpt-4o-2024-08-06, output", 130_804_383),
        cost("openai", "", "Code interpreter sessions", 1_000_000_000),
    ]


def test_usage_of_anthropic_has_what_the_cache_kept_and_gave_in_the_prompt() -> None:
    assert read_bill(anthropic_page([messages("claude-opus-4-1-20250805")])) == [
        usage("anthropic", "claude-opus-4-1-20250805", TEN, 3_200, 200, 500, None)
    ]


def test_costs_of_anthropic_are_in_cents() -> None:
    result = {
        "currency": "USD",
        "amount": "123.78912",
        "description": "Claude Sonnet 4 Usage - Input Tokens",
        "cost_type": "tokens",
        "model": "claude-sonnet-4-20250514",
        "token_type": "uncached_input_tokens",
    }
    assert read_bill(anthropic_page([result])) == [
        cost(
            "anthropic",
            "claude-sonnet-4-20250514",
            "Claude Sonnet 4 Usage - Input Tokens",
            1_237_891_200,
            TEN,
        )
    ]


def test_several_pages_and_another_name_of_the_provider() -> None:
    pages = [json.loads(openai_page([completions("m", 1, 1)], hour=hour)) for hour in (10, 11)]
    found = read_bill(json.dumps(pages).encode(), provider="azure")
    assert [(line.provider, line.period.starts_at.hour) for line in found] == [
        ("azure", 10),
        ("azure", 11),
    ]


def test_tables_of_openais_console() -> None:
    head = "start_time,end_time,start_time_iso,end_time_iso"
    spent = (
        f"{head},amount_value,amount_currency,line_item,project_id\n"
        f'{DAY_S},{DAY_S + 86_400},x,x,0.5617712500000000,usd,"gpt-4o, input",\n'
        f"{DAY_S + 86_400},{DAY_S + 172_800},x,x,,,,\n"
    )
    assert read_bill(spent.encode()) == [cost("openai", "gpt-4o", "gpt-4o, input", 561_771_250)]
    used = (
        f"\ufeff{head},project_id,num_model_requests,model,input_tokens,output_tokens,"
        f"input_cached_tokens\n{DAY_S},{DAY_S + 86_400},x,x,,3,gpt-4o,100,20,50\n"
    )
    assert read_bill(used.encode()) == [usage("openai", "gpt-4o", WHOLE_DAY, 100, 50, 20, 3)]


def test_the_table_of_anthropics_console() -> None:
    table = (
        "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,"
        "usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
        "2026-05-13,claude-sonnet-4-20250514,k,Default,standard,≤ 200k,100,20,3,4000,50\n"
    )
    assert read_bill(table.encode()) == [
        usage("anthropic", "claude-sonnet-4-20250514", WHOLE_DAY, 4_123, 4_000, 50, None)
    ]


def test_a_table_of_ones_own_tells_tokens_money_or_both() -> None:
    table = (
        "provider;model;starts_at;ends_at;prompt_tokens;cached_tokens;generation_tokens;cost_usd\n"
        "vertex;gemini;2026-05-13;2026-05-14;100;;20;1.25\n"
    )
    assert read_bill(table.encode()) == [
        usage("vertex", "gemini", WHOLE_DAY, 100, 0, 20, None),
        cost("vertex", "gemini", "", 1_250_000_000),
    ]


OWN = "provider,model,starts_at,ends_at,prompt_tokens,cost_usd\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<html>sign in</html>", "perhaps a sign-in page was saved instead"),
        (b"a,b\n1,2\n", "not a table of OpenAI's or Anthropic's console"),
        (b"\xff\xfe{", "in UTF-8: the text is in UTF-16"),
        (b'{"data": 3}', "no list named data"),
        (b"[" * 100_000, "not JSON"),
        (openai_page([completions("gpt\0", 1, 1)]), "no text that can be kept"),
        (openai_page([completions("gpt\ud800", 1, 1)]), "no text that can be kept"),
        (b'{"data": [{"x": 1}]}', "page 0, bucket 0: neither a bucket of OpenAI nor of Anthropic"),
        (b'{"data": [7]}', "page 0, bucket 0: not as the provider writes it"),
        (b'{"data": [{"start_time": 1, "results": null}]}', "not as the provider writes it"),
        (openai_page([completions("m", -1, 1)]), "input_tokens is no count of tokens: '-1'"),
        (openai_page([completions("m", 10**16, 1)]), "input_tokens is no count"),
        (openai_page([costs("1e999999999")]), "amount is no amount"),
        (openai_page([costs("NaN")]), "amount is no amount"),
        (openai_page([costs(10**30)]), "amount is out of range"),
        (openai_page([costs(1, currency="eur")]), "only bills in USD can be read, not in 'eur'"),
        (b'{"data": [{"start_time": NaN}]}', "NaN is no amount"),
        (openai_page([costs(1)], hours=0), "makes no sense"),
        (openai_page([costs(1)], hours=9_000), "makes no sense"),
        ((OWN + "a,m,2026-05-13T10:30Z,2026-05-14,1,\n").encode(), "line 2: a time of"),
        ((OWN + "a,m,tomorrow,2026-05-14,1,\n").encode(), "line 2: no instant: 'tomorrow'"),
        ((OWN + "a,m,2026-05-13,2026-05-14,,\n").encode(), "line 2: a row names a provider"),
        ((OWN + ",m,2026-05-13,2026-05-14,1,\n").encode(), "line 2: a row names a provider"),
        ((OWN + "a,m,2026-05-13\n").encode(), "line 2: more or fewer cells than columns"),
        ((OWN + "a,m,2026-05-13,2026-05-14,1.5,\n").encode(), "line 2: prompt_tokens is no count"),
        ((OWN + "a,m,2026-05-13,2026-05-14,1,$1\n").encode(), "line 2: cost_usd is no amount"),
    ],
)
def test_what_is_no_bill_is_refused_with_its_place(content: bytes, words: str) -> None:
    with pytest.raises(BillError) as caught:
        read_bill(content)
    assert words in str(caught.value)


def test_a_bill_is_read_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    many: list[dict[str, Any]] = [completions(f"m{number}", 1, 1) for number in range(4)]
    monkeypatch.setattr(reading, "MOST_LINES", 3)
    with pytest.raises(BillError, match="more than 3 lines"):
        read_bill(openai_page(many))
    monkeypatch.setattr(reading, "MOST_BYTES", 100)
    with pytest.raises(BillError, match="more than 0 MiB"):
        read_bill(openai_page(many))
