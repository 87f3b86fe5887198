"""People decide whether a balance may have more.

An approval raises the limit of one balance, for its window; the next window begins with the limit
of its budget. For a raise of the whole budget, for a while, see `budgets.domain.changes`.
"""

from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q

from budgets.domain import locks
from budgets.domain.checks import MAX_AMOUNT, check_amount
from budgets.domain.notifications import notify
from budgets.enums import LIMIT_TRANSFER, ApprovalState
from budgets.errors import ApprovalClosedError, ApprovalNotFoundError, BudgetValidationError
from budgets.models import ApprovalRequest, Balance, Transfer
from controlplane.audit.domain import Actor, record

USUAL_SHARE = 5  # without an amount, a fifth of the limit is asked for
WINDOW_OVER = "its window is over"


def ask_approval(
    balance: Balance, *, amount: int, reason: str, now: datetime
) -> ApprovalRequest | None:
    """Ask people for more; None if that question is open already. Within a transaction."""
    pending = ApprovalRequest.objects.filter(balance=balance, state=ApprovalState.PENDING)
    if pending.exists():
        return None
    asked = ApprovalRequest.objects.create(
        organization_id=balance.organization_id,
        budget_id=balance.budget_id,
        balance=balance,
        amount=amount or max(1, balance.limit_amount // USUAL_SHARE),
        reason=reason[:500],
        asked_at=now,
    )
    notify(
        organization_id=balance.organization_id,
        title=f"Approval asked: more for {balance.budget.name}",
        body=reason,
        budget=balance.budget,
        now=now,
    )
    return asked


@transaction.atomic
def approve(
    *,
    organization_id: UUID,
    approval_id: UUID,
    amount: int | None,
    actor: Actor,
    reason: str,
    now: datetime,
) -> ApprovalRequest:
    """Give what was asked for, or another amount.

    Raises:
        ApprovalNotFoundError, ApprovalClosedError: there is nothing to decide.
        BudgetValidationError: no reason, or an amount that cannot be.
    """
    locks.lock_budgets(organization_id)
    asked = _pending(organization_id, approval_id, now=now)
    given = asked.amount if amount is None else amount
    balance = Balance.objects.select_for_update(no_key=True).get(id=asked.balance_id)
    most = MAX_AMOUNT - balance.limit_amount
    check_amount("amount", given, most=most, unit=balance.budget.unit)
    before = balance.limit_amount
    balance.limit_amount += given
    balance.approved_amount += given
    balance.cap_amount = max(balance.limit_amount, balance.committed_amount)
    balance.updated_at = now
    balance.save(update_fields=["limit_amount", "approved_amount", "cap_amount", "updated_at"])
    asked.amount = given
    _decide(asked, ApprovalState.APPROVED, actor=actor, reason=reason, now=now)
    Transfer.objects.create(
        organization_id=organization_id,
        balance=balance,
        kind=LIMIT_TRANSFER,
        amount=balance.limit_amount,
        at=now,
        actor=actor.label,
        reason=reason.strip(),
    )
    _record(asked, actor=actor, reason=reason, now=now, before=before, after=balance.limit_amount)
    return asked


@transaction.atomic
def deny_approval(
    *, organization_id: UUID, approval_id: UUID, actor: Actor, reason: str, now: datetime
) -> ApprovalRequest:
    """Give nothing.

    Raises:
        ApprovalNotFoundError, ApprovalClosedError, BudgetValidationError: as `approve`.
    """
    asked = _pending(organization_id, approval_id, now=now)
    _decide(asked, ApprovalState.DENIED, actor=actor, reason=reason, now=now)
    limit = asked.balance.limit_amount
    _record(asked, actor=actor, reason=reason, now=now, before=limit, after=limit)
    return asked


def expire_approvals(*, now: datetime) -> int:
    """Close questions whose window is over, or whose budget is. How many it were."""
    over = ApprovalRequest.objects.filter(
        Q(balance__window_end__lte=now) | Q(budget__archived_at__isnull=False),
        state=ApprovalState.PENDING,
    )
    return over.update(
        state=ApprovalState.EXPIRED, decided_at=now, decided_by="system", decision=WINDOW_OVER
    )


def _pending(organization_id: UUID, approval_id: UUID, *, now: datetime) -> ApprovalRequest:
    asked = (
        ApprovalRequest.objects.select_for_update(of=("self",))
        .select_related("budget", "balance")
        .filter(organization_id=organization_id, id=approval_id)
        .first()
    )
    if asked is None:
        raise ApprovalNotFoundError(f"no approval {approval_id}")
    if asked.state != ApprovalState.PENDING:
        raise ApprovalClosedError(f"it was {asked.state} already, by {asked.decided_by}")
    end = asked.balance.window_end
    if asked.budget.archived_at is not None or (end is not None and end <= now):
        raise ApprovalClosedError(WINDOW_OVER)
    return asked


def _decide(
    asked: ApprovalRequest, state: ApprovalState, *, actor: Actor, reason: str, now: datetime
) -> None:
    if not reason.strip():
        raise BudgetValidationError("reason", "say why: it is kept in the audit trail")
    asked.state, asked.decided_at = state, now
    asked.decided_by, asked.decision = actor.label, reason.strip()
    asked.save(update_fields=["amount", "state", "decided_at", "decided_by", "decision"])


def _record(
    asked: ApprovalRequest,
    *,
    actor: Actor,
    reason: str,
    now: datetime,
    before: int,
    after: int,
) -> None:
    record(
        organization_id=asked.organization_id,
        actor=actor,
        action=f"budget.approval_{asked.state}",
        object_kind="budget",
        object_id=str(asked.budget_id),
        reason=reason,
        before={"limit_amount": before},
        after={"limit_amount": after, "approval": str(asked.id), "value": asked.balance.value},
        now=now,
    )
