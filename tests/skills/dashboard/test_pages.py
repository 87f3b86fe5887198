"""Pages of skills and cards: what they show, what they refuse, who may do what."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.domain import Actor
from controlplane.identity.domain import add_member
from controlplane.identity.enums import Role
from controlplane.identity.models import Agent, Organization
from skills.domain.cards import revoke_card
from skills.domain.grants import grant_card
from skills.models import Skill, SkillCard, SkillGrant, TrustRoot
from tests.skills.conftest import zip_of
from tests.skills.publisher import FILES, NOW, Publisher

FAR = datetime(2099, 1, 1, tzinfo=UTC)


def browser(organization: Organization, role: str) -> Client:
    """A signed-in member with this role."""
    membership = add_member(
        organization_id=organization.pk,
        email=f"{role}@{organization.slug}.example",
        role=Role(role),
        actor=Actor(kind="system", id="", label="tests"),
        now=NOW,
    )
    client = Client()
    client.force_login(membership.person)
    return client


@pytest.fixture
def admin(organization: Organization) -> Client:
    return browser(organization, "admin")


@pytest.fixture
def viewer(organization: Organization) -> Client:
    return browser(organization, "viewer")


@pytest.fixture
def foreigner(stranger: Organization) -> Client:
    return browser(stranger, "owner")


@pytest.fixture
def skill(import_files: Callable[..., Skill]) -> Skill:
    return import_files(signed=False)


@pytest.fixture
def card(skill: Skill, sign: Callable[..., SkillCard]) -> SkillCard:
    return sign(skill, expires=FAR)


def url(name: str, *arguments: Any) -> str:
    return reverse(f"skills:{name}", args=arguments)


def text(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_empty_list_tells_what_to_do(admin: Client) -> None:
    page = text(admin.get(url("list")))

    assert "No skill yet" in page
    assert url("import") in page
    assert "NVIDIA Agent Capabilities CA" in page


def test_list_shows_signature_reason_and_card(admin: Client, card: SkillCard) -> None:
    page = text(admin.get(url("list")))

    assert "Unsigned" in page
    assert "there is no skill.oms.sig" in page
    assert f'href="{url("card", card.pk)}">Revision 1</a>' in page
    assert "Valid" in page


def test_fragment_for_live_refresh(admin: Client, card: SkillCard) -> None:
    page = text(admin.get(url("list"), headers={"HX-Request": "true"}))

    assert "<html" not in page
    assert "Revision 1" in page


def test_import(admin: Client, publisher: Publisher) -> None:
    bundle = {"skill.oms.sig": publisher.sign("example-skill", FILES)}
    file = io.BytesIO(zip_of(FILES | bundle))
    file.name = "skill.zip"

    response = admin.post(url("import"), {"archive": file}, follow=True)

    skill = Skill.objects.get()
    assert response.redirect_chain == [(url("detail", skill.pk), 302)]
    page = text(response)
    assert "Untrusted root" in page
    assert "no trust root is switched on" in page.lower()
    assert "No card can be signed over this skill." in page


def test_import_shows_why_an_archive_is_refused(admin: Client) -> None:
    file = io.BytesIO(zip_of({"SKILL.md": b"no front matter"}))
    file.name = "skill.zip"

    response = admin.post(url("import"), {"archive": file})

    assert response.status_code == 422
    assert "has no front matter" in text(response)


def test_drift_names_the_files(
    admin: Client, import_files: Callable[..., Skill], publisher: Publisher, actor: Actor
) -> None:
    from skills.domain.importing import import_skill

    changed = FILES | {
        "SKILL.md": FILES["SKILL.md"] + b"more",
        "skill.oms.sig": publisher.sign("example-skill", FILES),
    }
    organization_id = import_files().organization_id
    skill = import_skill(
        organization_id=organization_id, archive=zip_of(changed), actor=actor, now=NOW
    )

    page = text(admin.get(url("detail", skill.pk)))

    assert "<dt>Drifted</dt><dd><code>SKILL.md</code></dd>" in page
    assert "files_changed" in page


def test_sign_form_starts_with_what_the_skill_asks_for(admin: Client, skill: Skill) -> None:
    page = text(admin.get(url("sign", skill.pk)))

    assert "Read Bash</textarea>" in page


def test_sign(admin: Client, skill: Skill) -> None:
    response = admin.post(
        url("sign", skill.pk),
        {
            "tools": "Read\n mcp__docs__* \n\n",
            "denied_tools": "Shell",
            "usd": "1.5",
            "tokens": "",
            "expires": "2099-01-01",
            "reason": "first",
        },
        follow=True,
    )

    card = SkillCard.objects.get()
    page = text(response)
    assert (card.card_rev, card.expires) == (1, FAR)
    assert "<code>mcp__docs__*</code>" in page
    assert "$1.50" in page
    assert (
        f"comptroller cards verify example-skill-r1.card.json --key {card.key.public_key}" in page
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"expires": "2001-01-01"}, "expired at once"),
        ({"expires": "soon"}, "Enter a valid date"),
        ({"reason": ""}, "This field is required"),
        ({"usd": "-1"}, "greater than or equal to 0"),
        ({"tools": "x" * 201}, "Expected `str` of length &lt;= 200"),
    ],
    ids=str,
)
def test_card_that_is_not_signed(
    admin: Client, skill: Skill, change: dict[str, str], sentence: str
) -> None:
    form = {"tools": "Read", "expires": "2099-01-01", "reason": "x"} | change

    response = admin.post(url("sign", skill.pk), form)

    assert response.status_code == 422
    assert sentence in text(response)
    assert SkillCard.objects.count() == 0


def test_card_page_shows_the_signed_statement(admin: Client, card: SkillCard) -> None:
    page = text(admin.get(url("card", card.pk)))

    assert card.digest in page
    assert "&quot;predicateType&quot;: &quot;https://comptroller.dev/skill-card/v1&quot;" in page
    download = admin.get(url("envelope", card.pk))
    assert download.content.decode() == card.envelope


def test_grant_and_take_back(admin: Client, card: SkillCard, agent: Agent) -> None:
    form = {"agent": agent.pk, "tools": ["Read"], "reason": "weekly report"}

    page = text(admin.post(url("card-grant", card.pk), form, follow=True))

    grant = SkillGrant.objects.get()
    assert grant.tools == ["Read"]
    assert "“weekly report”" in page
    page = text(admin.post(url("grant-revoke", grant.pk), follow=True))
    assert "No agent may use this card yet" in page


def test_no_tool_ticked_means_all(admin: Client, card: SkillCard, agent: Agent) -> None:
    admin.post(url("card-grant", card.pk), {"agent": agent.pk, "reason": "x"})

    assert SkillGrant.objects.get().tools is None


@pytest.mark.parametrize(
    "change", [{"agent": ""}, {"agent": "nobody"}, {"tools": ["Write"]}, {"reason": ""}], ids=str
)
def test_grant_that_is_refused(
    admin: Client, card: SkillCard, agent: Agent, change: dict[str, Any]
) -> None:
    form = {"agent": str(agent.pk), "reason": "x"} | change

    response = admin.post(url("card-grant", card.pk), form)

    assert response.status_code == 422
    assert SkillGrant.objects.count() == 0


def test_revoke_a_card(admin: Client, card: SkillCard) -> None:
    assert admin.post(url("card-revoke", card.pk), {}).status_code == 422

    page = text(admin.post(url("card-revoke", card.pk), {"revoke-reason": "leaked"}, follow=True))

    card.refresh_from_db()
    assert (card.state, card.state_reason) == ("revoked", "leaked")
    assert "Sidecars refuse this card" in page
    again = admin.post(url("card-revoke", card.pk), {"revoke-reason": "again"})
    assert (again.status_code, "was revoked before" in text(again)) == (422, False)


def test_grants_of_a_revoked_card_can_be_taken_back(
    admin: Client, card: SkillCard, agent: Agent, actor: Actor
) -> None:
    grant = grant_card(card=card, agent=agent, actor=actor, now=NOW)
    revoke_card(card=card, actor=actor, reason="x", now=NOW)

    admin.post(url("grant-revoke", grant.pk))
    page = text(admin.post(url("grant-revoke", grant.pk), follow=True))

    assert "this grant was revoked before" in page


def test_trust_root_switch(admin: Client, organization: Organization) -> None:
    shipped = TrustRoot.objects.get(organization=None)

    page = text(admin.post(url("trust-root", shipped.pk), {"enabled": "1"}, follow=True))

    assert "is trusted" in page
    assert TrustRoot.objects.get(organization=organization).enabled


def test_requirement_switch(admin: Client, organization: Organization) -> None:
    page = text(admin.post(url("requirement"), {"required": "1", "reason": "policy"}, follow=True))

    organization.refresh_from_db()
    assert organization.requires_skill_cards
    assert "Every call now needs a valid skill card." in page


READS = ["list", "detail", "card", "envelope"]
WRITES = [
    "verify",
    "sign",
    "card-revoke",
    "card-grant",
    "grant-revoke",
    "trust-root",
    "requirement",
    "import",
]


@pytest.fixture
def addresses(card: SkillCard, agent: Agent, actor: Actor) -> dict[str, str]:
    grant = grant_card(card=card, agent=agent, actor=actor, now=NOW)
    skill_pages = {name: url(name, card.skill_id) for name in ("detail", "verify", "sign")}
    card_pages = {
        name: url(name, card.pk) for name in ("card", "envelope", "card-revoke", "card-grant")
    }
    return {
        **skill_pages,
        **card_pages,
        "grant-revoke": url("grant-revoke", grant.pk),
        "trust-root": url("trust-root", TrustRoot.objects.get().pk),
        "list": url("list"),
        "requirement": url("requirement"),
        "import": url("import"),
    }


@pytest.mark.parametrize("name", READS)
def test_viewers_read(viewer: Client, addresses: dict[str, str], name: str) -> None:
    assert viewer.get(addresses[name]).status_code == 200


@pytest.mark.parametrize("name", WRITES)
def test_viewers_do_not_write(viewer: Client, addresses: dict[str, str], name: str) -> None:
    assert viewer.post(addresses[name]).status_code == 403


def test_viewers_see_no_forms(viewer: Client, addresses: dict[str, str]) -> None:
    for name in ("list", "detail", "card"):
        page = text(viewer.get(addresses[name]))
        assert 'action="/skills/' not in page


@pytest.mark.parametrize("name", ["detail", "card", "envelope"])
def test_strangers_find_nothing(foreigner: Client, addresses: dict[str, str], name: str) -> None:
    assert foreigner.get(addresses[name]).status_code == 404


@pytest.mark.parametrize("name", ["verify", "sign", "card-revoke", "card-grant", "grant-revoke"])
def test_strangers_change_nothing(foreigner: Client, addresses: dict[str, str], name: str) -> None:
    assert foreigner.post(addresses[name]).status_code == 404


@pytest.mark.parametrize("name", [*READS, "sign", "import"])
def test_nobody_is_sent_to_sign_in(client: Client, addresses: dict[str, str], name: str) -> None:
    response = client.get(addresses[name])

    assert (response.status_code, response["Location"].split("?")[0]) == (302, "/sign-in/")
