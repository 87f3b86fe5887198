"""Alert rules and dashboard ask for metrics that exist, and the rules do what they say."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import enforcement.leasing.metrics  # noqa: F401 -- registers what the ledger counts
from budgets.api.metrics import _Budgets
from budgets.queries.gauges import Gauge, Gauges
from controlplane.metrics import TOTALS
from enforcement.sidecar.metrics import Metrics

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus/alerts.yml"
DASHBOARD = json.loads((DEPLOY / "grafana/comptroller.json").read_text())
NAME = re.compile(r"\bcomptroller_[a-z_]+")


def told() -> Iterator[str]:
    """Every name that a scrape of control plane, budgets and sidecar can find."""
    gauge = Gauge(
        dict.fromkeys(("budget", "scope", "unit", "mode", "value"), "x"), 1, 0, 0, 0, 0, 1
    )
    budgets = _Budgets(Gauges([gauge], 0))
    texts = [generate_latest(REGISTRY), generate_latest(TOTALS), Metrics().exposition()]
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            yield family.name
            yield from (f"{family.name}{end}" for end in ("_total", "_bucket", "_sum", "_count"))
    yield from (family.name for family in budgets.collect())


def expressions() -> Iterator[str]:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])


@pytest.mark.django_db
def test_every_metric_that_is_asked_for_exists() -> None:
    known = {*told(), "comptroller_worker_pulse_age_seconds"}  # told once a worker has beaten
    asked = {name for expression in expressions() for name in NAME.findall(expression)}

    assert len(asked) >= 15
    assert asked - known == set()


def test_every_alert_says_what_is_wrong_and_how_bad_it_is() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
        ["test", "rules", "alerts.test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
