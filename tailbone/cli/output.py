"""Results in the forms of ``-o``: JSON and YAML."""

from __future__ import annotations

from typing import Any


def render(value: Any, form: str) -> str:
    """Write *value* for a program to read.

    Args:
        value: dicts, lists, tuples, text, numbers, true, false and None.
        form: ``json``, one line; or ``yaml``.
    """
    import json

    if form == "json":
        return json.dumps(value)
    import yaml

    # Through JSON, since YAML has no tuples.
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False).removesuffix("\n")
