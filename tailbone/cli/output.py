"""Render results as JSON or YAML, for the flag ``-o``."""

from __future__ import annotations

from typing import Any


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
