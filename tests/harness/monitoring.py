"""Dashboard and alert rules of deploy/, and promtool to check them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy" / "alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"


def find_promtool() -> str | None:
    """Return Prometheus's promtool: that of ``.ci/run``, or one on the path."""
    return shutil.which(ROOT / "build/prometheus/usr/bin/promtool") or shutil.which("promtool")


def alerts() -> list[dict[str, Any]]:
    """Return the alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Return the dashboard's panels."""
    return list(json.loads(DASHBOARD.read_text())["panels"])


def expressions() -> list[str]:
    """Return all expressions of the dashboard, with values for Grafana's variables, and of the rules."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    shown = [text.replace("$__rate_interval", "1m").replace("$instance", ".*") for text in shown]
    return [*shown, *(rule["expr"] for rule in alerts())]


def metrics() -> set[str]:
    """Return the names of all metrics that dashboard and rules use or mention."""
    text = ALERTS.read_text() + "\n".join(expressions()) + DASHBOARD.read_text()
    return set(re.findall(r"\b(?:tailbone|process)(?:_[a-z]+)+\b", text))
