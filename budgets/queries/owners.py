"""Teams, projects and agents by name: for people who read ids, and for words that name one."""

from collections.abc import Iterable
from uuid import UUID

from budgets.errors import UsageQueryError
from controlplane.identity.models import Agent, Project, Team

OWNERS = {"team": Team, "project": Project, "agent": Agent}


def names_of(organization_id: UUID, kinds: Iterable[str]) -> dict[str, dict[str, str]]:
    """For each kind of owner among `kinds`: id → name."""
    found = {}
    for kind in kinds:
        if kind in OWNERS:
            rows = OWNERS[kind]._default_manager.filter(  # noqa: SLF001 -- Django's own name
                organization_id=organization_id
            )
            found[kind] = {str(pk): name for pk, name in rows.values_list("id", "name")}
    return found


def value_meant(organization_id: UUID, kind: str, text: str) -> str:
    """What use is told apart by: the id of an owner that is named by id or slug, else the text.

    Raises:
        UsageQueryError: the organization has no such owner.
    """
    if kind not in OWNERS or not text:
        return text
    rows = OWNERS[kind]._default_manager.filter(organization_id=organization_id)  # noqa: SLF001
    try:
        wanted = rows.filter(pk=UUID(text))
    except ValueError:
        wanted = rows.filter(slug=text)
    found = wanted.order_by("pk").values_list("pk", flat=True).first()
    if found is None:
        raise UsageQueryError("filter", f"no {kind} {text!r}")
    return str(found)
