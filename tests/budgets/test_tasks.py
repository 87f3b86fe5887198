"""Tasks only load, call and end; a second run changes nothing."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from budgets import tasks
from budgets.domain.usage import book_usage
from budgets.models import RollupWatermark, SealHorizon, Transfer, UsageRollup
from enforcement.rules.policy import Mode
from tests.budgets.constraints.attack import sql
from tests.budgets.world import World, amounts, call, make_balance, make_budget, make_lease, ms


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
    assert not Transfer.objects.exists()


def test_a_broken_ledger_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    make_balance(make_budget(world, mode=Mode.SOFT), spent_amount=5)
    tasks.verify_ledger()
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "balance differs from its journal" in error.getMessage()


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out, stderr=out)
    return out.getvalue()


def test_verifying_by_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    balance = make_balance(make_budget(world))
    run("verify_ledger", "--format=json", "--organization=acme")
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["balances"], told["seals_broken"]) == ("intact", 1, 0)
    balance.spent_amount = 7
    balance.save()
    with pytest.raises(CommandError, match="not what was written"):
        run("verify_ledger", "--format=json")
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["balances_that_differ"]) == ("broken", 1)
    with pytest.raises(CommandError, match="no organization 'nobody'"):
        run("verify_ledger", "--organization=nobody")


def test_a_head_that_is_gone_is_told(world: World) -> None:
    make_balance(make_budget(world))
    with pytest.raises(CommandError, match="not what was written"):
        run("verify_ledger", f"--head={'0' * 64}")


def test_sealing_twice_seals_nothing_twice(world: World) -> None:
    make_budget(world)
    for _ in range(2):
        tasks.seal_journal()
    assert SealHorizon.objects.count() == 1


def test_permits_are_freed_by_task_when_the_longest_request_is_over(
    world: World, settings: Any
) -> None:
    budget = make_budget(world, unit="concurrency", limit_amount=5)
    balance = make_balance(budget, lends=True, suspense_amount=2)
    lease = make_lease(balance, amount=2, expires_at=timezone.now() - timedelta(seconds=90))
    sql("UPDATE budgets_lease SET state = 'suspended' WHERE id = %s", lease.id)
    settings.LONGEST_REQUEST_S = 600
    tasks.free_permits()
    assert amounts(budget)[2] == 2
    settings.LONGEST_REQUEST_S = 60
    tasks.free_permits()
    assert amounts(budget)[2] == 0
