"""The table of metrics is current."""

from __future__ import annotations

from docs.metrics_table import PAGE, refresh


def test_the_table_of_metrics_is_current() -> None:
    """docs/metrics.md has the table from which the metrics are made."""
    assert refresh(PAGE.read_text()) == PAGE.read_text(), "run: uv run python -m tests.docs.metrics_table"
