"""Render results: as JSON or YAML for the flag ``-o``, or in columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailbone.text import escape

if TYPE_CHECKING:
    from collections.abc import Sequence


def render(value: Any, form: str) -> str:
    """Render *value* for a program to read.

    Args:
        value: dicts, lists, tuples, text, numbers, booleans and None.
        form: ``json``, which is one line, or ``yaml``.
    """
    import json

    if form == "json":
        return json.dumps(value)
    import yaml

    # Through JSON, since YAML has no tuples.
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False).removesuffix("\n")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines of aligned columns. Invisible characters in cells are escaped."""
    escaped = [tuple(map(escape, cells)) for cells in rows]
    widths = [max(map(len, column)) for column in zip(*escaped, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in escaped
    ]
