"""The type of flags that are durations."""

from __future__ import annotations

from typing import Any

import click


class DurationType(click.ParamType[float]):
    """A duration in Go's form, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a duration."""
        if isinstance(value, float):
            return value
        from tailbone.config.durations import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}; write it as 20m or 1h30m", param, ctx)
