"""Lists of prices hold from now on, re-price nothing of the past, and no slip gets in unasked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from budgets.domain.priceimport import Changed, ImportDiff, import_catalogue, import_prices
from budgets.domain.pricelist import Catalogue, PriceKey, PriceList, Span
from budgets.errors import PriceError
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Organization
from enforcement.rules.policy import PriceTier, Rates
from enforcement.rules.windows import EPOCH
from tests.budgets.world import ACTOR, NOW, World

pytestmark = pytest.mark.django_db

CHEAP = Rates(input=1_000, cached_input=100, cache_write=1_250, output=5_000)
DEAR = Rates(input=2_000, cached_input=200, cache_write=2_500, output=9_000)
MODEL = PriceKey("openai", "gpt", "exact")
FAMILY = PriceKey("openai", "gpt-", "prefix")
JUNE = datetime(2026, 6, 1, tzinfo=UTC)
TIERS = (PriceTier(above_input_tokens=200, rates=DEAR),)
CATALOGUE = {
    MODEL: [Span(EPOCH, JUNE, CHEAP, ()), Span(JUNE, None, DEAR, ())],
    FAMILY: [Span(EPOCH, None, CHEAP, TIERS)],
}
LATER = NOW + timedelta(hours=1)


def load(catalogue: dict[PriceKey, list[Span]], now: datetime = NOW, **options: Any) -> ImportDiff:
    return import_catalogue(now=now, catalogue=catalogue, **options)


def names(changed: list[Changed]) -> list[PriceKey]:
    return [one.key for one in changed]


def rows(key: PriceKey = MODEL) -> list[tuple[datetime, datetime | None, int]]:
    found = PriceVersion.objects.filter(provider=key.provider, model=key.model, match=key.match)
    return [
        (p.valid_from, p.valid_to, p.input_nanos_per_mtok) for p in found.order_by("valid_from")
    ]


def revision(world: World) -> int:
    return Organization.objects.get(id=world.id).policy_revision


# ------------------------------------------------------------------------------ the snapshot


def test_a_first_import_brings_the_history(world: World) -> None:
    before = revision(world)
    diff = load(CATALOGUE)
    assert (names(diff.added), diff.changed, diff.unchanged) == ([MODEL, FAMILY], [], 0)
    assert rows() == [(EPOCH, JUNE, 1_000), (JUNE, None, 2_000)]
    assert PriceVersion.objects.get(model="gpt-").to_policy().tiers == list(TIERS)
    assert revision(world) == before + 1


def test_a_second_import_changes_nothing(world: World) -> None:
    load(CATALOGUE)
    before, ids = revision(world), set(PriceVersion.objects.values_list("id", flat=True))
    diff = load(CATALOGUE, LATER)
    assert (diff.added, diff.changed, diff.unchanged) == ([], [], 2)
    assert set(PriceVersion.objects.values_list("id", flat=True)) == ids
    assert revision(world) == before


def test_a_changed_rate_holds_from_now_on() -> None:
    load(CATALOGUE)
    old = PriceVersion.objects.get(model="gpt-")
    diff = load(CATALOGUE | {FAMILY: [Span(EPOCH, None, DEAR, ())]}, LATER)
    assert (names(diff.changed), diff.unchanged) == ([FAMILY], 1)
    assert rows(FAMILY) == [(EPOCH, LATER, 1_000), (LATER, None, 2_000)]
    assert PriceVersion.objects.get(id=old.id).input_nanos_per_mtok == 1_000


def test_an_announced_change_can_be_moved() -> None:
    """Far in the future: the database's own clock says whether a rate has begun."""
    first, second = datetime(2999, 6, 1, tzinfo=UTC), datetime(2999, 7, 1, tzinfo=UTC)
    load({MODEL: [Span(EPOCH, first, CHEAP, ()), Span(first, None, DEAR, ())]})
    load({MODEL: [Span(EPOCH, second, CHEAP, ()), Span(second, None, DEAR, ())]}, LATER)
    assert rows() == [(EPOCH, LATER, 1_000), (LATER, second, 1_000), (second, None, 2_000)]


def test_a_dry_run_tells_and_does_nothing() -> None:
    diff = load(CATALOGUE, dry_run=True)
    assert len(diff.added) == 2
    assert PriceVersion.objects.count() == 0


def test_a_model_that_left_the_source_keeps_its_price() -> None:
    load(CATALOGUE)
    diff = load({MODEL: CATALOGUE[MODEL]}, LATER)
    assert (diff.kept, diff.unchanged) == (1, 1)
    assert rows(FAMILY) == [(EPOCH, None, 1_000)]


def test_the_whole_installed_snapshot_loads_twice() -> None:
    first = import_catalogue(now=NOW)
    second = import_catalogue(now=LATER)
    assert (len(second.added), len(second.changed)) == (0, 0)
    assert second.unchanged == len(first.added) > 3_000


def test_a_jump_in_the_snapshot_is_held_back_and_the_rest_comes() -> None:
    load({MODEL: [Span(EPOCH, None, CHEAP)]})
    slip = Rates(input=1_000, cached_input=100, cache_write=1_250, output=500_000)
    wanted = {MODEL: [Span(EPOCH, None, slip)], FAMILY: [Span(EPOCH, None, CHEAP)]}
    diff = load(wanted, LATER)
    assert [(one.key, one.jumps) for one in diff.held] == [
        (MODEL, ["output rises from $0.000005 to $0.0005"])
    ]
    assert (names(diff.added), diff.changed) == ([FAMILY], [])
    assert rows() == [(EPOCH, None, 1_000)]
    diff = load(wanted, LATER, confirmed=["openai:gpt"])
    assert (names(diff.changed), diff.held) == ([MODEL], [])
    assert rows() == [(EPOCH, LATER, 1_000), (LATER, None, 1_000)]


# ------------------------------------------------------------------------------ files


def bring(prices: Catalogue, now: datetime = NOW, **options: Any) -> ImportDiff:
    wanted = PriceList(source="file csv", version="abc", prices=prices)
    values: dict[str, Any] = {"organization_id": None, "actor": ACTOR, "now": now}
    return import_prices(wanted, **values | options)


def plain(rates: Rates) -> list[Span]:
    return [Span(EPOCH, None, rates)]


def test_a_file_never_reaches_back(world: World) -> None:
    before = revision(world)
    diff = bring({MODEL: plain(CHEAP)}, reason="contract")
    assert names(diff.added) == [MODEL]
    assert rows() == [(NOW, None, 1_000)]
    assert revision(world) == before + 1
    entry = AuditEntry.objects.get(action="price.import")
    assert (entry.reason, entry.object_id) == ("contract", "file csv abc")
    assert entry.after["models"] == ["openai:gpt"]


def test_a_file_again_changes_nothing(world: World) -> None:
    bring({MODEL: plain(CHEAP)})
    before = revision(world)
    diff = bring({MODEL: plain(CHEAP)}, LATER)
    assert (diff.added, diff.changed, diff.unchanged) == ([], [], 1)
    assert (rows(), revision(world)) == ([(NOW, None, 1_000)], before)


def test_what_a_file_brought_outlives_the_next_start() -> None:
    load({MODEL: plain(CHEAP)})
    bring({MODEL: plain(DEAR)}, LATER)
    diff = load({MODEL: plain(CHEAP)}, LATER + timedelta(days=1))
    assert (diff.added, diff.changed) == ([], [])
    assert rows() == [(EPOCH, LATER, 1_000), (LATER, None, 2_000)]


def test_own_rates_of_a_file_are_of_one_organization(world: World) -> None:
    other = Organization.objects.create(slug="other", name="Other", created_at=NOW)
    bring({MODEL: plain(CHEAP)}, organization_id=world.id)
    version = PriceVersion.objects.get()
    assert (version.organization_id, version.own) == (world.id, True)
    assert (revision(world), Organization.objects.get(id=other.id).policy_revision) == (2, 1)


def test_an_announced_rate_is_told_by_its_instant() -> None:
    bring({MODEL: plain(CHEAP)})
    diff = bring({MODEL: [Span(JUNE, None, DEAR)]}, LATER)
    (one,) = diff.changed
    assert (one.starts_at, one.old["input"], one.new["input"]) == (JUNE, 1_000, 2_000)
    assert rows() == [(NOW, JUNE, 1_000), (JUNE, None, 2_000)]


@pytest.mark.parametrize(
    ("old", "new", "jump"),
    [
        (1_000, 99_999, None),
        (1_000, 100_000, "input rises from $0.000001 to $0.0001"),
        (1_000, 11, None),
        (1_000, 10, "input falls from $0.000001 to $0.00000001"),
        (1_000, 0, "input falls from $0.000001 to $0.00"),
        (0, 10**13, None),
        (0, 10**13 + 1, "input is $10000.000000001"),
    ],
)
def test_a_hundredfold_jump_is_refused_until_it_is_confirmed(
    world: World, old: int, new: int, jump: str | None
) -> None:
    bring({MODEL: plain(Rates(input=old))})
    wanted = {MODEL: plain(Rates(input=new)), FAMILY: plain(CHEAP)}
    assert [one.jumps for one in bring(wanted, LATER, dry_run=True).doubtful] == (
        [[jump]] if jump else []
    )
    if jump:
        with pytest.raises(PriceError) as caught:
            bring(wanted, LATER, confirmed=["openai:other"])
        assert caught.value.field == "confirm"
        assert f"openai:gpt: {jump}" in caught.value.message
        assert PriceVersion.objects.count() == 1
    bring(wanted, LATER, confirmed=["openai:gpt"])
    assert rows() == [(NOW, LATER, old), (LATER, None, new)]


def test_an_own_rate_jumps_from_the_catalogue(world: World) -> None:
    load({MODEL: plain(CHEAP)})
    for key in (MODEL, PriceKey("", "gpt", "exact")):
        diff = bring({key: plain(Rates(input=900_000))}, organization_id=world.id, dry_run=True)
        assert [one.jumps[0] for one in diff.added] == ["input rises from $0.000001 to $0.0009"]


def test_a_jump_of_a_later_span_a_tier_or_a_variant_is_one() -> None:
    bring({MODEL: plain(CHEAP)})
    slip = Rates(input=1_000, cached_input=100, cache_write=1_250, output=900_000)
    for spans in (
        [Span(EPOCH, JUNE, CHEAP), Span(JUNE, None, slip)],
        [Span(EPOCH, None, CHEAP, (PriceTier(200, slip),))],
        [Span(EPOCH, None, CHEAP, variants={"batch": slip})],
        [Span(EPOCH, None, CHEAP, (PriceTier(200, CHEAP, {"batch": slip}),))],
    ):
        with pytest.raises(PriceError, match="output rises from"):
            bring({MODEL: spans}, LATER)


@pytest.mark.parametrize(
    ("key", "span", "message"),
    [
        (PriceKey("openai", "", "exact"), Span(EPOCH, None, CHEAP), "name of a model"),
        (PriceKey("openai", "x" * 201, "exact"), Span(EPOCH, None, CHEAP), "200 printable"),
        (PriceKey("openai", "a\nb", "exact"), Span(EPOCH, None, CHEAP), "200 printable"),
        (PriceKey("o" * 65, "m", "exact"), Span(EPOCH, None, CHEAP), "64 printable"),
        (MODEL, Span(EPOCH, None, Rates(input=-1)), "zero or more"),
        (MODEL, Span(EPOCH, None, Rates(output=2**63)), "fit 63 bits"),
        (MODEL, Span(EPOCH, None, CHEAP, variants={"x" * 33: CHEAP}), "32 characters"),
        (MODEL, Span(EPOCH, None, CHEAP, variants={"": CHEAP}), "32 characters"),
        (MODEL, Span(EPOCH, None, CHEAP, (PriceTier(0, CHEAP),)), "tiers must rise"),
    ],
)
def test_one_price_that_cannot_be_stops_the_whole_file(
    key: PriceKey, span: Span, message: str
) -> None:
    with pytest.raises(PriceError, match=message):
        bring({FAMILY: plain(CHEAP), key: [span]})
    assert PriceVersion.objects.count() == 0


def test_own_rates_are_bounded(world: World) -> None:
    many = {PriceKey("", f"m{n}", "exact"): plain(CHEAP) for n in range(1_001)}
    with pytest.raises(PriceError, match="up to 1000 models"):
        bring(many, organization_id=world.id)
