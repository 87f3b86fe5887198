"""An organization, its agents, and a publisher whose skills it may trust."""

import io
import zipfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.audit.domain import Actor
from controlplane.audit.models import AuditEntry
from controlplane.identity.models import Agent, Organization
from enforcement.rules.cardformat import Capabilities, CardBudget, ToolCapability
from skills.domain.cards import sign_card
from skills.domain.importing import import_skill
from skills.domain.trust import add_trust_root, switch_trust_root
from skills.models import Skill, SkillCard
from tests.skills.publisher import FILES, NOW, PIN, Publisher, make_publisher

CAPABILITIES = Capabilities(
    tools=[ToolCapability(name="Read"), ToolCapability(name="Bash")], denied_tools=["Shell"]
)


@pytest.fixture(scope="session")
def publisher() -> Publisher:
    return make_publisher()


@pytest.fixture
def organization(db: None) -> Organization:
    return Organization.objects.create(slug="acme", name="Acme", created_at=NOW)


@pytest.fixture
def stranger(db: None) -> Organization:
    return Organization.objects.create(slug="stranger", name="Stranger", created_at=NOW)


@pytest.fixture
def agent(organization: Organization) -> Agent:
    return make_agent(organization, "writer")


@pytest.fixture
def actor() -> Actor:
    return Actor(kind="person", id="1", label="alice@example.com")


@pytest.fixture
def trusted_root(organization: Organization, publisher: Publisher, actor: Actor) -> None:
    root = add_trust_root(
        organization_id=organization.pk,
        name="Example",
        pem=publisher.root_pem,
        required_subject=PIN,
        actor=actor,
        now=NOW,
    )
    switch_trust_root(
        organization_id=organization.pk,
        trust_root_id=root.pk,
        enabled=True,
        actor=actor,
        now=NOW,
    )


@pytest.fixture
def import_files(
    organization: Organization, publisher: Publisher, actor: Actor
) -> Callable[..., Skill]:
    """Import files as the archive of one folder, signed by the publisher unless told otherwise."""

    def run(
        files: dict[str, bytes] = FILES, *, signed: bool = True, folder: str = "example-skill"
    ) -> Skill:
        bundle = {"skill.oms.sig": publisher.sign("example-skill", files)} if signed else {}
        return import_skill(
            organization_id=organization.pk,
            archive=zip_of(files | bundle, folder=folder),
            actor=actor,
            now=NOW,
        )

    return run


@pytest.fixture
def sign(actor: Actor) -> Callable[..., SkillCard]:
    def run(skill: Skill, **changes: Any) -> SkillCard:
        arguments: dict[str, Any] = {
            "capabilities": CAPABILITIES,
            "budget": CardBudget(),
            "expires": NOW + timedelta(days=30),
            "actor": actor,
            "now": NOW,
        }
        return sign_card(skill=skill, **(arguments | changes))

    return run


def make_agent(organization: Organization, slug: str) -> Agent:
    return Agent.objects.create(
        organization=organization, slug=slug, name=slug, created_at=NOW, state_changed_at=NOW
    )


def zip_of(files: dict[str, bytes], *, folder: str = "example-skill") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for path, content in files.items():
            target.writestr(f"{folder}/{path}" if folder else path, content)
    return buffer.getvalue()


def actions(organization: Organization) -> list[str]:
    entries = AuditEntry.objects.filter(organization_id=organization.pk).order_by("id")
    return list(entries.values_list("action", flat=True))


def version(files: dict[str, bytes], number: str) -> dict[str, bytes]:
    """The same skill in another version."""
    text = files["SKILL.md"].replace(b"version: 1.0.0", f"version: {number}".encode())
    return files | {"SKILL.md": text}
