"""Generate the table of metrics in docs/metrics.md; ``python -m tests.docs.metrics_table`` writes it."""

from __future__ import annotations

from pathlib import Path

from tailbone.daemon.metrics import METRICS

from .pages import replaced

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
BEGIN = "<!-- metrics: made by tests/docs/metrics_table.py from tailbone/daemon/metrics.py -->\n"
END = "<!-- /metrics -->"


def metrics_table() -> str:
    """Return the table: one row for each metric."""
    rows = ["| metric | type | labels | what it shows |", "|---|---|---|---|"]
    rows += [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{name}`' for name in metric.labels)} "
        f"| {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(rows) + "\n"


def refresh(text: str) -> str:
    """Return the page's *text* with the current table."""
    return replaced(text, BEGIN, END, metrics_table())


if __name__ == "__main__":
    PAGE.write_text(refresh(PAGE.read_text()))
