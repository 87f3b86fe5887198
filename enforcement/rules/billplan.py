"""Whose bills are asked for by themselves, and when. Pure.

Once a day, some time after the day of UTC is over; after a failure sooner, then later each time. An
attempt counts before it is made, so that one which never ends is followed by a pause as well.
"""

import hashlib
import re
from datetime import datetime, timedelta
from typing import NamedTuple

SETTING = "COMPTROLLER_BILLS"
PROVIDERS = ("openai", "anthropic")
MIDNIGHT_IS_OVER = timedelta(hours=1)  # providers book the last calls of a day a little later
SPREAD = timedelta(hours=2)  # not all accounts at once
FIRST_PAUSE, LONGEST_PAUSE = timedelta(minutes=15), timedelta(hours=12)
USUAL_DAYS, MOST_DAYS = 3, 31
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_DAY = timedelta(days=1)


class BillPlan(NamedTuple):
    """An account whose bill is asked for. `base_url`: a gateway in front of the provider."""

    provider: str
    account: str = ""
    base_url: str = ""

    @property
    def key_variable(self) -> str:
        """What names the administrator's key in the environment."""
        suffix = f"_{self.account.upper().replace('-', '_')}" if self.account else ""
        return f"COMPTROLLER_{self.provider.upper()}_ADMIN_KEY{suffix}"


def bill_plans(text: str) -> tuple[BillPlan, ...]:
    """Read `openai anthropic/research=https://gateway.example`.

    Raises:
        ValueError: a word that names no such account, or the same one again.
    """
    found: dict[tuple[str, str], BillPlan] = {}
    for word in text.split():
        name, equals, base_url = word.partition("=")
        provider, slash, account = name.partition("/")
        if provider not in PROVIDERS:
            raise ValueError(
                f"{SETTING}: {word[:80]!r}: bills can be asked of {', '.join(PROVIDERS)}"
            )
        if slash and not _ACCOUNT.fullmatch(account):
            raise ValueError(
                f"{SETTING}: {word[:80]!r}: an account has small letters, digits, hyphens"
            )
        if equals and not base_url.startswith(("https://", "http://")):
            raise ValueError(
                f"{SETTING}: {word[:80]!r}: an address begins with https:// or http://"
            )
        if (provider, account) in found:
            raise ValueError(f"{SETTING}: {word[:80]!r} stands there twice")
        found[provider, account] = BillPlan(provider, account, base_url)
    return tuple(found.values())


def midnight_of(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0)


def next_day(plan: BillPlan, *, now: datetime) -> datetime:
    """When to ask after a bill has come: always at the same time of a day."""
    digest = hashlib.sha256(f"{plan.provider}/{plan.account}".encode()).digest()
    share = int.from_bytes(digest[:4], "big")
    return midnight_of(now) + _DAY + MIDNIGHT_IS_OVER + SPREAD * share // 2**32


def pause_after(attempts: int) -> timedelta:
    """How long to wait after so many attempts without a success."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 10)), LONGEST_PAUSE)


def asked_since(succeeded_at: datetime | None, *, now: datetime) -> datetime:
    """From which midnight on: providers amend what they said; what was missed is made up for."""
    missed = (midnight_of(now) - midnight_of(succeeded_at)) // _DAY if succeeded_at else 0
    return midnight_of(now) - min(max(USUAL_DAYS, missed + 1), MOST_DAYS) * _DAY
