"""A provider's bill on a page: its file, or its lines typed in; read as the command reads it."""

import gzip
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from controlplane.audit.models import AuditEntry
from enforcement.models import BillLine, Reconciliation
from tests.budgets.world import World
from tests.enforcement.domain.bills.pages import completions, costs, openai_page
from tests.visitors import Visitors

FILE, LINES = "/reconciliation/bills/new/", "/reconciliation/bills/enter/"
COMMON = {"provider": "mistral", "starts_at": "2026-05-01T00:00", "ends_at": "2026-05-02T00:00"}


def upload(client: Client, content: bytes, **fields: str) -> Any:
    return client.post(FILE, {"file": SimpleUploadedFile("may.json", content), **fields})


def enter(client: Client, *lines: dict[str, str], **common: str) -> Any:
    form = {**COMMON, **common, "line-TOTAL_FORMS": str(len(lines)), "line-INITIAL_FORMS": "0"}
    for number, line in enumerate(lines):
        form |= {f"line-{number}-{name}": text for name, text in line.items()}
    return client.post(LINES, form)


def test_a_file_is_kept_and_compared(world: World, visitors: Visitors) -> None:
    content = openai_page([completions("gpt-4o", 1_000, 20), costs(0.5, "gpt-4o, input")])
    assert upload(visitors.admin, content, account="research").status_code == 302
    assert BillLine.objects.filter(account="research", source="may.json").count() == 2
    row = Reconciliation.objects.get()
    assert (row.model, row.billed_prompt_tokens, row.billed_nanos) == ("gpt-4o", 1_000, 5 * 10**8)
    page = visitors.admin.get("/reconciliation/").content.decode()
    assert "2 lines are new, 0 say something else than before, 0 are the same." in page
    assert AuditEntry.objects.get(action="bill.import").actor_label == "Acme Admin"
    upload(visitors.admin, openai_page([completions("gpt-4o", 2_000, 20)]), account="research")
    page = visitors.admin.get("/reconciliation/").content.decode()
    assert "0 lines are new, 1 say something else than before" in page


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The submitted file is empty."),
        (b"<!doctype html><title>Sign in</title>", "perhaps a sign-in page was saved instead"),
        (gzip.compress(b"0" * 50_000_000), "this is a packed file"),
        ("{}".encode("utf-16"), "the text is in UTF-16"),
        (b'{"data": "\xff"}', "the text is not UTF-8 from byte 10 on"),
        (b"[" * 100_000, "not JSON"),
        (b"a,b\n1,2\n", "not a table of OpenAI's or Anthropic's console"),
        (b'{"data": []}', "the bill has no line with tokens or money"),
        (b"0" * (8 * 1024 * 1024 + 1), "The file has more than 8 MB."),
        (openai_page([costs(1, "x", currency="eur")]), "only bills in USD can be read"),
    ],
)
def test_what_is_no_bill_is_said(
    world: World, visitors: Visitors, content: bytes, said: str
) -> None:
    response = upload(visitors.admin, content)
    assert response.status_code == 422
    assert said in response.context["form"].errors["file"][0]
    assert BillLine.objects.count() == 0


def test_lines_are_typed_in(world: World, visitors: Visitors) -> None:
    tokens = {"model": "large", "prompt_tokens": "1000", "generation_tokens": "20", "calls": "3"}
    money = {"model": "small", "cost_usd": "0.50", "item": "tokens"}
    assert enter(visitors.admin, tokens, {}, money).status_code == 302
    line = BillLine.objects.get(kind="usage")
    assert (line.prompt_tokens, line.generation_tokens, line.calls) == (1_000, 20, 3)
    assert (line.starts_at, line.source) == (datetime(2026, 5, 1, tzinfo=UTC), "entered by hand")
    assert BillLine.objects.get(kind="cost").cost_nanos == 5 * 10**8


@pytest.mark.parametrize(
    ("line", "common", "said"),
    [
        ({}, {}, "the bill has no line with tokens or money."),
        ({"model": "m"}, {}, "Line 1: a row names a provider, and prompt_tokens or cost_usd."),
        ({"prompt_tokens": "-5"}, {}, "Line 1: prompt_tokens is no count of tokens: '-5'."),
        ({"cost_usd": "1e999"}, {}, "Line 1: cost_usd is no amount: '1e999'."),
        ({"cost_usd": "1"}, {"starts_at": "2026-05-01T00:30"}, "bills by the hour or longer"),
        ({"cost_usd": "1"}, {"ends_at": "2020-01-01T00:00"}, "makes no sense"),
        (
            {"cost_usd": "1"},
            {"starts_at": "2999-01-01T00:00", "ends_at": "2999-01-02T00:00"},
            "the bill is about a time that has not begun.",
        ),
    ],
)
def test_a_line_that_cannot_be_is_named(
    world: World, visitors: Visitors, line: dict[str, str], common: dict[str, str], said: str
) -> None:
    response = enter(visitors.admin, line, **common)
    assert response.status_code == 422
    assert said in response.context["form"].non_field_errors()[0]
    assert BillLine.objects.count() == 0


def test_more_lines_than_a_page_takes(world: World, visitors: Visitors) -> None:
    response = enter(visitors.admin, *([{"cost_usd": "1"}] * 101))
    assert response.status_code == 422
    assert BillLine.objects.count() == 0


def test_a_form_without_its_lines_is_no_crash(world: World, visitors: Visitors) -> None:
    assert visitors.admin.post(LINES, COMMON).status_code == 422


def test_viewers_and_strangers_keep_nothing(world: World, visitors: Visitors) -> None:
    content = openai_page([completions("gpt-4o", 1, 1)])
    assert upload(visitors.viewer, content).status_code == 403
    assert enter(visitors.viewer, {"cost_usd": "1"}).status_code == 403
    assert "Import a bill" not in visitors.viewer.get("/reconciliation/").content.decode()
    upload(visitors.stranger, content)
    assert not BillLine.objects.filter(organization=world.organization).exists()
