"""Names of nodes that two want at once: hellos of sidecars, people, and discovery."""

from collections.abc import Callable
from functools import partial
from typing import Any

from controlplane.audit.models import AuditEntry
from enforcement.domain.discovery import discover
from enforcement.domain.enrolment import enrol_sidecar
from enforcement.domain.introductions import register_upstreams
from enforcement.domain.nodes import create_node
from enforcement.errors import NodeNameTakenError
from enforcement.models import ServingNode, Sidecar
from enforcement.rules.nodeclaim import REFUSED, Claim
from enforcement.rules.targetfile import Target
from enforcement.rules.wire import UpstreamInfo
from tests.budgets.world import ACTOR, NOW, World
from tests.races.crowd import at_once

ROUNDS = 20


def sidecars(world: World, *names: str) -> list[Sidecar]:
    who: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "now": NOW}
    return [enrol_sidecar(name=name, **who).sidecar for name in names]


def hello(sidecar: Sidecar, *upstreams: tuple[str, str]) -> Callable[[], None]:
    told = [UpstreamInfo(name, url, engine="vllm", models=["gemma"]) for name, url in upstreams]
    return partial(register_upstreams, sidecar=sidecar, upstreams=told, version="1", now=NOW)


def test_one_of_two_sidecars_gets_a_name_and_the_other_is_told(world: World) -> None:
    pair = sidecars(world, "edge-1", "edge-2")
    for turn in range(ROUNDS):
        name = f"gpu-{turn}"
        at_once([hello(one, (name, f"http://{one.name}:8000")) for one in pair])
        node = ServingNode.objects.select_related("sidecar").get(name=name)
        assert node.sidecar is not None
        assert node.base_url == f"http://{node.sidecar.name}:8000"
        winner, loser = sorted(pair, key=lambda one: one.pk != node.sidecar_id)
        for one in pair:
            one.refresh_from_db()
        assert winner.refused_nodes == []
        assert loser.refused_nodes == [{"name": name, "why": REFUSED[Claim.OF_ANOTHER]}]
    assert AuditEntry.objects.filter(action="node.enrol").count() == ROUNDS


def test_names_that_cross_end_neither_hello(world: World) -> None:
    """Each names what the other does, in another order; each old node is somebody's already."""
    pair = sidecars(world, "edge-1", "edge-2")
    for turn in range(ROUNDS):
        nodes = [(f"gpu-{turn}-{n}", f"http://gpu-{turn}-{n}:8000") for n in range(8)]
        at_once([hello(pair[0], *nodes), hello(pair[1], *reversed(nodes))])
        owners = ServingNode.objects.filter(name__startswith=f"gpu-{turn}-")
        assert len(set(owners.values_list("sidecar", flat=True))) == 1
    assert ServingNode.objects.count() == 8 * ROUNDS


def test_discovery_and_a_hello_that_meet_end_neither(world: World) -> None:
    (sidecar,) = sidecars(world, "edge-1")
    find = partial(discover, organization_id=world.id, place="/f", actor=ACTOR, now=NOW)
    for turn in range(ROUNDS):
        named = [(f"gpu-{turn}-{n}", f"http://gpu-{turn}-{n}:8000") for n in range(8)]
        targets = [Target(name, url) for name, url in named]
        at_once([partial(find, targets=targets), hello(sidecar, *reversed(named))])
        speaking = ServingNode.objects.filter(name__startswith=f"gpu-{turn}-", sidecar=sidecar)
        assert speaking.count() == len(named)


def test_two_people_do_not_enter_one_address_twice(world: World) -> None:
    who: dict[str, Any] = {"organization_id": world.id, "actor": ACTOR, "now": NOW}

    def enter(name: str, url: str) -> bool:
        try:
            create_node(name=name, base_url=url, **who)
        except NodeNameTakenError:
            return False
        return True

    for turn in range(ROUNDS):
        url = f"http://10.0.0.{turn}:8000"
        entered = at_once(
            [partial(enter, f"a-{turn}", url), partial(enter, f"b-{turn}", f"{url}/")]
        )
        assert sorted(entered) == [False, True]
    assert ServingNode.objects.count() == ROUNDS
