"""Price files are read exactly, or refused as a whole with a sentence that says where."""

import json
from datetime import UTC, datetime

import pytest

from budgets.domain.pricecsv import COLUMNS, rows_of
from budgets.domain.pricefiles import MOST_BYTES, PriceFormat, format_of, read_prices
from budgets.domain.pricelist import PriceKey, Span
from budgets.errors import PriceError
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH

USD = 1_000_000_000
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
RATES = Rates(2 * USD, USD // 2, 3 * USD, 8 * USD)


def csv_of(*lines: str) -> bytes:
    return "\n".join(lines).encode()


def read(content: bytes, form: PriceFormat = PriceFormat.CSV) -> dict[PriceKey, list[Span]]:
    return read_prices(content, form).prices


def refused(content: bytes, form: PriceFormat = PriceFormat.CSV) -> str:
    with pytest.raises(PriceError) as caught:
        read_prices(content, form)
    assert caught.value.field == "content"
    return caught.value.message


# ------------------------------------------------------------------------------ CSV


def test_a_row_is_a_price() -> None:
    found = read(csv_of("Model,Input,Output,Cached input", "gemma, 2 ,8,0.5"))
    rates = Rates(2 * USD, USD // 2, 2 * USD, 8 * USD)
    assert found == {PriceKey("", "gemma", "exact"): [Span(EPOCH, None, rates)]}


def test_rows_of_one_model_are_its_tiers_lengths_and_times() -> None:
    head = "provider,model,match,input,output,service_tier,above_input_tokens,valid_from"
    base, dear = Rates(USD, USD, USD, 2 * USD), Rates(3 * USD, 3 * USD, 3 * USD, 4 * USD)
    found = read(
        csv_of(
            head,
            "p,m,prefix,1,2,,,",
            "p,m,prefix,3,4,batch,,",
            "p,m,prefix,3,4,,200000,",
            "p,m,prefix,1,2,batch,200000,",
            "p,m,prefix,3,4,,,2026-06-01",
        )
    )
    tiers = (PriceTier(200_000, dear, {"batch": base}),)
    assert found == {
        PriceKey("p", "m", "prefix"): [
            Span(EPOCH, JUNE, base, tiers, {"batch": dear}),
            Span(JUNE, None, dear),
        ]
    }


def test_what_is_written_reads_the_same() -> None:
    key = PriceKey("openai", "gpt, 5", "prefix")
    special = Rates(USD, 1, 2, 3, 4, cache_write_long=5, reasoning=0)
    spans = [
        Span(EPOCH, JUNE, RATES, (PriceTier(9, special, {"flex": RATES}),), {"batch": special}),
        Span(JUNE, None, special),
    ]
    rows = [COLUMNS, *(row for span in spans for row in rows_of(key, span))]
    quoted = [",".join(f'"{cell}"' for cell in row) for row in rows]
    assert read(csv_of(*quoted)) == {key: spans}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["model,input,output"], "no price of tokens"),
        (["model,price", "m,1"], "columns are provider, model"),
        (["input,output", "1,2"], "columns are provider, model"),
        (["model,input,input,output", "m,1,1,2"], "columns are provider, model"),
        (["model,input,output", "m,1"], "line 2 has another number of cells"),
        (["model,input,output", "m,1,2,3"], "line 2 has another number of cells"),
        (["model,input,output", "m,,2"], "a rate of input is missing"),
        (["model,input,output", "m,1,"], "a rate of output is missing"),
        (["model,input,output", "m,1,cheap"], "line 2: "),
        (["model,input,output", "m,NaN,1"], "line 2: not a price: NaN"),
        (["model,input,output", "m,1e400,1"], "line 2: not a price"),
        (["model,input,output", "m,1e999999999999,1"], "line 2: "),
        (["model,input,output", "m,1,2", "m,1,2"], "line 3 says again"),
        (["model,match,input,output", "m,regex,1,2"], "match is one of exact, prefix"),
        (["model,input,output,service_tier", "m,1,2,flex"], "no row without service tier"),
        (["model,input,output,above_input_tokens", "m,1,2,", "m,1,2,x"], "invalid literal"),
        (["model,input,output,valid_from", "m,1,2,soon"], "Invalid isoformat"),
        (["model,input,output,valid_from", "m,1,2,0001-01-01T00:00+09:00"], "OverflowError"),
        (
            ["model,input,output,valid_from,valid_to", "m,1,2,2026-06-01,2026-05-01"],
            "two prices at once",
        ),
        (
            ["model,input,output,valid_from,valid_to", "m,1,2,,2026-07-01", "m,1,3,2026-06-01,"],
            "two prices at once",
        ),
        (["model,input,output", 'm,"1,2'], "unexpected end of data"),
    ],
)
def test_a_sheet_that_cannot_be_meant(lines: list[str], message: str) -> None:
    assert message in refused(csv_of(*lines))


# ------------------------------------------------------------------------------ JSON


ENTRY = {
    "litellm_provider": "openai",
    "mode": "chat",
    "input_cost_per_token": 2.5e-06,
    "output_cost_per_token": 1e-05,
}


def mapped(**entry: object) -> dict[PriceKey, list[Span]]:
    document = {"openai/gpt": ENTRY | entry}
    return read(json.dumps(document).encode(), PriceFormat.LITELLM)


def test_a_map_entry_is_a_price_of_its_provider() -> None:
    rates = Rates(2_500_000_000, 2_500_000_000, 2_500_000_000, 10 * USD)
    assert mapped() == {PriceKey("openai", "gpt", "exact"): [Span(EPOCH, None, rates)]}


def test_a_map_entry_has_kinds_lengths_and_service_tiers() -> None:
    (span,) = mapped(
        cache_read_input_token_cost=2.5e-07,
        cache_creation_input_token_cost=3e-06,
        cache_creation_input_token_cost_above_1hr=6e-06,
        output_cost_per_reasoning_token=1.1e-05,
        input_cost_per_token_batches=1e-06,
        output_cost_per_token_batches=2e-06,
        input_cost_per_token_above_200k_tokens=5e-06,
        input_cost_per_token_above_200k_tokens_priority=7e-06,
        search_context_cost_per_query={"low": 0.03},
    )[PriceKey("openai", "gpt", "exact")]
    assert span.rates == Rates(
        2_500_000_000,
        250_000_000,
        3 * USD,
        10 * USD,
        cache_write_long=6 * USD,
        reasoning=11 * USD,
    )
    assert span.variants == {"batch": Rates(USD, USD, USD, 2 * USD)}
    assert [
        (t.above_input_tokens, t.rates.input, t.variants["priority"].input) for t in span.tiers
    ] == [(200_000, 5 * USD, 7 * USD)]


def test_map_entries_without_a_price_of_tokens_are_named() -> None:
    document = {
        "free": ENTRY | {"input_cost_per_token": 0, "output_cost_per_token": 0},
        "half": ENTRY | {"input_cost_per_token": 0},
        "silent": {"litellm_provider": "x", "mode": "chat"},
        "pictures": {"mode": "image_generation", "output_cost_per_image": 0.04},
        "gpt": ENTRY,
    }
    found = read_prices(json.dumps(document).encode(), PriceFormat.LITELLM)
    assert [key.name for key in found.prices] == ["openai:gpt"]
    assert found.left_out == ["free", "half", "silent"]


def test_what_the_map_does_not_know_costs_what_its_whole_costs() -> None:
    """An embedding's answer, a cache that nobody has priced: 0 there, and free by no accident here."""
    found = mapped(output_cost_per_token=0, cache_read_input_token_cost=0.0)
    rates = Rates(2_500_000_000, 2_500_000_000, 2_500_000_000, 2_500_000_000)
    assert found[PriceKey("openai", "gpt", "exact")] == [Span(EPOCH, None, rates)]


GENAI = [
    {
        "id": "p",
        "name": "P",
        "api_pattern": "x",
        "models": [
            {"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": 2, "output_mtok": 8.1}}
        ],
    }
]


def test_the_published_form_of_genai_prices() -> None:
    found = read(json.dumps(GENAI).encode(), PriceFormat.GENAI_PRICES)
    rates = Rates(2 * USD, 2 * USD, 2 * USD, 8_100_000_000)
    assert found == {PriceKey("p", "m", "exact"): [Span(EPOCH, None, rates)]}


@pytest.mark.parametrize("form", [PriceFormat.LITELLM, PriceFormat.GENAI_PRICES])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSONDecodeError"),
        (b"\xff\xfe", "the text is in UTF-16: save it as UTF-8"),
        (b"\xff", "not UTF-8 from byte 0 on"),
        (b"<html>", "perhaps a sign-in page was saved instead"),
        (b"[1]", ""),
        (b"[[]]", ""),
        (b'{"a": 1}', ""),
        (b'{"a": {"mode": "chat"}, "a": {"mode": "chat"}}', "'a' stands there twice"),
        (b'{"a": NaN}', "NaN is no price"),
        (b"[" * 100_000, "RecursionError"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "4300 digits"),
        (b"{}", ""),
        (b"[]", ""),
        (b"null", ""),
    ],
)
def test_a_document_that_is_something_else(form: PriceFormat, content: bytes, message: str) -> None:
    assert message in refused(content, form)


@pytest.mark.parametrize("value", ["1", "-0.001", "true", '"0.1"', "[]", "1e999999", "12", "1e2"])
def test_a_map_entry_whose_price_is_none(value: str) -> None:
    entry = json.dumps(ENTRY).replace("2.5e-06", value)
    assert "gpt: input_cost_per_token is " in refused(
        f'{{"gpt": {entry}}}'.encode(), PriceFormat.LITELLM
    )


def test_a_file_has_a_most_size() -> None:
    assert "up to 33554432 bytes" in refused(b" " * (MOST_BYTES + 1))


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.CSV", b"[", PriceFormat.CSV),
        ("-", b"\xef\xbb\xbf\n[", PriceFormat.GENAI_PRICES),
        ("prices.json", b' {"', PriceFormat.LITELLM),
        ("-", b"model,input", PriceFormat.CSV),
    ],
)
def test_a_form_is_known_by_name_or_beginning(name: str, content: bytes, form: PriceFormat) -> None:
    assert format_of(name, content) is form
