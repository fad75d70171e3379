"""Read a JSON object that comes from elsewhere."""

from __future__ import annotations

import json
from typing import Any


def parse_object(text: bytes | str) -> dict[str, Any] | None:
    """Return a JSON object's members; None if the text is not one in UTF-8, without a BOM (RFC 8259)."""
    try:
        members = json.loads(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):  # thousands of nested arrays
        return None
    return members if isinstance(members, dict) else None
