"""Bills from the APIs of a fake provider over a real socket: pages, keys, and what goes wrong."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from enforcement.domain.bills.fetching import SOURCES, fetch_bill
from enforcement.errors import BillError
from enforcement.models import BillLine
from tests.budgets.world import World
from tests.enforcement.domain.bills.pages import DAY, completions, costs, messages

KEY = "sk-admin-1"
HOUR_S = 3_600


class Provider(BaseHTTPRequestHandler):
    """Both APIs as they are documented: a bucket a page, a cursor, and 401 without the key."""

    asked: list[str] = []

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append(f"{parts.path} {sorted(query)}")
        sent = self.headers.get("x-api-key") or self.headers.get("authorization", "")
        if sent.removeprefix("Bearer ") != KEY:
            self._say(401, {"error": {"message": "invalid key"}})
        elif parts.path.startswith("/v1/organizations/"):
            self._say(200, self._anthropic(parts.path, query))
        else:
            self._say(200, self._openai(parts.path, query))

    def _openai(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        number = int(query.get("page", "page_0").removeprefix("page_"))
        start = int(query["start_time"]) + number * HOUR_S
        width = 24 * HOUR_S if path.endswith("costs") else HOUR_S
        results = {
            "/v1/organization/usage/completions": [completions("gpt-4o", 100 + number, 20)],
            "/v1/organization/usage/embeddings": [],
            "/v1/organization/costs": [costs(0.5, "gpt-4o, input")],
        }[path]
        more = path.endswith("completions") and number < 2
        bucket = {"object": "bucket", "start_time": start, "end_time": start + width}
        return {
            "object": "page",
            "data": [{**bucket, "results": results}],
            "has_more": more,
            "next_page": f"page_{number + 1}" if more else None,
        }

    def _anthropic(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        day = query["starting_at"][:10]
        is_cost = path.endswith("cost_report")
        cost = {"currency": "USD", "amount": "250.5", "description": "x", "model": "claude-3"}
        bucket = {
            "starting_at": query["starting_at"],
            "ending_at": f"{day}T23:00:00Z" if is_cost else f"{day}T01:00:00Z",
            "results": [cost if is_cost else messages("claude-3")],
        }
        return {"data": [bucket], "has_more": False, "next_page": None}

    def _say(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- its signature
        """Quiet."""


@contextmanager
def provider() -> Iterator[str]:
    Provider.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def test_every_page_of_openais_reports_is_read() -> None:
    with provider() as url:
        lines = fetch_bill(
            SOURCES["openai"], key=KEY, since=DAY, until=DAY + timedelta(days=1), base_url=url
        )
    assert [(line.kind, line.prompt_tokens, line.cost_nanos) for line in lines] == [
        ("usage", 100, None),
        ("usage", 101, None),
        ("usage", 102, None),
        ("cost", None, 500_000_000),
    ]
    window = "'bucket_width', 'end_time', 'group_by', 'limit'"
    assert Provider.asked[:2] == [
        f"/v1/organization/usage/completions [{window}, 'start_time']",
        f"/v1/organization/usage/completions [{window}, 'page', 'start_time']",
    ]


def test_both_reports_of_anthropic_are_read() -> None:
    with provider() as url:
        lines = fetch_bill(
            SOURCES["anthropic"], key=KEY, since=DAY, until=DAY + timedelta(days=1), base_url=url
        )
    assert [(line.kind, line.model, line.prompt_tokens, line.cost_nanos) for line in lines] == [
        ("usage", "claude-3", 3_200, None),
        ("cost", "claude-3", None, 2_505_000_000),
    ]


@pytest.mark.parametrize(
    ("key", "words"), [("wrong", "answered 401"), ("a\r\nx: y", "cannot be sent")]
)
def test_a_key_that_is_none_is_said(key: str, words: str) -> None:
    with provider() as url, pytest.raises(BillError, match=words):
        fetch_bill(
            SOURCES["openai"], key=key, since=DAY, until=DAY + timedelta(days=1), base_url=url
        )


def test_a_provider_that_does_not_answer_is_said() -> None:
    with provider() as url:
        pass
    with pytest.raises(BillError, match="organization/usage/completions"):
        fetch_bill(SOURCES["openai"], key=KEY, since=DAY, until=DAY, base_url=url)


def test_the_command_keeps_what_it_was_told(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMPTROLLER_OPENAI_ADMIN_KEY", KEY)
    with provider() as url:
        call_command("fetch_bill", "openai", f"--base-url={url}", "--format=json")
    assert capsys.readouterr().out == '{"new":4,"changed":0,"gone":0,"same":0}\n'
    first = BillLine.objects.order_by("starts_at", "kind").first()
    assert first is not None
    assert first.source == url
    assert timezone.now() - first.starts_at < timedelta(days=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["openai"], "set COMPTROLLER_OPENAI_ADMIN_KEY"),
        (["mistral"], "bills can be asked of openai, anthropic"),
        (["openai", "--days=32"], "--days is 1 to 31"),
    ],
)
def test_the_command_says_what_it_needs(
    world: World, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.delenv("COMPTROLLER_OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(CommandError, match=said):
        call_command("fetch_bill", *words)
