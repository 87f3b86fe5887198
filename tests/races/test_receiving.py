"""Receivers that are told of the same calls by many at once, beside sidecars' own batches."""

from collections.abc import Sequence
from functools import partial
from uuid import UUID

from budgets.domain.usage import book_usage
from budgets.domain.verify import verify
from budgets.models import UsageEvent
from controlplane.identity.models import Agent
from enforcement.domain.receiving import UNATTRIBUTED, Received, receive_calls
from enforcement.rules.policy import Mode, Unit
from enforcement.rules.reports.call import ReportedCall, Source, token_usage
from tests.budgets.world import NOW, World, amounts, call, make_budget
from tests.races.crowd import at_once

CROWD = 12
AT_MS = int(NOW.timestamp() * 1000) - 5_000


def reported(number: int, *, source: Source = Source.OTLP, **said: str) -> ReportedCall:
    names = tuple(filter(None, [said.pop("agent", "")]))
    usage = token_usage(input_tokens=10, output_tokens=5)
    return ReportedCall(source, f"k{number}", "toy", AT_MS, usage, agents=names, **said)


def receive(
    organization_id: UUID, calls: Sequence[ReportedCall], source: Source = Source.OTLP
) -> Received:
    return receive_calls(organization_id=organization_id, source=source, calls=calls, now=NOW)


def test_one_batch_from_everywhere_is_booked_once(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT, unit=Unit.TOKENS)
    calls = [reported(number, agent=str(world.agent.id)) for number in range(6)]
    orders = [calls[number % 6 :] + calls[: number % 6] for number in range(CROWD)]
    received = at_once([partial(receive, world.id, order) for order in orders])
    assert sum(result.booked for result in received) == 6
    assert sum(result.duplicates for result in received) == 6 * CROWD - 6
    assert sum(len(result.rejected) for result in received) == 0
    assert amounts(budget)[0] == 6 * 15
    assert verify().holds


def test_one_answer_that_all_sources_tell_of_is_booked_once(world: World) -> None:
    answer = "chatcmpl-0123456789abcdef"
    jobs = [
        partial(receive, world.id, [reported(n, source=source, response_id=answer)], source)
        for n in range(4)
        for source in Source
    ]
    received = at_once(jobs)
    assert sum(result.booked for result in received) == 1
    assert sum(result.metered for result in received) == len(jobs) - 1
    assert UsageEvent.objects.count() == 1


def test_the_agent_of_nobody_is_made_once(world: World) -> None:
    jobs = [partial(receive, world.id, [reported(n, agent=f"ghost-{n}")]) for n in range(CROWD)]
    assert {result.unattributed for result in at_once(jobs)} == {1}
    nobody = Agent.objects.get(slug=UNATTRIBUTED)
    assert set(UsageEvent.objects.values_list("agent", flat=True)) == {nobody.id}


def test_sidecars_book_beside_reports(world: World) -> None:
    budget = make_budget(world, mode=Mode.SOFT, unit=Unit.TOKENS)
    told = [
        partial(receive, world.id, [reported(n, agent=str(world.agent.id))]) for n in range(CROWD)
    ]
    metered = [
        partial(
            book_usage, organization_id=world.id, sidecar_id=None, events=[call(world)], now=NOW
        )
        for _ in range(CROWD)
    ]
    at_once([*told, *metered])
    assert UsageEvent.objects.count() == 2 * CROWD
    assert amounts(budget)[0] == CROWD * 15 + CROWD * 120
    assert verify().holds
