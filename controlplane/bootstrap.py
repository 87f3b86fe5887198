"""What `comptroller up` does inside Django, in one process that ends: migrate, and an example.

    python -m controlplane.bootstrap --migrate --need agent-key --need sidecar-token

Prints one JSON document for the launcher. Running it again changes nothing but what is needed: a
new one-time sign-in link each time, new secrets only where the launcher has lost the old ones.
"""

import argparse
import json
import os
import socket
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controlplane.audit.domain import Actor
    from controlplane.identity.models import Agent, Organization, Person

ORGANIZATION = "example"
AGENT = "assistant"
OWNER_EMAIL = "owner@example.com"
TOKENS_PER_DAY = 1_000_000
NANOS_PER_MONTH = 100 * 1_000_000_000
MIGRATION_LOCK = 0x636F6D7074  # any constant that nobody else takes
API_SCOPES = ("read", "agents:write", "budgets:write", "cards:write", "kill", "prices:write")


def main() -> None:
    parser = argparse.ArgumentParser(description="Migrate and make the example organization.")
    parser.add_argument("--migrate", action="store_true")
    parser.add_argument("--need", action="append", default=[], choices=sorted(_ISSUERS))
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    import django

    django.setup()
    if arguments.migrate:
        migrate()
    json.dump(prepare(arguments.need), sys.stdout)


def migrate() -> None:
    """Bring the database up to date; a second start on the same database waits its turn."""
    from django.core.management import call_command
    from django.db import connection
    from django.utils import timezone

    from budgets.domain.priceimport import import_catalogue

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATION_LOCK])
        call_command("migrate", interactive=False, verbosity=1, stdout=sys.stderr)
        call_command("check", databases=["default"], stdout=sys.stderr, stderr=sys.stderr)
        cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATION_LOCK])
    for one in import_catalogue(now=timezone.now()).held:
        sys.stderr.write(f"price of {one.key.name} held back: {one.jumps[0]}\n")


def prepare(needs: list[str]) -> dict[str, Any]:
    """The example organization as it must be, and the secrets that the launcher asks for."""
    from django.db import transaction
    from django.utils import timezone

    from controlplane.audit.domain import Actor
    from controlplane.identity.domain import make_sign_in_link

    now, actor = timezone.now(), Actor.system("bootstrap")
    with transaction.atomic():
        organization = _organization(actor=actor, now=now)
        owner = _owner(organization, actor=actor, now=now)
        agent = _agent(organization, owner, actor=actor, now=now)
        issued = {name: _ISSUERS[name](organization, agent, actor, now) for name in needs}
        link = make_sign_in_link(person_id=owner.pk, now=now)
    return {
        "organization": organization.slug,
        "agent": agent.slug,
        "sign_in_path": _sign_in_path(link),
        "secrets": issued,
    }


def _organization(*, actor: "Actor", now: datetime) -> "Organization":
    from controlplane.identity.domain.organizations import create_organization
    from controlplane.identity.models import Organization

    existing = Organization.objects.filter(slug=ORGANIZATION).first()
    return existing or create_organization(slug=ORGANIZATION, name="Example", actor=actor, now=now)


def _owner(organization: "Organization", *, actor: "Actor", now: datetime) -> "Person":
    from controlplane.identity.domain.people import add_member
    from controlplane.identity.enums import Role

    membership = add_member(
        organization_id=organization.pk,
        email=OWNER_EMAIL,
        name="Example owner",
        role=Role.OWNER,
        actor=actor,
        now=now,
    )
    return membership.person


def _agent(
    organization: "Organization", owner: "Person", *, actor: "Actor", now: datetime
) -> "Agent":
    """The first agent, below a team and a project, with its budgets."""
    from controlplane.identity.domain.agents import create_agent
    from controlplane.identity.domain.organizations import create_project, create_team
    from controlplane.identity.models import Agent

    existing = Agent.objects.filter(organization=organization, slug=AGENT).first()
    if existing is not None:
        return existing
    common: dict[str, Any] = {"organization_id": organization.pk, "actor": actor, "now": now}
    team = create_team(slug="research", name="Research", **common)
    project = create_project(slug="assistants", name="Assistants", team_id=team.pk, **common)
    agent = create_agent(
        slug=AGENT,
        name="Assistant",
        team_id=team.pk,
        project_id=project.pk,
        owner_id=owner.pk,
        **common,
    )
    _budgets(organization, agent, actor=actor, now=now)
    return agent


def _budgets(
    organization: "Organization", agent: "Agent", *, actor: "Actor", now: datetime
) -> None:
    """A hard cap in tokens, which needs no price, and a soft one in dollars."""
    from budgets.domain.budgets import BudgetSpec, create_budget
    from budgets.enums import WindowKind
    from enforcement.rules.policy import Mode, ScopeKind, Unit

    tokens = BudgetSpec(
        name="Assistant: tokens a day",
        scope_kind=ScopeKind.AGENT,
        scope_id=agent.pk,
        unit=Unit.TOKENS,
        limit_amount=TOKENS_PER_DAY,
        window_kind=WindowKind.CALENDAR,
        period="day",
    )
    dollars = BudgetSpec(
        name="Example: dollars a month",
        scope_kind=ScopeKind.ORGANIZATION,
        scope_id=organization.pk,
        unit=Unit.USD,
        limit_amount=NANOS_PER_MONTH,
        mode=Mode.SOFT,
        window_kind=WindowKind.CALENDAR,
        period="month",
    )
    for spec in (tokens, dollars):
        create_budget(organization_id=organization.pk, spec=spec, actor=actor, now=now)


def _agent_key(organization: "Organization", agent: "Agent", actor: "Actor", now: datetime) -> str:
    from controlplane.identity.domain.credentials import issue_agent_key

    return issue_agent_key(
        organization_id=organization.pk,
        agent_id=agent.pk,
        name="from the first start",
        actor=actor,
        now=now,
    ).secret


def _sidecar_token(
    organization: "Organization", _agent: "Agent", actor: "Actor", now: datetime
) -> str:
    """A new sidecar: one whose token was lost cannot be had again, so its name stays taken."""
    from enforcement.domain.enrolment import enrol_sidecar
    from enforcement.models import Sidecar

    host = socket.gethostname()[:60]
    taken = Sidecar.objects.filter(organization=organization, name__startswith=host).count()
    return enrol_sidecar(
        organization_id=organization.pk,
        name=f"{host}-{taken + 1}" if taken else host,
        actor=actor,
        now=now,
    ).secret


def _sign_in_path(secret: str) -> str:
    from django.urls import reverse

    return reverse("sign-in-link", args=[secret])


_ISSUERS = {"agent-key": _agent_key, "sidecar-token": _sidecar_token}

if __name__ == "__main__":
    main()
