"""Ask a provider for its bill: every page of its usage and cost APIs, over HTTPS.

Keys are of administrators, and come from the environment of whoever asks; they are kept nowhere.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from enforcement.collectors.base import CollectorError
from enforcement.collectors.fetch import fetch
from enforcement.domain.bills.lines import Line, summed
from enforcement.domain.bills.reading import read_bill
from enforcement.errors import BillError

WITHIN_S = 30.0
LONGEST_S = 600.0
MOST_BYTES = 16 * 1024 * 1024
MOST_PAGES = 500
Query = list[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """How one provider is asked: where, as whom, and for which reports."""

    name: str
    base_url: str
    headers: Callable[[str], Mapping[str, str]]
    reports: Callable[[datetime, datetime], Mapping[str, Query]]


def _openai_reports(since: datetime, until: datetime) -> Mapping[str, Query]:
    """Usage by the hour; costs there are by the day."""
    window = [
        ("start_time", str(int(since.timestamp()))),
        ("end_time", str(int(until.timestamp()))),
    ]
    usage = [*window, ("bucket_width", "1h"), ("group_by", "model"), ("limit", "168")]
    return {
        "/v1/organization/usage/completions": usage,
        "/v1/organization/usage/embeddings": usage,
        "/v1/organization/costs": [*window, ("group_by", "line_item"), ("limit", "180")],
    }


def _anthropic_reports(since: datetime, until: datetime) -> Mapping[str, Query]:
    window = [("starting_at", _utc(since)), ("ending_at", _utc(until))]
    return {
        "/v1/organizations/usage_report/messages": [
            *window,
            *(("bucket_width", "1h"), ("group_by[]", "model"), ("limit", "168")),
        ],
        "/v1/organizations/cost_report": [
            *window,
            *(("group_by[]", "description"), ("limit", "31")),
        ],
    }


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


SOURCES = {
    "openai": Source(
        name="openai",
        base_url="https://api.openai.com",
        headers=lambda key: {"authorization": f"Bearer {key}"},
        reports=_openai_reports,
    ),
    "anthropic": Source(
        name="anthropic",
        base_url="https://api.anthropic.com",
        headers=lambda key: {"x-api-key": key, "anthropic-version": "2023-06-01"},
        reports=_anthropic_reports,
    ),
}


def fetch_bill(
    source: Source,
    *,
    key: str,
    since: datetime,
    until: datetime,
    base_url: str = "",
    longest_s: float = LONGEST_S,
) -> list[Line]:
    """All lines of [since, until). `base_url`: a gateway in front of the provider. `longest_s`: for
    all of its pages together.

    Raises BillError: it did not answer, refused the key, or wrote something that is no bill.
    """
    asked = _Asked(source, key, base_url or source.base_url, time.monotonic() + longest_s)
    found: list[Line] = []
    for path, query in source.reports(since, until).items():
        for page in asked.pages(path, query):
            found += read_bill(page, provider=source.name)
    return summed(found)


@dataclass(frozen=True)
class _Asked:
    """One provider, asked until an instant of the monotonic clock."""

    source: Source
    key: str
    base_url: str
    ends_s: float

    def pages(self, path: str, query: Query) -> Iterator[bytes]:
        cursor = ""
        for _ in range(MOST_PAGES):
            page = self._get(path, [*query, ("page", cursor)] if cursor else query)
            yield page
            cursor = _next(page)
            if not cursor:
                return
        raise BillError(f"{path} has more than {MOST_PAGES} pages: ask for less time")

    def _get(self, path: str, query: Query) -> bytes:
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise BillError(f"{path} was not read to its end in time: ask for less")
        address, headers = f"{path}?{urlencode(query)}", self.source.headers(self.key)
        within_s = min(left_s, WITHIN_S)
        try:
            answer = asyncio.run(
                fetch(self.base_url, address, within=within_s, most=MOST_BYTES, headers=headers)
            )
        except CollectorError as error:
            raise BillError(str(error)) from error
        return answer.body


def _next(page: bytes) -> str:
    """The cursor of the next page, if there is one. `read_bill` has looked at the page before."""
    told = json.loads(page)
    cursor = told.get("next_page") if told.get("has_more") else None
    return cursor if isinstance(cursor, str) else ""
