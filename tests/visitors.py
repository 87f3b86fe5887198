"""People in front of the dashboard, always in the same roles."""

from dataclasses import dataclass

from django.test import Client
from django.utils import timezone

from controlplane.audit.domain import Actor
from controlplane.identity.domain import add_member
from controlplane.identity.enums import Role
from controlplane.identity.models import Organization

SYSTEM = Actor.system("tests")


@dataclass(frozen=True)
class Visitors:
    """An owner, an admin and a viewer of the organization; the owner of another; nobody."""

    owner: Client
    admin: Client
    viewer: Client
    stranger: Client
    nobody: Client


def make_visitors(organization: Organization) -> Visitors:
    other = Organization.objects.create(slug="other", name="Other", created_at=timezone.now())
    return Visitors(
        owner=visitor(organization, Role.OWNER),
        admin=visitor(organization, Role.ADMIN),
        viewer=visitor(organization, Role.VIEWER),
        stranger=visitor(other, Role.OWNER),
        nobody=Client(),
    )


def visitor(organization: Organization, role: Role) -> Client:
    membership = add_member(
        organization_id=organization.id,
        email=f"{role.value}@{organization.slug}.example",
        name=f"{organization.slug} {role.value}".title(),
        role=role,
        actor=SYSTEM,
        now=timezone.now(),
    )
    client = Client()
    client.force_login(membership.person)
    return client
