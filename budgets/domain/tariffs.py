"""The prices that held when calls began: what is booked afterwards pays those of its time."""

from bisect import bisect_right
from collections.abc import Collection
from datetime import datetime
from uuid import UUID

from django.db.models import Q

from budgets.domain.prices import prices_at
from budgets.models import PriceVersion
from enforcement.rules.estimate import price_for
from enforcement.rules.policy import PricePolicy


class Tariffs:
    """An organization's prices of some models from `since` to `now`.

    They are read once for each time between two instants at which any price began or ended.
    """

    def __init__(
        self, organization_id: UUID, *, models: Collection[str], since: datetime, now: datetime
    ) -> None:
        self._organization_id, self._models = organization_id, models
        owners = Q(organization=None) | Q(organization_id=organization_id)
        turns: set[datetime] = set()
        for name in ("valid_from", "valid_to"):
            inside = Q(**{f"{name}__gt": since, f"{name}__lte": now})
            rows = PriceVersion.objects.filter(owners & inside)
            turns.update(rows.values_list(name, flat=True).distinct())
        self._turns = sorted(turns)
        self._known: dict[int, list[PricePolicy]] = {}

    def price(self, *, model: str, provider: str, at: datetime) -> PricePolicy | None:
        """What the model cost then; None if nobody had priced it."""
        place = bisect_right(self._turns, at)
        if place not in self._known:
            rows = prices_at(organization_id=self._organization_id, now=at, models=self._models)
            self._known[place] = [row.to_policy() for row in rows]
        return price_for(self._known[place], model=model, provider=provider)
