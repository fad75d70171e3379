"""The dashboard and the alert rules, checked by Prometheus's own tool."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import monitoring

from tailbone.daemon.metrics import METRICS

CASES = Path(__file__).with_name("alerts.test.yml")


@pytest.fixture
def promtool() -> str:
    found = monitoring.find_promtool()
    if found is None:
        pytest.skip("promtool is not installed: .ci/run takes it from Debian's package of Prometheus")
    return found


def run(promtool: str, *args: str | Path) -> None:
    ended = subprocess.run([promtool, *args], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_rules_are_valid(promtool: str) -> None:
    """Syntax, labels and templates."""
    run(promtool, "check", "rules", monitoring.ALERTS)


def test_each_alert_fires_when_it_should(promtool: str) -> None:
    """And not before, and not for other servers."""
    run(promtool, "test", "rules", CASES)


def test_each_alert_has_a_case_in_which_it_fires() -> None:
    """The cases leave out none."""
    fired = {
        case["alertname"]
        for test in yaml.safe_load(CASES.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in monitoring.alerts()}


def test_each_alert_says_what_to_do() -> None:
    """A severity, a summary that names the server, and a description."""
    for rule in monitoring.alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_the_expressions_of_the_dashboard_are_valid(promtool: str, tmp_path: Path) -> None:
    """Each can be parsed as that of a rule."""
    rules = [
        {"record": f"panel:{number}", "expr": text} for number, text in enumerate(monitoring.expressions())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", "--lint=none", file)


def test_each_metric_is_on_the_dashboard() -> None:
    """A new one needs a panel."""
    names = {metric.name for metric in METRICS}
    shown = "\n".join(monitoring.expressions())
    assert {name for name in names if name not in shown} == set()


def covers(panel: dict[str, Any]) -> set[tuple[int, int]]:
    place = panel["gridPos"]
    return {
        (x, y)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    }


def test_the_panels_of_the_dashboard() -> None:
    """Each has its own id, a title, a description and a place within 24 columns."""
    panels = monitoring.panels()
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if not panel["title"] or not panel["description"]] == []
    for one, other in itertools.combinations(panels, 2):
        assert not covers(one) & covers(other), (one["title"], other["title"])
    assert max(x for panel in panels for x, _ in covers(panel)) == 23
