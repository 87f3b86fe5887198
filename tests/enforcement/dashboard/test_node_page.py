"""The page of one node."""

from datetime import UTC, datetime

from enforcement.models import NodeCost, NodeSample
from tests.budgets.world import NOW, World
from tests.enforcement.dashboard.fleet import make_node
from tests.visitors import Visitors

COST = {
    "per_hour": "$2.49",
    "valid_from": "2026-05-01 00:00",
    "accelerator": "NVIDIA H100",
    "accelerator_count": "",
    "watts": "",
    "reason": "contract",
}


def test_a_cost_is_recorded_corrected_and_shown_with_who(world: World, visitors: Visitors) -> None:
    node = make_node(world, "gpu-a")
    empty = visitors.viewer.get(f"/nodes/{node.pk}/").content.decode()
    assert "No cost is recorded" in empty
    for per_hour in ("$2.49", "2.50"):
        form = {**COST, "per_hour": per_hour}
        answer = visitors.admin.post(f"/nodes/{node.pk}/costs/new/", form)
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/nodes/{node.pk}/")
    page = visitors.viewer.get(f"/nodes/{node.pk}/")
    assert [(row.cost_per_hour_nanos, holds) for row, holds in page.context["costs"]] == [
        (2_500_000_000, True),
        (2_490_000_000, False),
    ]
    assert page.context["costs"][0][0].valid_from == datetime(2026, 5, 1, tzinfo=UTC)
    text = page.content.decode()
    assert "$2.50 an hour now" in text
    assert "1 × NVIDIA H100" in text
    assert "recorded what an hour costs of the node" in text
    again = visitors.admin.get(f"/nodes/{node.pk}/costs/new/")
    assert again.context["form"].initial["accelerator"] == "NVIDIA H100"


def test_a_cost_that_cannot_be_true_is_told_at_its_field(world: World, visitors: Visitors) -> None:
    path = f"/nodes/{make_node(world, 'gpu-a').pk}/costs/new/"
    for field, value, words in (
        ("per_hour", "cheap", "Write dollars, like 2.49."),
        ("per_hour", "", "This field is required."),
        ("valid_from", "May", "Enter a valid date/time."),
        ("watts", "0", "Ensure this value is greater than or equal to 1."),
        ("__all__", None, "valid_from is at most five years back and one year ahead."),
    ):
        form = {**COST, field: value} if value is not None else {**COST, "valid_from": "2019-01-01"}
        answer = visitors.admin.post(path, form)
        assert (answer.status_code, answer.context["form"].errors[field]) == (422, [words])
    kindless = {**COST, "accelerator": "", "accelerator_count": "2"}
    errors = visitors.admin.post(path, kindless).context["form"].errors
    assert errors["accelerator"] == ["Say of which kind."]
    assert not NodeCost.objects.exists()


def test_a_node_goes_out_of_service_and_back(world: World, visitors: Visitors) -> None:
    node = make_node(world, "gpu-a")
    for verb, state in (("drain", "draining"), ("activate", "active"), ("remove", "gone")):
        assert visitors.admin.post(f"/nodes/{node.pk}/{verb}/").status_code == 302
        node.refresh_from_db()
        assert node.state == state
    page = visitors.admin.post(f"/nodes/{node.pk}/remove/", follow=True)
    assert "Nothing was changed: the node is gone already." in page.content.decode()
    assert visitors.admin.post(f"/nodes/{node.pk}/explode/").status_code == 404
    assert visitors.admin.get(f"/nodes/{node.pk}/drain/").status_code == 405


def test_viewers_change_nothing_and_strangers_see_nothing(world: World, visitors: Visitors) -> None:
    node = make_node(world, "gpu-a")
    for path in (f"/nodes/{node.pk}/drain/", f"/nodes/{node.pk}/costs/new/"):
        assert visitors.viewer.post(path, COST).status_code == 403
        assert visitors.stranger.post(path, COST).status_code == 404
    assert visitors.stranger.get(f"/nodes/{node.pk}/").status_code == 404
    node.refresh_from_db()
    assert (node.state, NodeCost.objects.count()) == ("active", 0)


def test_an_ollama_shows_what_it_keeps_loaded_and_no_load(world: World, visitors: Visitors) -> None:
    node = make_node(world, "edge", engine="ollama", metrics_path="/api/ps")
    loaded = {"loaded_models": 2, "loaded_bytes": 2**33, "accelerator_bytes": 3 * 2**31}
    NodeSample.objects.create(
        node=node,
        at=NOW,
        epoch=1,
        prompt_tokens_total=0,
        cached_tokens_total=0,
        generation_tokens_total=0,
        extra=loaded,
    )
    text = visitors.viewer.get(f"/nodes/{node.pk}/").content.decode()
    assert "<code>/api/ps</code>, read" in text
    assert "it has no counters: its use is what sidecars meter" in text
    assert "2 models, 6.0\xa0GB on accelerators of 8.0\xa0GB" in text
    assert "Running" not in text
