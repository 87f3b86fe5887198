"""Reads shared by the API and the dashboard. Amounts are integers in the unit of their budget.

`today` figures come from the events themselves. History comes from the hourly rollups, its ragged
ends and what is not folded yet from the events, so that every page shows the same total.
"""

from budgets.queries.ledger import (
    MAX_POINTS,
    BalanceDetail,
    BurnPoint,
    balance_detail,
    burn_down,
)
from budgets.queries.rows import (
    BudgetRow,
    Risk,
    budget_row,
    budget_rows,
    current_balances,
    nearest,
    risk,
)
from budgets.queries.spending import GROUPINGS, Spend, hourly, spend_by, spend_total
from budgets.queries.stops import Stop, freshness, stops
from budgets.queries.today import Held, Today, day_start, held_now, today
from budgets.queries.tree import ScopeNode, effective_caps, tree

__all__ = [
    "GROUPINGS",
    "MAX_POINTS",
    "BalanceDetail",
    "BudgetRow",
    "BurnPoint",
    "Held",
    "Risk",
    "ScopeNode",
    "Spend",
    "Stop",
    "Today",
    "balance_detail",
    "budget_row",
    "budget_rows",
    "burn_down",
    "current_balances",
    "day_start",
    "effective_caps",
    "freshness",
    "held_now",
    "hourly",
    "nearest",
    "risk",
    "spend_by",
    "spend_total",
    "stops",
    "today",
    "tree",
]
