"""Parse and format Go durations: ``1h30m``, ``500ms``, ``1.5h``.

The grammar is that of ``time.ParseDuration`` and ``Duration.String`` in Go's standard library, so that
settings files and requests written for Go keep working. Pure functions.
"""

from __future__ import annotations

import re
from decimal import Decimal

NANOSECONDS = 1_000_000_000
"""Nanoseconds in a second."""

_LARGEST = (1 << 63) - 1
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, micro sign
    "μs": 1_000,  # U+03BC, Greek mu
    "ms": 1_000_000,
    "s": NANOSECONDS,
    "m": 60 * NANOSECONDS,
    "h": 3600 * NANOSECONDS,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")


def parse_duration(text: str) -> float:
    """Parse a Go duration.

    Args:
        text: an optional sign, then numbers with units, such as ``-1h1.5m``; ``0`` needs no unit.

    Returns:
        Seconds.

    Raises:
        ValueError: *text* is not a duration, or is longer than Go can hold (about 292 years). The message is
            short and does not repeat *text*.
    """
    return parse_nanoseconds(text) / NANOSECONDS


def format_duration(seconds: float) -> str:
    """Format *seconds* as a Go duration without needless zeros: ``20m``, not ``20m0s``."""
    return format_nanoseconds(round(seconds * NANOSECONDS))


def parse_nanoseconds(text: str) -> int:
    """Parse a Go duration exactly; see :func:`parse_duration`.

    Returns:
        Nanoseconds, from -2**63 to 2**63 - 1.
    """
    negative = text.startswith("-")
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise ValueError("is empty")
    total = 0
    while rest:
        part = _PART.match(rest)
        if not part:
            raise ValueError("is not a duration")
        number, unit = part.groups()
        if not unit:
            raise ValueError("has a number without a unit")
        if unit not in _UNITS:
            raise ValueError("has an unknown unit (known: ns, us, ms, s, m, h)")
        total += int(Decimal(number) * _UNITS[unit])
        # Go keeps the sum in a signed 64-bit integer, whose minimum is one further from zero.
        if total > _LARGEST + negative:
            raise ValueError("is longer than 292 years")
        rest = rest[part.end() :]
    return -total if negative else total


def format_nanoseconds(nanoseconds: int) -> str:
    """Format *nanoseconds* exactly, as a Go duration without needless zeros."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < NANOSECONDS:
        name = next(name for name in ("ms", "µs", "ns") if rest >= _UNITS[name])
        return f"{sign}{_decimal(rest, _UNITS[name])}{name}"
    hours, rest = divmod(rest, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_decimal(rest, NANOSECONDS)}s" if rest else ""
    return sign + (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "") + seconds


def _decimal(value: int, unit: int) -> str:
    text = f"{Decimal(value) / unit:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
