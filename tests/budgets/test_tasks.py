"""Tasks only load, call and end; a second run changes nothing."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from budgets import tasks
from budgets.domain.usage import book_usage
from budgets.models import PriceVersion, RollupWatermark, UsageRollup
from enforcement.rules.policy import Mode
from tests.budgets.world import World, call, make_balance, make_budget, ms


def test_folding_twice_changes_nothing(world: World) -> None:
    now = timezone.now()
    event = call(world, started_at_ms=ms(now) - 1_000)
    book_usage(organization_id=world.id, sidecar_id=None, events=[event], now=now)
    for _ in range(2):
        tasks.fold_usage()
        assert [row.calls for row in UsageRollup.objects.all()] == [1]


@pytest.mark.usefixtures("world")
def test_announcing_begins_with_a_watermark() -> None:
    for _ in range(2):
        tasks.announce_prices()
    assert RollupWatermark.objects.get().name == "prices"


def test_writing_off_an_idle_ledger_is_nothing(world: World) -> None:
    make_budget(world)
    tasks.write_off()


def test_a_broken_ledger_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    make_balance(make_budget(world, mode=Mode.SOFT), spent_amount=5)
    tasks.verify_ledger()
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "balance differs from its journal" in error.getMessage()


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out, stderr=out)
    return out.getvalue()


@pytest.mark.usefixtures("world")
def test_importing_prices_by_command() -> None:
    tried = run("import_prices", "--dry-run")
    assert "+ openai:gpt-4o (exact)" in tried
    assert PriceVersion.objects.count() == 0
    first, second = run("import_prices"), run("import_prices")
    assert " new, 0 changed, 0 unchanged, 0 only here" in first
    assert ": 0 new, 0 changed, " in second
    assert PriceVersion.objects.filter(valid_from__lt=timezone.now() - timedelta(days=1)).exists()


def test_verifying_by_command(world: World) -> None:
    balance = make_balance(make_budget(world))
    assert run("verify_ledger") == "1 balances agree with their journal\n"
    balance.spent_amount = 7
    balance.save()
    with pytest.raises(CommandError, match="1 of 1 balances differ"):
        run("verify_ledger")
