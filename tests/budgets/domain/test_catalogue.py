"""Prices are read exactly: every published dollar becomes whole nano-dollars."""

from datetime import UTC, date, datetime, time
from decimal import Decimal

import pytest
from genai_prices import types
from genai_prices.data import providers
from hypothesis import given
from hypothesis import strategies as st

from budgets.domain.catalogue import read_catalogue
from budgets.domain.pricelist import PriceKey, Span, exact_nanos
from enforcement.rules.money import TokenUsage, charge_nanos
from enforcement.rules.policy import PricePolicy, PriceTier, Rates
from enforcement.rules.windows import EPOCH


def provider(*models: types.ModelInfo) -> types.Provider:
    return types.Provider(id="p", name="P", api_pattern="", models=list(models))


def model(
    match: types.MatchLogic | None = None,
    prices: types.ModelPrice | list[types.ConditionalPrice] | None = None,
) -> types.ModelInfo:
    return types.ModelInfo(
        id="m",
        match=match or types.ClauseEquals("m"),
        prices=prices or types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8)),
    )


def spans(prices: types.ModelPrice | list[types.ConditionalPrice]) -> list[Span]:
    return read_catalogue([provider(model(prices=prices))])[PriceKey("p", "m", "exact")]


@pytest.mark.parametrize(
    ("dollars", "nanos"),
    [
        ("2.5", 2_500_000_000),
        ("0.000000001", 1),
        ("0.0000000001", 1),
        ("0", 0),
        ("0.0833333333333333", 83_333_334),
        ("0.18000000000000002", 180_000_000),
        ("0.13999999999999999", 140_000_000),
    ],
)
def test_dollars_become_nanos(dollars: str, nanos: int) -> None:
    assert exact_nanos(Decimal(dollars)) == nanos


@given(st.integers(0, 10**15))
def test_whole_nanos_stay_what_they_are(nanos: int) -> None:
    assert exact_nanos(Decimal(nanos) / 10**9) == nanos


def test_kinds_without_a_price_cost_what_their_parent_costs() -> None:
    price = types.ModelPrice(input_mtok=Decimal(2), output_mtok=Decimal(8))
    (span,) = spans(price)
    assert span == Span(
        EPOCH, None, Rates(2_000_000_000, 2_000_000_000, 2_000_000_000, 8_000_000_000), ()
    )


def test_reasoning_has_its_own_rate() -> None:
    price = types.ModelPrice(
        input_mtok=Decimal(1), output_mtok=Decimal(2), output_reasoning_mtok=Decimal(3)
    )
    rates = spans(price)[0].rates
    assert (rates.output, rates.reasoning) == (2_000_000_000, 3_000_000_000)


def test_kinds_with_a_price_of_their_own_keep_it() -> None:
    price = types.ModelPrice(
        input_mtok=Decimal(1),
        cache_write_mtok=Decimal("1.25"),
        cache_write_1h_mtok=Decimal(2),
        input_audio_mtok=Decimal(10),
        output_mtok=Decimal(5),
        output_audio_mtok=Decimal(20),
    )
    assert spans(price)[0].rates.own_kinds == {
        "cache_write_long": 2_000_000_000,
        "input_audio": 10_000_000_000,
        "output_audio": 20_000_000_000,
    }


def test_requests_cost_what_a_thousand_do() -> None:
    price = types.ModelPrice(input_mtok=Decimal(1), requests_kcount=Decimal(5))
    assert spans(price)[0].rates.request == 5_000_000


def test_tiers_replace_every_rate() -> None:
    tiered = types.TieredPrices(
        base=Decimal(1), tiers=[types.Tier(200, Decimal(2)), types.Tier(500, Decimal(4))]
    )
    (span,) = spans(types.ModelPrice(input_mtok=tiered, output_mtok=Decimal(9)))
    assert span.rates.input == 1_000_000_000
    assert [(t.above_input_tokens, t.rates.input, t.rates.output) for t in span.tiers] == [
        (200, 2_000_000_000, 9_000_000_000),
        (500, 4_000_000_000, 9_000_000_000),
    ]


def dated(day: date | None, dollars: int) -> types.ConditionalPrice:
    constraint = types.StartDateConstraint(start_date=day) if day else None
    return types.ConditionalPrice(constraint, prices=types.ModelPrice(input_mtok=Decimal(dollars)))


def test_dated_prices_abut() -> None:
    found = spans([dated(None, 1), dated(date(2026, 3, 1), 2), dated(date(2026, 5, 1), 3)])
    march, may = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)
    assert [(s.start, s.end, s.rates.input) for s in found] == [
        (EPOCH, march, 1_000_000_000),
        (march, may, 2_000_000_000),
        (may, None, 3_000_000_000),
    ]


def test_a_change_to_the_same_price_is_none() -> None:
    assert len(spans([dated(None, 1), dated(date(2026, 3, 1), 1)])) == 1


def test_the_dearest_time_of_day() -> None:
    cheap_night = types.ConditionalPrice(
        types.TimeOfDateConstraint(
            start_time=time(0, 30, tzinfo=UTC), end_time=time(16, tzinfo=UTC)
        ),
        prices=types.ModelPrice(input_mtok=Decimal(1)),
    )
    (span,) = spans([dated(None, 5), cheap_night])
    assert span.rates.input == 5_000_000_000
    (span,) = spans(
        [
            dated(None, 1),
            types.ConditionalPrice(
                cheap_night.constraint, prices=types.ModelPrice(input_mtok=Decimal(7))
            ),
        ]
    )
    assert span.rates.input == 7_000_000_000


def test_a_model_without_token_prices_is_unpriced() -> None:
    only_audio = types.ModelPrice(input_audio_hours=Decimal(1))
    assert read_catalogue([provider(model(prices=only_audio))]) == {}


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (types.ClauseEquals("a"), {("a", "exact")}),
        (types.ClauseStartsWith("a-"), {("a-", "prefix")}),
        (
            types.ClauseOr([types.ClauseEquals("a"), types.ClauseStartsWith("b")]),
            {("a", "exact"), ("b", "prefix")},
        ),
        (types.ClauseContains("a"), set()),
        (types.ClauseEndsWith("a"), set()),
        (types.ClauseAnd([types.ClauseStartsWith("a"), types.ClauseContains("b")]), set()),
        (types.ClauseRegex(r"^a-\d{8}$"), {("a-20", "prefix")}),
        (types.ClauseRegex(r"^x/a\.5-\d{4}-\d{2}-\d{2}$"), {("x/a.5-20", "prefix")}),
        (types.ClauseRegex(r"^a(?!b)"), set()),
        (types.ClauseRegex(r"a-\d{8}$"), set()),
    ],
)
def test_names_come_from_rules_that_cannot_match_too_much(
    match: types.MatchLogic, names: set[tuple[str, str]]
) -> None:
    found = {(key.model, key.match) for key in read_catalogue([provider(model(match))])}
    assert found == names | {("m", "exact")}


def test_the_first_of_two_prices_wins() -> None:
    second = model(prices=types.ModelPrice(input_mtok=Decimal(9)))
    found = read_catalogue([provider(model(), second)])
    assert found[PriceKey("p", "m", "exact")][0].rates.input == 2_000_000_000


def test_the_snapshot_charges_what_its_own_package_charges() -> None:
    """Every plain model of the installed snapshot, today, for one usage: ours is theirs, rounded up."""
    usage = TokenUsage(input_tokens=120_001, cached_input_tokens=7_003, output_tokens=1_777)
    theirs = types.Usage(input_tokens=120_001, cache_read_tokens=7_003, output_tokens=1_777)
    now = datetime(2026, 9, 1, 12, tzinfo=UTC)
    catalogue = read_catalogue()
    compared = 0
    for source in providers:
        for info in source.models:
            held = [
                s
                for s in catalogue.get(PriceKey(source.id, info.id, "exact"), [])
                if s.start <= now and (s.end is None or now < s.end)
            ]
            price = info.get_prices(now)
            kinds = {kind for kind, value in vars(price).items() if value is not None}
            plain = {"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"}
            if (
                not held
                or not {"input_mtok", "output_mtok"} <= kinds
                or kinds - plain
                or source.id == "deepseek"
            ):
                continue
            policy = PricePolicy("", info.id, held[0].rates, tiers=list[PriceTier](held[0].tiers))
            want = price.calc_price(theirs)["total_price"] * 10**9
            difference = charge_nanos(usage, policy) - want
            assert Decimal("-1e-6") < difference < 2, (source.id, info.id, want)
            compared += 1
    assert compared > 1_500
