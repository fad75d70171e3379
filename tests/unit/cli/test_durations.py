"""Flags that are durations."""

from __future__ import annotations

import click
import pytest

from tailbone.cli.durations import DurationType


@pytest.mark.parametrize(("text", "seconds"), [("20m", 1200.0), ("1h30m", 5400.0), ("500ms", 0.5)])
def test_a_duration_is_seconds(text: str, seconds: float) -> None:
    """It is written as in Go."""
    assert DurationType().convert(text, None, None) == seconds


def test_a_default_may_be_seconds() -> None:
    """click converts defaults too."""
    assert DurationType().convert(0.0, None, None) == 0.0


@pytest.mark.parametrize("text", ["20", "soon", ""])
def test_anything_else_is_wrong_usage(text: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(click.BadParameter, match="write it as 20m or 1h30m"):
        DurationType().convert(text, None, None)
