"""Serving nodes as sidecars name them."""

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.audit.domain import Actor
from controlplane.identity.domain import create_organization
from controlplane.identity.models import Organization
from enforcement.domain.enrolment import enrol_sidecar, register_upstreams
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
