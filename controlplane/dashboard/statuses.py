"""Every state that a page shows: its words, its icon and its tone. Never a colour alone."""

from typing import NamedTuple


class Status(NamedTuple):
    label: str
    tone: str  # ok, info, warn, bad, idle: a class of badge.css
    icon: str  # a symbol of the sprite


AGENT = {
    "active": Status("Active", "ok", "circle-check"),
    "throttled": Status("Throttled", "warn", "gauge"),
    "paused": Status("Paused", "warn", "pause"),
    "killed": Status("Killed", "bad", "octagon-x"),
    "retired": Status("Retired", "idle", "archive"),
}
MODE = {
    "hard": Status("Hard", "info", "lock"),
    "soft": Status("Soft", "idle", "mail"),
    "observe": Status("Observe", "idle", "search"),
}
BUDGET = {
    "arming": Status("Arming", "warn", "hourglass"),
    "armed": Status("Armed", "ok", "shield-check"),
    "archived": Status("Archived", "idle", "archive"),
}
OUTCOME = {
    "completed": Status("Completed", "ok", "circle-check"),
    "clamped": Status("Clamped", "info", "scissors"),
    "cut": Status("Cut", "warn", "scissors"),
    "killed": Status("Killed", "bad", "octagon-x"),
    "client_gone": Status("Client left", "idle", "unplug"),
    "upstream_failed": Status("Engine failed", "bad", "circle-alert"),
    "refused": Status("Refused", "bad", "ban"),
}
LEASE = {
    "granted": Status("Live", "ok", "circle-dot"),
    "recalled": Status("Recalled", "info", "arrow-right"),
    "suspended": Status("Suspense", "warn", "hourglass"),
    "settled": Status("Settled", "idle", "check"),
    "written_off": Status("Written off", "bad", "circle-slash"),
}
NODE = {
    "active": Status("Active", "ok", "circle-check"),
    "draining": Status("Draining", "warn", "hourglass"),
    "gone": Status("Gone", "idle", "unplug"),
    "away": Status("Away", "idle", "hourglass"),
    "failing": Status("Not answering", "bad", "circle-alert"),
    "unscraped": Status("Not read yet", "idle", "circle-dashed"),
}
VERDICT = {
    "agrees": Status("Agrees", "ok", "circle-check"),
    "shifted": Status("Shifted", "ok", "arrow-right"),
    "drifts": Status("Drifts", "bad", "triangle-alert"),
    "unknown": Status("Not known", "idle", "circle-question-mark"),
    "alone": Status("Only metered", "idle", "circle-dashed"),
}
BILL = {
    "current": Status("Current", "ok", "circle-check"),
    "failing": Status("Not told", "bad", "circle-alert"),
    "waiting": Status("Not asked yet", "idle", "circle-dashed"),
}
LINK = {
    "online": Status("Online", "ok", "radio"),
    "late": Status("Late", "warn", "hourglass"),
    "offline": Status("Offline", "bad", "unplug"),
    "never": Status("Never seen", "idle", "circle-dashed"),
}
KEY = {
    "live": Status("Live", "ok", "circle-check"),
    "expired": Status("Expired", "idle", "clock"),
    "revoked": Status("Revoked", "bad", "circle-x"),
}
RECEIPT = {
    "waiting": Status("Waiting", "warn", "hourglass"),
    "acknowledged": Status("Acknowledged", "ok", "circle-check"),
}
ORDER = {
    "kill": Status("Kill", "bad", "octagon-x"),
    "pause": Status("Pause", "warn", "pause"),
    "resume": Status("Resume", "ok", "play"),
    "throttle": Status("Throttle", "warn", "gauge"),
}
CARD = {
    "valid": Status("Valid", "ok", "badge-check"),
    "verified": Status("Verified", "ok", "badge-check"),
    "unsigned": Status("Unsigned", "warn", "shield-alert"),
    "not_yet_valid": Status("Not yet valid", "warn", "calendar-clock"),
    "expired": Status("Expired", "warn", "calendar-clock"),
    "revoked": Status("Revoked", "bad", "shield-x"),
    "rolled_back": Status("Rolled back", "bad", "shield-x"),
    "signature_invalid": Status("Signature broken", "bad", "shield-x"),
    "unknown_key": Status("Unknown key", "bad", "shield-alert"),
    "malformed": Status("Malformed", "bad", "shield-x"),
    "live": Status("Live", "ok", "circle-check"),
}
FAMILIES = {
    "agent": AGENT,
    "mode": MODE,
    "budget": BUDGET,
    "outcome": OUTCOME,
    "lease": LEASE,
    "node": NODE,
    "verdict": VERDICT,
    "bill": BILL,
    "link": LINK,
    "key": KEY,
    "receipt": RECEIPT,
    "order": ORDER,
    "card": CARD,
}


def status(family: str, value: str) -> Status:
    """The words of a state; one that no table knows is shown as it is, in no colour."""
    known = FAMILIES[family].get(value)
    return known or Status(value.replace("_", " ").capitalize(), "idle", "circle-dot")
