"""Ask for bills once a day. What is due stands in the database, the keys in the environment."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from controlplane.audit.domain import Actor
from controlplane.env import SettingError, env_secret
from controlplane.identity.queries import find_organization
from enforcement.domain.bills.fetching import SOURCES, fetch_bill
from enforcement.domain.bills.storing import keep_bill
from enforcement.errors import BillError
from enforcement.models import BillAccount
from enforcement.rules.billplan import BillPlan, asked_since, next_day, pause_after

LONGEST_S = 120.0  # for all pages of one account
UNENDED = "began, and did not end"
_ACTOR = Actor.system("timer")


def fetch_due(*, now: datetime) -> BillAccount | None:
    """Ask for the bill that has been due for longest, of `COMPTROLLER_BILLS`; which, if any.

    What goes wrong with it is written down, and it is due again after a pause.

    Raises BillError: COMPTROLLER_BILLS_ORGANIZATION names no organization.
    """
    plans = {(plan.provider, plan.account): plan for plan in settings.BILLS}
    organization = find_organization(settings.BILLS_ORGANIZATION) if plans else None
    if plans and organization is None:
        raise BillError("COMPTROLLER_BILLS_ORGANIZATION names no organization")
    _know(organization.id if organization else None, settings.BILLS, now)
    row = _claim(now)
    if row is None:
        return None
    try:
        _ask(row, plans[row.provider, row.account], now)
    except (BillError, SettingError) as error:
        BillAccount.objects.filter(pk=row.pk).update(error=str(error)[:300])
    return row


def _know(organization_id: UUID | None, plans: Sequence[BillPlan], now: datetime) -> None:
    """A row for each account that is configured, and no other."""
    rows = BillAccount.objects.all()
    named = Q(pk__in=[])
    for plan in plans:
        named |= Q(organization_id=organization_id, provider=plan.provider, account=plan.account)
    rows.exclude(named).delete()
    if rows.count() < len(plans) and organization_id is not None:
        missing = [
            BillAccount(
                organization_id=organization_id,
                provider=plan.provider,
                account=plan.account,
                due_at=now,
                created_at=now,
            )
            for plan in plans
        ]
        BillAccount.objects.bulk_create(missing, ignore_conflicts=True)


@transaction.atomic
def _claim(now: datetime) -> BillAccount | None:
    """The attempt counts from here on, however it ends; nobody else makes it."""
    due = BillAccount.objects.select_for_update(skip_locked=True).filter(due_at__lte=now)
    row = due.order_by("due_at", "pk").first()
    if row is None:
        return None
    row.attempts += 1
    row.asked_at, row.due_at, row.error = now, now + pause_after(row.attempts), UNENDED
    row.save(update_fields=["attempts", "asked_at", "due_at", "error"])
    return row


def _ask(row: BillAccount, plan: BillPlan, now: datetime) -> None:
    key = env_secret(plan.key_variable)
    if not key:
        raise BillError(f"{plan.key_variable} is not set")
    source = SOURCES[plan.provider]
    lines = fetch_bill(
        source,
        key=key,
        since=asked_since(row.succeeded_at, now=now),
        until=now.replace(minute=0, second=0, microsecond=0),
        base_url=plan.base_url,
        longest_s=LONGEST_S,
    )
    with transaction.atomic():
        if lines:
            keep_bill(
                organization_id=row.organization_id,
                lines=lines,
                account=plan.account,
                source=plan.base_url or source.base_url,
                actor=_ACTOR,
                now=now,
            )
        BillAccount.objects.filter(pk=row.pk).update(
            attempts=0, error="", succeeded_at=now, due_at=next_day(plan, now=now)
        )
