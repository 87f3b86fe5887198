"""Tables of the ledger. What must never be false is held by the database (see README.md)."""

from budgets.models.archive import UsageArchive
from budgets.models.balance import Balance
from budgets.models.budget import Budget, BudgetOverride
from budgets.models.change import BudgetChange
from budgets.models.delegation import Delegation
from budgets.models.lease import Lease
from budgets.models.price import PriceVersion
from budgets.models.pricerule import PriceRule
from budgets.models.rating import Rating
from budgets.models.rejected import RejectedEvent
from budgets.models.rollup import (
    RollupWatermark,
    UnfoldedUse,
    UsageCell,
    UsageRollup,
    UsageValue,
)
from budgets.models.threshold import ApprovalRequest, Notification, ThresholdFiring
from budgets.models.transfer import JournalSeal, LedgerIncarnation, SealHorizon, Transfer
from budgets.models.usage import Refusal, UsageEvent, UsageReceipt

__all__ = [
    "ApprovalRequest",
    "Balance",
    "Budget",
    "BudgetChange",
    "BudgetOverride",
    "Delegation",
    "JournalSeal",
    "Lease",
    "LedgerIncarnation",
    "Notification",
    "PriceRule",
    "PriceVersion",
    "Rating",
    "Refusal",
    "RejectedEvent",
    "RollupWatermark",
    "SealHorizon",
    "ThresholdFiring",
    "Transfer",
    "UnfoldedUse",
    "UsageArchive",
    "UsageCell",
    "UsageEvent",
    "UsageReceipt",
    "UsageRollup",
    "UsageValue",
]
