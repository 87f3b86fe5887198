"""What base.html needs on every page."""

from typing import Any, NamedTuple, cast

from django.http import HttpRequest
from django.urls import reverse

from controlplane.dashboard.web import PageRequest

THEMES = ("light", "dark")


class Link(NamedTuple):
    section: str
    label: str
    icon: str
    url_name: str

    @property
    def url(self) -> str:
        return reverse(self.url_name)


class Group(NamedTuple):
    title: str
    links: tuple[Link, ...]


NAVIGATION = (
    Group("", (Link("overview", "Overview", "layout-dashboard", "overview"),)),
    Group(
        "Spend",
        (
            Link("budgets", "Budgets", "wallet", "budgets:list"),
            Link("alerts", "Alerts", "circle-alert", "budgets:alerts"),
            Link("usage", "Usage", "table", "budgets:usage"),
            Link("prices", "Prices", "circle-dollar-sign", "budgets:prices"),
        ),
    ),
    Group(
        "Fleet",
        (
            Link("agents", "Agents", "bot", "enforcement:agents"),
            Link("skills", "Skill cards", "badge-check", "skills:list"),
            Link("nodes", "Nodes", "server", "enforcement:nodes"),
            Link("efficiency", "Efficiency", "gauge", "enforcement:efficiency"),
            Link("reconciliation", "Reconciliation", "layers", "enforcement:reconciliation"),
        ),
    ),
    Group(
        "Record",
        (
            Link("audit", "Audit trail", "scroll-text", "audit"),
            Link("tasks", "Background work", "activity", "duties:tasks"),
            Link("settings", "Settings", "settings", "settings"),
        ),
    ),
)


def page(request: HttpRequest) -> dict[str, Any]:
    """A context processor: the frame's theme, and for members their organization and role."""
    theme = request.COOKIES.get("theme", "")
    common = {
        "theme": theme if theme in THEMES else "",
        "csp_nonce": getattr(request, "csp_nonce", None),
    }
    if not hasattr(request, "membership"):
        return common
    asked = cast("PageRequest", request)
    return {
        **common,
        "navigation": NAVIGATION,
        "organization": asked.organization,
        "role": asked.membership.role,
        "person_name": asked.person.name or asked.person.email,
        "may_write": asked.may_write,
        "now": asked.now,
    }
