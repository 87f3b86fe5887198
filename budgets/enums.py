"""Choices of the ledger's columns. What also stands on the wire is taken from there."""

from enum import StrEnum

from django.db import models

from enforcement.rules.ledger import LeaseState as RuleLeaseState
from enforcement.rules.ledger import TransferKind as RuleTransferKind


def choices_of(enum: type[StrEnum]) -> list[tuple[str, str]]:
    """Django choices of a wire enum, so that a value is spelled in one place only."""
    return [(member.value, member.value.replace("_", " ")) for member in enum]


class BudgetState(models.TextChoices):
    """A new or narrowed hard budget is arming until every book has learned of it (L12)."""

    ARMING = "arming"
    ARMED = "armed"


class WindowKind(models.TextChoices):
    LIFETIME = "lifetime"
    CALENDAR = "calendar"
    UNTIL = "until"  # never begins anew, and ends
    ROLLING = "rolling"  # the last so many seconds


class Period(models.TextChoices):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class Rollover(models.TextChoices):
    """What becomes of the part of a window's limit that was not used."""

    NONE = "none"
    CAPPED = "capped"  # the next window has it too, up to an amount
    ALL = "all"


class ChangeKind(models.TextChoices):
    LIMIT = "limit"  # the limit becomes `amount`
    INCREASE = "increase"  # the limit is `amount` higher until the change ends


class ChangeState(models.TextChoices):
    PENDING = "pending"
    ACTIVE = "active"
    DONE = "done"
    CANCELLED = "cancelled"


class DelegationState(models.TextChoices):
    OPEN = "open"
    CLOSING = "closing"  # nothing more is granted; what is out comes home
    CLOSED = "closed"


class ApprovalState(models.TextChoices):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"


class PriceMatch(models.TextChoices):
    EXACT = "exact"
    PREFIX = "prefix"


class PriceRuleKind(models.TextChoices):
    """How rates follow from others."""

    ALIAS = "alias"  # a name costs what another costs
    DISCOUNT = "discount"  # a share less than the catalogue says


LEASE_STATES = [*(state.value for state in RuleLeaseState), "recalled"]
LIVE_LEASE_STATES = ["granted", "recalled", "suspended"]
TERMINAL_LEASE_STATES = ["settled", "written_off"]

LIMIT_TRANSFER = "limit"  # not a movement: "from here on the limit is this amount"
TRANSFER_KINDS = [*(kind.value for kind in RuleTransferKind), LIMIT_TRANSFER]
WITHOUT_LEASE = [
    "overrun",
    "usage",
    "correction",
    "recharge",
    "age",
    "age_overrun",
    "carry_out",
    "carry_in",
    "delegate",
    "come_home",
    "child_spent",
    LIMIT_TRANSFER,
]
