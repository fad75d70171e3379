"""Go's durations, as text and as numbers: ``1h30m``, ``500ms``, ``1.5h``.

The rules are those of ``time.ParseDuration`` and ``Duration.String`` in Go's standard library, to the
nanosecond, since settings files and requests written for them go on working. Pure functions.
"""

from __future__ import annotations

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
_DIGITS = "0123456789"


def parse_duration(text: str) -> float:
    """Read a Go duration.

    Args:
        text: a sign, then numbers with units, such as ``-1h1.5m``; ``0`` needs no unit.

    Returns:
        Seconds.

    Raises:
        ValueError: *text* is no duration, or longer than Go can hold (about 292 years). The message is
            short and does not repeat *text*.
    """
    return parse_nanoseconds(text) / NANOSECONDS


def format_duration(seconds: float) -> str:
    """Write *seconds* as a Go duration without needless zeros: ``20m``, not ``20m0s``."""
    return format_nanoseconds(round(seconds * NANOSECONDS))


def parse_nanoseconds(text: str) -> int:
    """Read a Go duration exactly; see :func:`parse_duration`.

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
        nanoseconds, rest = _read_part(rest)
        total += nanoseconds
        # Go holds the sum in 64 bits: one more is allowed below zero than above.
        if total > _LARGEST + negative:
            raise ValueError("is longer than 292 years")
    return -total if negative else total


def _read_part(text: str) -> tuple[int, str]:
    """Read one number with its unit; return nanoseconds and what follows."""
    whole, rest = _digits(text)
    fraction = ""
    if rest.startswith("."):
        fraction, rest = _digits(rest[1:])
    if not whole and not fraction:
        raise ValueError("is not a duration")
    end = 0
    while end < len(rest) and rest[end] not in _DIGITS and rest[end] != ".":
        end += 1
    name, rest = rest[:end], rest[end:]
    if not name:
        raise ValueError("has a number without a unit")
    unit = _UNITS.get(name)
    if unit is None:
        raise ValueError("has an unknown unit (known: ns, us, ms, s, m, h)")
    return int(whole or "0") * unit + _fraction_of(fraction, unit), rest


def _digits(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    # Python refuses to convert thousands of digits; Go's 64 bits end far below.
    if end > 4000:
        raise ValueError("is longer than 292 years")
    return text[:end], text[end:]


def _fraction_of(digits: str, unit: int) -> int:
    """Nanoseconds in a fraction of *unit*, cut off below one as Go does, in floating point as Go does."""
    value, scale = 0, 1.0
    for digit in digits:
        if value > _LARGEST // 10:
            break  # Go ignores the digits that 64 bits cannot hold
        following = value * 10 + int(digit)
        if following > _LARGEST + 1:
            break
        value, scale = following, scale * 10
    return int(float(value) * (unit / scale))


def format_nanoseconds(nanoseconds: int) -> str:
    """Write *nanoseconds* as a Go duration without needless zeros, exactly."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < NANOSECONDS:
        for name in ("ms", "µs", "ns"):
            unit = _UNITS[name]
            if rest >= unit:
                return f"{sign}{_decimal(rest, unit)}{name}"
    hours, rest = divmod(rest, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if minutes else ""]
    if rest:
        parts.append(f"{_decimal(rest, NANOSECONDS)}s")
    return sign + "".join(parts)


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"
