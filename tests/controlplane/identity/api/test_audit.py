"""The audit trail over the API."""

from typing import Any

import pytest

from controlplane.audit.models import AuditEntry
from tests.controlplane.world import UNKNOWN, Api, World


def test_it_tells_who_did_what_newest_first(world: World, admin: Api) -> None:
    team = admin.call("POST", "teams", {"slug": "x", "name": "X"}).json()
    entries = admin.call("GET", "audit-entries?page_size=1").json()["results"]
    assert [(e["action"], e["object_id"], e["actor_label"]) for e in entries] == [
        ("team.create", team["id"], "admin")
    ]
    assert entries[0]["after"] == {"slug": "x", "name": "X"}


def test_it_is_filtered(world: World, viewer: Api) -> None:
    agent = world.agent()
    answer = viewer.call("GET", f"audit-entries?object_kind=agent&object_id={agent.pk}")
    assert [entry["action"] for entry in answer.json()["results"]] == ["agent.create"]
    answer = viewer.call("GET", "audit-entries?at__gte=nonsense")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["at__gte"])


def test_foreign_entries_are_as_unknown_as_none(world: World, foreigner: Api) -> None:
    world.team()
    entry = AuditEntry.objects.get(action="team.create")
    answers = [
        foreigner.call("GET", f"audit-entries/{number}") for number in (entry.pk, 2**62, 2**80)
    ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert answers[0].content == answers[1].content == answers[2].content
    theirs = foreigner.call("GET", f"audit-entries?object_id={entry.object_id}")
    assert theirs.json()["results"] == []


def test_nothing_in_it_can_be_written(world: World, owner: Api) -> None:
    entry = AuditEntry.objects.first()
    assert entry is not None
    for method in ("PUT", "PATCH", "DELETE"):
        assert owner.call(method, f"audit-entries/{entry.pk}", {}).status_code == 405
    assert owner.call("POST", "audit-entries", {}).status_code == 405
    assert owner.call("GET", f"audit-entries/{UNKNOWN}").status_code == 404


@pytest.mark.parametrize("rows", [1, 3])
def test_a_list_costs_the_same_whatever_its_length(
    world: World, owner: Api, rows: int, django_assert_num_queries: Any
) -> None:
    for number in range(rows):
        world.team(f"t{number}")
    owner.call("GET", "me")
    with django_assert_num_queries(3):  # token, membership, page
        answer = owner.call("GET", "audit-entries?action=team.create")
    assert len(answer.json()["results"]) == rows
