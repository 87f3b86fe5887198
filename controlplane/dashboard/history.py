"""Audit entries as people read them: who did what, and what changed."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.audit.models import AuditEntry
from controlplane.dashboard.formats import exact_amount

SHOWN = 12
ICONS = {
    "create": "plus",
    "change": "pencil",
    "archive": "archive",
    "kill": "octagon-x",
    "pause": "pause",
    "resume": "play",
    "throttle": "gauge",
    "issue": "key-round",
    "revoke": "circle-x",
    "set": "circle-dollar-sign",
    "grant": "badge-check",
    "add": "user",
    "remove": "user",
    "role": "users",
}
VERBS = {
    "create": "created",
    "change": "changed",
    "archive": "archived",
    "kill": "killed",
    "pause": "paused",
    "resume": "resumed",
    "throttle": "throttled",
    "issue": "issued",
    "revoke": "revoked",
    "set": "set",
    "grant": "granted",
    "import": "imported",
    "sign": "signed",
    "add": "added",
    "remove": "removed",
    "enrol": "enrolled",
    "draining": "drained",
    "active": "activated",
    "gone": "removed",
    "label": "labelled",
    "cost": "recorded what an hour costs of",
    "node_refused": "named another's node through",
    "sign_in": "signed in",
    "invite": "made a sign-in link for",
    "password": "set the password of",
}
NAMES = {"agent_key": "a key", "api_token": "an API token", "member": "a member", "price": "a rate"}
HIDDEN = frozenset({"scope_id", "policy_revision", "state_reason"})  # said elsewhere, or no words
FIRST = ("name", "limit_amount", "unit", "mode", "state", "role", "model", "email")
CHANGES_SHOWN = 4
NOTHING: tuple[object, ...] = ("", None, [])


@dataclass(frozen=True)
class Change:
    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Entry:
    """One line of the trail."""

    id: int
    at: datetime
    actor: str
    actor_kind: str
    action: str
    object_kind: str
    object_id: str
    words: str
    icon: str
    reason: str
    changes: list[Change] = field(default_factory=list)

    @property
    def first_changes(self) -> list[Change]:
        return self.changes[:CHANGES_SHOWN]

    @property
    def more_changes(self) -> list[Change]:
        return self.changes[CHANGES_SHOWN:]


def history_of(*, organization_id: UUID, object_kind: str, object_id: UUID) -> list[Entry]:
    """The latest entries about one object, latest first."""
    rows = AuditEntry.objects.filter(
        organization_id=organization_id, object_kind=object_kind, object_id=str(object_id)
    ).order_by("-id")[:SHOWN]
    return [entry_of(row) for row in rows]


def entry_of(row: AuditEntry) -> Entry:
    kind, _, verb = row.action.partition(".")
    words = VERBS.get(verb, verb.replace("_", " "))
    if verb != "sign_in":
        words += f" {NAMES.get(kind, 'the ' + kind)}"
    return Entry(
        id=row.pk,
        at=row.at,
        actor=row.actor_label,
        actor_kind=row.actor_kind,
        action=row.action,
        object_kind=row.object_kind,
        object_id=row.object_id,
        words=words.replace("_", " "),
        icon=ICONS.get(verb, "circle-dot"),
        reason=row.reason,
        changes=_changes(row),
    )


def _changes(row: AuditEntry) -> list[Change]:
    """What differs between before and after; of a new object, what it began with."""
    before, after = row.before or {}, row.after or {}
    unit = str(after.get("unit") or before.get("unit") or "")
    return [
        Change(
            name=name.removesuffix("_amount").replace("_", " "),
            before=_text(name, before.get(name), unit),
            after=_text(name, after.get(name), unit),
        )
        for name in sorted(after, key=_rank)
        if name not in HIDDEN and after[name] != before.get(name) and after[name] not in NOTHING
    ]


def _rank(name: str) -> tuple[int, str]:
    """What people look for first; the rest by name, since the database keeps no order."""
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _text(name: str, value: Any, unit: str) -> str:
    if value in (None, "", []):
        return ""
    if name.endswith("_amount") and isinstance(value, int) and unit:
        return exact_amount(value, unit)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
