"""A price file as own rates: shown first, then taken; a slip needs a word of its own."""

import gzip
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from budgets.domain.priceimport import MOST_OWN
from budgets.models import PriceVersion
from controlplane.audit.models import AuditEntry
from tests.budgets.dashboard.test_price_pages import make_rate
from tests.budgets.world import World
from tests.visitors import Visitors

URL = "/prices/import/"
HEAD = b"model,input,output\n"
MAP = (
    b'{"%s": {"mode": "chat", "litellm_provider": "x", "input_cost_per_token": 1e-6,'
    b' "output_cost_per_token": 2e-6}}'
)


def upload(client: Client, content: bytes, name: str = "prices.csv", **fields: Any) -> Any:
    return client.post(URL, {"file": SimpleUploadedFile(name, content), **fields})


def take(client: Client, shown: Any, **fields: Any) -> Any:
    """Press the button below what was shown."""
    return client.post(URL, {"content": shown.context["content"], "apply": "yes", **fields})


def errors(response: Any) -> list[str]:
    assert response.status_code == 422
    return list(response.context["form"].errors["file"])


def test_a_file_is_shown_and_then_holds(world: World, visitors: Visitors) -> None:
    shown = upload(visitors.admin, HEAD + b"llama,0.10,0.40\nqwen,1,2\n")
    page = shown.content.decode()
    assert shown.status_code == 200
    assert "2 new models, 0 changed" in page
    assert "0.40" in page
    assert PriceVersion.objects.count() == 0
    assert take(visitors.admin, shown, reason="May").status_code == 302
    rates = dict(PriceVersion.objects.values_list("model", "output_nanos_per_mtok"))
    assert rates == {"llama": 400_000_000, "qwen": 2_000_000_000}
    entry = AuditEntry.objects.get(action="price.import")
    assert (entry.actor_label, entry.reason) == ("Acme Admin", "May")
    again = upload(visitors.admin, HEAD + b"llama,0.10,0.40\nqwen,1,2\n")
    assert "Nothing would change" in again.content.decode()


def test_a_jump_is_taken_only_when_its_model_is_named(world: World, visitors: Visitors) -> None:
    make_rate("llama", provider="", organization=world.organization, own=True)
    shown = upload(visitors.admin, HEAD + b"llama,150,0\nqwen,1,2\n")
    assert shown.context["doubtful"] == [("llama", ["input rises from $1.00 to $150.00"])]
    refused = take(visitors.admin, shown)
    assert refused.status_code == 200
    assert "Nothing was changed: confirm each jump" in refused.content.decode()
    assert take(visitors.admin, shown, confirm="qwen").status_code == 200
    assert PriceVersion.objects.count() == 1
    assert take(visitors.admin, shown, confirm="llama").status_code == 302
    assert PriceVersion.objects.count() == 3
    assert AuditEntry.objects.get(action="price.import").after["confirmed"] == ["llama"]


def test_a_new_file_is_never_taken_unseen(world: World, visitors: Visitors) -> None:
    shown = upload(visitors.admin, HEAD + b"llama,1,2\n")
    file = SimpleUploadedFile("other.csv", HEAD + b"qwen,1,2\n")
    other = take(visitors.admin, shown, file=file)
    assert [row["model"] for row in other.context["changes"]] == ["qwen"] * 5
    assert PriceVersion.objects.count() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "The submitted file is empty."),
        (b"<!doctype html><title>Sign in</title>", "this is a web page or XML"),
        ("model,input,output".encode("utf-16"), "the text is in UTF-16"),
        (b"mod\xe8le,1,2", "the text is not UTF-8 from byte 3 on"),
        (gzip.compress(b"0" * 50_000_000), "this is a packed file"),
        (b"[" * 100_000, "not a genai-prices price file"),
        (HEAD + b"llama,cheap,2\n", "line 2"),
        (HEAD + b"llama,1,2\nllama,1,3\n", "line 3 says again what an earlier one said"),
        (HEAD + b"llama,-1,2\n", "llama"),
        (HEAD + b"llama,1e999999999,2\n", "line 2: not a price"),
        (HEAD, "no price of tokens in this csv file"),
        (MAP % rb"llama\u0000", "characters"),
        (MAP % rb"llama\ud800", "surrogates not allowed"),
        (HEAD + b"a" * 300 + b",1,2\n", "characters"),
        (b"0" * 2_000_001, "The file has more than 2 MB."),
        (HEAD + b"".join(b"m%d,1,2\n" % n for n in range(MOST_OWN + 1)), "up to 1000 models"),
    ],
)
def test_what_is_no_price_file_is_said(
    world: World, visitors: Visitors, content: bytes, said: str
) -> None:
    assert said in errors(upload(visitors.admin, content, "prices"))[0]
    assert PriceVersion.objects.count() == 0


def test_what_comes_back_may_not_be_forged_into_something_else(
    world: World, visitors: Visitors
) -> None:
    response = visitors.admin.post(URL, {"content": "&&&", "apply": "yes"})
    assert response.status_code == 422
    assert errors(visitors.admin.post(URL, {"apply": "yes"})) == ["Choose a file."]
    assert PriceVersion.objects.count() == 0


def test_a_link_of_another_site_takes_nothing(world: World, visitors: Visitors) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = visitors.admin.cookies
    assert upload(strict, HEAD + b"llama,1,2\n").status_code == 403


def test_viewers_may_not(world: World, visitors: Visitors) -> None:
    assert visitors.viewer.get(URL).status_code == 403
    assert upload(visitors.viewer, HEAD + b"llama,1,2\n").status_code == 403
    assert "Import a file" not in visitors.viewer.get("/prices/").content.decode()
