"""A log that records its lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Lines:
    """A log that records its lines, as level, event and fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level.startswith("_"):
            raise AttributeError(level)
        return lambda event, **fields: self.lines.append((level, event, fields))

    @property
    def events(self) -> list[tuple[str, str]]:
        """The lines without their fields."""
        return [(level, event) for level, event, _ in self.lines]

    def of(self, *levels: str) -> list[str]:
        """Return the events of these levels, with their fields."""
        return [f"{event} {fields}" for level, event, fields in self.lines if level in levels]
