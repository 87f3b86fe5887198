"""A small company with a day behind it, for pictures and for tests of whole pages.

Everything goes through the domain functions; only what sidecars and engines would say about
themselves (spools, leases, samples, receipts) is written as rows. The same seed, the same day.
"""

from datetime import datetime

from budgets.domain.budgets import arm_budgets
from budgets.domain.priceimport import import_catalogue
from budgets.domain.rollups import fold_usage
from tests.e2e.sample_company import EMAIL, PASSWORD, Sample, make_calls, make_company
from tests.e2e.sample_fleet import keep_alive, kill_runaway, make_fleet

__all__ = ["EMAIL", "PASSWORD", "Sample", "keep_alive", "make_sample"]


def make_sample(*, now: datetime, calls: bool = True) -> Sample:
    """The company, with or without its day of calls."""
    sample = make_company(now=now)
    if calls:
        import_catalogue(now=now)
        make_calls(sample)
        make_fleet(sample)
        kill_runaway(sample)
    sample.organization.refresh_from_db()
    arm_budgets(
        organization_id=sample.organization.id,
        revision=sample.organization.policy_revision,
        now=now,
    )
    fold_usage(now=now)
    return sample
