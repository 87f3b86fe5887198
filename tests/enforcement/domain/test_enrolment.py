"""Serving nodes as sidecars name them."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from controlplane.audit.domain import Actor
from controlplane.audit.models import AuditEntry
from controlplane.identity.domain import create_organization
from controlplane.identity.models import Organization
from enforcement.domain.enrolment import enrol_sidecar, revoke_sidecar
from enforcement.domain.introductions import register_upstreams
from enforcement.domain.nodes import create_node, set_node_state
from enforcement.enums import NodeState
from enforcement.models import ServingNode, Sidecar
from enforcement.rules.wire import UpstreamInfo

NOW = datetime(2026, 5, 13, 10, 30, tzinfo=UTC)
ACTOR = Actor.system("test")
LLAMA = UpstreamInfo("n1", "http://10.0.0.1:8080", engine="llama.cpp", models=["gemma"])


@pytest.fixture
def organization(db: None) -> Organization:
    return create_organization(slug="acme", name="Acme", actor=ACTOR, now=NOW)


@pytest.fixture
def sidecar(organization: Organization) -> Sidecar:
    return enrol(organization, "edge-1")


def enrol(organization: Organization, name: str) -> Sidecar:
    return enrol_sidecar(organization_id=organization.pk, name=name, actor=ACTOR, now=NOW).sidecar


def register(sidecar: Sidecar, *upstreams: UpstreamInfo, minutes: int = 0) -> None:
    at = NOW + timedelta(minutes=minutes)
    register_upstreams(sidecar=sidecar, upstreams=upstreams, version="0.1.0", now=at)


def revision(organization: Organization) -> int:
    organization.refresh_from_db()
    return organization.policy_revision


def test_a_new_node_is_written_down_and_changes_the_policy(
    organization: Organization, sidecar: Sidecar
) -> None:
    before = revision(organization)
    register(sidecar, LLAMA)
    node = ServingNode.objects.get()
    assert (node.name, node.engine, node.metrics_path) == ("n1", "llama.cpp", "/metrics")
    assert (node.models, node.state, node.sidecar) == (["gemma"], "active", sidecar)
    assert revision(organization) == before + 1


def test_an_ollama_is_read_where_it_tells_what_is_loaded(sidecar: Sidecar) -> None:
    register(sidecar, replace(LLAMA, engine="ollama"))
    node = ServingNode.objects.get()
    assert (node.engine, node.metrics_path) == ("ollama", "/api/ps")


def test_the_same_hello_again_changes_nothing_but_when_it_was_seen(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    before = revision(organization)
    register(sidecar, LLAMA, minutes=5)
    assert revision(organization) == before
    sidecar.refresh_from_db()
    assert (sidecar.last_seen_at, sidecar.version) == (NOW + timedelta(minutes=5), "0.1.0")


def test_other_models_change_the_policy_and_unknown_ones_keep_the_old(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    before = revision(organization)
    register(sidecar, UpstreamInfo("n1", "http://10.0.0.1:8080", models=["gemma", "qwen"]))
    assert revision(organization) == before + 1
    register(sidecar, UpstreamInfo("n1", "http://10.0.0.1:8080"))  # it could not be asked
    assert ServingNode.objects.get().models == ["gemma", "qwen"]
    assert revision(organization) == before + 1


def test_a_node_that_is_named_no_more_is_gone_until_it_is_named_again(
    organization: Organization, sidecar: Sidecar
) -> None:
    other = UpstreamInfo("n2", "http://10.0.0.2:8080")
    register(sidecar, LLAMA, other)
    register(enrol(organization, "edge-2"), UpstreamInfo("n3", "http://10.0.0.3:8080"))
    register(sidecar, other)
    states = dict(ServingNode.objects.order_by("name").values_list("name", "state"))
    assert states == {"n1": "gone", "n2": "active", "n3": "active"}
    register(sidecar, LLAMA)
    states = dict(ServingNode.objects.order_by("name").values_list("name", "state"))
    assert states == {"n1": "active", "n2": "gone", "n3": "active"}


@pytest.mark.parametrize(
    "address",
    ["http://169.254.169.254/latest", "http://metadata.google.internal", "file:///etc/passwd", "x"],
)
def test_no_worker_reads_where_a_sidecar_should_not_send_it(sidecar: Sidecar, address: str) -> None:
    register(sidecar, UpstreamInfo("n1", address, engine="vllm", metrics_path="/metrics"))
    assert ServingNode.objects.get().metrics_path == ""


# ------------------------------------------------------------------------------- takeovers

EVIL = UpstreamInfo("n1", "http://evil:8080", engine="vllm", models=["cheap"])


def told(action: str) -> list[tuple[str, str]]:
    """Who did it, and to which node."""
    rows = AuditEntry.objects.filter(action=action).order_by("id")
    return [(row.actor_label, (row.after or {}).get("name", "")) for row in rows]


def facts() -> tuple[str, list[str], str, str]:
    node = ServingNode.objects.select_related("sidecar").get(name="n1")
    return node.base_url, node.models, node.state, node.sidecar.name if node.sidecar else ""


def test_another_sidecar_does_not_take_a_node_over(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    before, revised = facts(), revision(organization)
    enemy = enrol(organization, "edge-2")
    for minutes in (1, 2):
        register(enemy, EVIL, minutes=minutes)
    assert (facts(), revision(organization)) == (before, revised)
    enemy.refresh_from_db()
    assert enemy.refused_nodes == [
        {
            "name": "n1",
            "why": "another sidecar speaks for the node of this name, at another address",
        }
    ]
    assert AuditEntry.objects.filter(action="sidecar.node_refused").count() == 1
    register(enemy, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    enemy.refresh_from_db()
    assert enemy.refused_nodes == []
    assert facts() == before


def test_two_sidecars_stand_before_one_node_and_the_first_speaks_for_it(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    second = enrol(organization, "edge-2")
    register(second, LLAMA)
    register(second, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    second.refresh_from_db()
    assert (facts()[2:], second.refused_nodes) == (("active", "edge-1"), [])


def test_a_node_goes_over_when_its_sidecar_is_revoked_or_names_it_no_more(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    heir = enrol(organization, "edge-2")
    revoke_sidecar(organization_id=organization.pk, sidecar_id=sidecar.pk, actor=ACTOR, now=NOW)
    register(heir, EVIL)
    assert facts() == ("http://evil:8080", ["cheap"], "active", "edge-2")
    register(heir, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    register(enrol(organization, "edge-3"), LLAMA)
    assert facts() == ("http://10.0.0.1:8080", ["gemma"], "active", "edge-3")


def test_a_node_that_people_removed_comes_back_by_people_alone(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    who = {"organization_id": organization.pk, "actor": ACTOR, "now": NOW, "reason": ""}
    node = ServingNode.objects.get()
    set_node_state(node_id=node.pk, state=NodeState.GONE, **who)
    register(sidecar, LLAMA)
    assert facts()[2] == "gone"
    sidecar.refresh_from_db()
    assert sidecar.refused_nodes[0]["why"].startswith("people removed the node")
    set_node_state(node_id=node.pk, state=NodeState.ACTIVE, **who)
    register(sidecar, LLAMA)
    assert facts()[2] == "active"


def test_a_node_that_left_by_itself_can_be_removed_for_good(
    organization: Organization, sidecar: Sidecar
) -> None:
    register(sidecar, LLAMA)
    register(sidecar, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    node = ServingNode.objects.get(name="n1")
    who = {"organization_id": organization.pk, "actor": ACTOR, "now": NOW, "reason": ""}
    assert set_node_state(node_id=node.pk, state=NodeState.GONE, **who).removed_at == NOW
    register(sidecar, LLAMA)
    assert facts()[2] == "gone"


def test_where_a_person_said_a_node_is_read_a_sidecar_changes_nothing(
    organization: Organization, sidecar: Sidecar
) -> None:
    create_node(
        organization_id=organization.pk, name="n1", base_url="http://gpu:1", actor=ACTOR, now=NOW
    )
    for _ in range(2):
        register(sidecar, UpstreamInfo("n1", "http://127.0.0.1:8080", models=["gemma"]))
    assert facts() == ("http://gpu:1", ["gemma"], "active", "edge-1")
    register(sidecar, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    assert facts()[2] == "active"


def test_what_sidecars_do_to_nodes_is_in_the_audit_trail(sidecar: Sidecar) -> None:
    register(sidecar, LLAMA)
    register(sidecar, LLAMA)
    register(sidecar, UpstreamInfo("n1", "http://10.0.0.9:8080", engine="llama.cpp"))
    register(sidecar, UpstreamInfo("n2", "http://10.0.0.2:8080"))
    assert told("node.enrol") == [("edge-1", "n1"), ("edge-1", "n2")]
    assert told("node.change") == [("edge-1", "n1")]
    assert told("node.gone") == [("edge-1", "n1")]
    change = AuditEntry.objects.get(action="node.change")
    assert (change.before or {})["base_url"] == "http://10.0.0.1:8080"
    assert (change.after or {})["base_url"] == "http://10.0.0.9:8080"
