"""Generate the table of metrics in docs/metrics.md; as a script, this writes it."""

from __future__ import annotations

from pathlib import Path

from tailbone.daemon.metrics import METRICS

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
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{metrics_table()}{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(refresh(PAGE.read_text()))
