"""The page that charges recorded calls again: preview, then book."""

from budgets.models import Rating, Transfer
from tests.budgets.domain.test_rerate import LATER, NEW, OLD, book, price
from tests.budgets.world import World, make_budget
from tests.visitors import Visitors

URL = "/prices/rerate/"
FORM = {
    "model": "gemma",
    "provider": "",
    "since": "2026-05-13T09:00",
    "until": "2026-05-13T11:00",
    "reason": "wrong list",
}


def test_a_preview_books_nothing_and_the_same_form_books_it(
    world: World, visitors: Visitors
) -> None:
    make_budget(world)
    book(world, price(world, OLD))
    price(world, NEW, at=LATER)
    shown = visitors.admin.post(URL, FORM)
    assert shown.status_code == 200
    assert "1 of 1 calls would cost less" in shown.content.decode()
    assert Rating.objects.count() == 0
    assert visitors.admin.post(URL, FORM | {"book": "yes"}).status_code == 302
    assert Transfer.objects.get(kind="correction").amount == 1_360_000
    told = visitors.admin.get("/prices/").content.decode()
    assert "1 calls are charged again: −$0.00136." in told
    assert "Nothing would change" in visitors.admin.post(URL, FORM).content.decode()


def test_mistakes_are_told_at_their_field(world: World, visitors: Visitors) -> None:
    wrong = visitors.admin.post(URL, FORM | {"until": "2026-05-13T08:00"})
    assert (wrong.status_code, wrong.context["form"].errors["until"]) == (
        422,
        ["It must be after since."],
    )
    silent = visitors.admin.post(URL, FORM | {"reason": "", "book": "yes"})
    assert silent.context["form"].errors["reason"] == ["Say why."]


def test_viewers_may_not(world: World, visitors: Visitors) -> None:
    assert visitors.viewer.get(URL).status_code == 403
