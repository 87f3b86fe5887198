"""Tables of sidecars, serving nodes, orders and bills."""

from enforcement.models.bills import (
    BillAccount,
    BillLine,
    Reconciliation,
)
from enforcement.models.nodes import (
    MOST_PATIENCE_S,
    DeviceSample,
    NodeActivity,
    NodeCost,
    NodeSample,
    NodeUsage,
    ReadingCount,
    ServingNode,
    Sidecar,
    Spool,
)
from enforcement.models.orders import (
    Order,
    OrderAcknowledgement,
    StoppedSession,
)

__all__ = [
    "MOST_PATIENCE_S",
    "BillAccount",
    "BillLine",
    "DeviceSample",
    "NodeActivity",
    "NodeCost",
    "NodeSample",
    "NodeUsage",
    "Order",
    "OrderAcknowledgement",
    "ReadingCount",
    "Reconciliation",
    "ServingNode",
    "Sidecar",
    "Spool",
    "StoppedSession",
]
