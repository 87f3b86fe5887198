"""Finding what people name."""

from uuid import UUID

from controlplane.identity.models import Agent, Organization


def find_agent(organization_id: UUID, name: str) -> Agent | None:
    """The agent with this id or slug; None when the organization has none that still lives."""
    rows = Agent.objects.select_related("project").filter(
        organization_id=organization_id, retired_at__isnull=True
    )
    try:
        return rows.filter(pk=UUID(name)).first()
    except ValueError:
        return rows.filter(slug=name).first()


def find_organization(slug: str) -> Organization | None:
    """The organization with this slug; without one, the only one there is."""
    if slug:
        return Organization.objects.filter(slug=slug).first()
    found = list(Organization.objects.all()[:2])
    return found[0] if len(found) == 1 else None
