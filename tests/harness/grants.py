"""Values of a capability, as whois answers them."""

from __future__ import annotations

from typing import Any

import msgspec


def as_json(*values: Any) -> tuple[str, ...]:
    """Return values of a capability as JSON texts."""
    return tuple(msgspec.json.encode(value).decode() for value in values)
