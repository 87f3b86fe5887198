"""Charges as FOCUS cost and usage rows, versions 1.3 and 1.4 (https://focus.finops.org).

A row is what one agent used in one hour (UTC) of one model, at one price version, at one node, in
one service tier, for one skill. Corrections by later ratings are rows of their own. Everything is
read hour by hour and told a thousand rows at a time, so that it takes as much memory for a year as
for a day.

Costs are what the ledger charged, exact to the nano-dollar. We know one rate for each of several
kinds of tokens and round once for each call, so there is no single unit price: the price version
stands in `x_PriceVersionId`, the tokens by kind beside it, and the columns that would make a
quantity times a price out of them are null, as the specification wants it where `SkuPriceId` is.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

import msgspec
from django.db import connection

from budgets.queries.owners import names_of
from controlplane.identity.models import Organization
from enforcement.rules.money import usd_text

HOUR = timedelta(hours=1)
ROWS_AT_ONCE = 1_000  # a row is 100 bytes as it is read, and 5 KB on its way to a file
SERVICE = "Comptroller"
SELF_HOSTED = "self-hosted"


class Version(StrEnum):
    FOCUS_1_3 = "focus-1.3"
    FOCUS_1_4 = "focus-1.4"


_COST = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
_COMMON = (
    *_COST,
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ConsumedQuantity",
    "ConsumedUnit",
    "HostProviderName",
    "InvoiceIssuerName",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
)
_OURS = (
    "x_TeamId",
    "x_AgentId",
    "x_Model",
    "x_NodeId",
    "x_Skill",
    "x_ServiceTier",
    "x_PriceVersionId",
    "x_Calls",
    "x_InputTokens",
    "x_CachedInputTokens",
    "x_CacheWriteTokens",
    "x_OutputTokens",
    "x_ReasoningTokens",
)
# 1.4 has removed what 1.3 only deprecates.
COLUMNS = {
    Version.FOCUS_1_3: (*_COMMON, "ProviderName", "PublisherName", *_OURS),
    Version.FOCUS_1_4: (*_COMMON, *_OURS),
}
_KEY = (
    "{0}.team_id, {0}.project_id, {0}.agent_id, {0}.model, {0}.provider, {0}.node, {0}.skill,"
    " {0}.service_tier"
)
_TOKENS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
_HOUR = f"""
SELECT false, {_KEY.format("e")}, e.price_version_id, sum(e.charge_nanos), count(*),
    {", ".join(f"sum(e.{name})" for name in _TOKENS)}
FROM budgets_usageevent e
WHERE e.organization_id = %(organization)s AND e.started_at >= %(start)s AND e.started_at < %(end)s
GROUP BY {_KEY.format("e")}, e.price_version_id
UNION ALL
SELECT true, {_KEY.format("e")}, r.price_version_id, sum(r.charge_nanos - r.old_charge_nanos), 0,
    0, 0, 0, 0, 0
FROM budgets_rating r JOIN budgets_usageevent e
    ON e.id = r.usage_event_id AND e.started_at = r.started_at
WHERE r.organization_id = %(organization)s AND r.started_at >= %(start)s AND r.started_at < %(end)s
    AND e.started_at >= %(start)s AND e.started_at < %(end)s
GROUP BY {_KEY.format("e")}, r.price_version_id
ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
"""  # noqa: S608 -- names of ours alone


def hours_of(
    organization: Organization, since: date, until: date, version: Version
) -> Iterator[list[tuple[object, ...]]]:
    """The rows of `COLUMNS[version]` for days `[since, until)`, in lists of some of one hour.

    Costs are decimal strings of dollars, quantities whole numbers, instants ISO 8601 in UTC.
    """
    names = names_of(organization.id, ("team", "project", "agent"))
    start, end = (datetime.combine(day, time.min, UTC) for day in (since, until))
    while start < end:
        with connection.cursor() as cursor:
            cursor.execute(
                _HOUR, {"organization": organization.id, "start": start, "end": start + HOUR}
            )
            found = cursor.fetchall()
        used = [one for one in found if one[10] or one[11]]
        for first in range(0, len(used), ROWS_AT_ONCE):
            some = used[first : first + ROWS_AT_ONCE]
            rows = (_row(organization, names, start, one) for one in some)
            yield [tuple(row[name] for name in COLUMNS[version]) for row in rows]
        start += HOUR


def _row(
    organization: Organization,
    names: dict[str, dict[str, str]],
    start: datetime,
    found: tuple[Any, ...],
) -> dict[str, object]:
    corrects, team, project, agent, model, provider, node, skill, tier, price, nanos, *sums = found
    cost = usd_text(int(nanos))
    calls, *tokens = (int(amount) for amount in sums)
    vendor = provider or SELF_HOSTED
    account = ("project", project) if project else ("team", team)
    words = f"{calls} calls of {model}" if not corrects else f"Calls of {model}, charged again"
    return {
        **dict.fromkeys(_COST, cost),
        **_period(start),
        "BillingAccountId": str(organization.id),
        "BillingAccountName": organization.name,
        "BillingAccountType": "Organization",
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeClass": "Correction" if corrects else None,
        "ChargeDescription": words,
        "ChargeFrequency": "Usage-Based",
        **dict.fromkeys(("ConsumedQuantity", "ConsumedUnit"), None),
        **dict.fromkeys(("PricingCategory", "PricingQuantity", "PricingUnit"), None),
        **dict.fromkeys(("SkuMeter", "SkuPriceId"), None),
        **dict.fromkeys(("ServiceProviderName", "HostProviderName", "InvoiceIssuerName"), vendor),
        **dict.fromkeys(("ProviderName", "PublisherName"), vendor),
        "ResourceId": str(agent),
        "ResourceName": names["agent"].get(str(agent)),
        "ResourceType": "Agent",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": SERVICE,
        "SkuId": model,
        "SubAccountId": str(account[1]) if account[1] else None,
        "SubAccountName": names[account[0]].get(str(account[1])),
        "SubAccountType": account[0].title() if account[1] else None,
        "Tags": msgspec.json.encode({"node": node, "skill": skill}).decode(),
        "x_TeamId": str(team) if team else None,
        "x_AgentId": str(agent),
        "x_Model": model,
        "x_NodeId": node,
        "x_Skill": skill,
        "x_ServiceTier": tier,
        "x_PriceVersionId": str(price) if price else None,
        "x_Calls": calls,
        **dict(zip(_OURS[-5:], tokens, strict=True)),
    }


def _period(start: datetime) -> dict[str, str]:
    """The hour of a charge, and the calendar month that it is billed in."""
    month = start.replace(day=1, hour=0)
    after = (month + timedelta(days=32)).replace(day=1)
    return {
        "ChargePeriodStart": _instant(start),
        "ChargePeriodEnd": _instant(start + HOUR),
        "BillingPeriodStart": _instant(month),
        "BillingPeriodEnd": _instant(after),
    }


def _instant(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
