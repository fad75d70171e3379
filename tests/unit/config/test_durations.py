"""Parsing and formatting of durations; the literal values are those of Go 1.27's time package."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.config.durations import (
    format_duration,
    format_nanoseconds,
    parse_duration,
    parse_nanoseconds,
)

INT64 = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_200_000_000_000, "20m"),
        (5_400_000_000_000, "1h30m"),
        (5_400_000_000_000, "1.5h"),
        (500_000_000, "500ms"),
        (1_500, "1.5us"),
        (1_500, "1.5µs"),
        (1_500, "1.5μs"),
        (-1_800_000_000_000, "-.5h"),
        (3_600_000_000_000, "+1.h"),
        (0, "0"),
        (0, "-0"),
        (61_000_000_001, "1m1s1ns"),
        (333_333_333, "0.33333333333333333333s"),
        (9_223_372_036_854_775_807, "2562047h47m16.854775807s"),
        (-9_223_372_036_854_775_808, "-2562047h47m16.854775808s"),
    ],
)
def test_valid_durations_have_gos_value(nanoseconds: int, text: str) -> None:
    """A duration means the same as in Go, to the nanosecond."""
    assert nanoseconds == parse_nanoseconds(text)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("is empty", ""),
        ("is empty", "-"),
        ("has a number without a unit", "20"),
        ("has a number without a unit", "1h30"),
        ("has an unknown unit (known: ns, us, ms, s, m, h)", "1d"),
        ("has an unknown unit (known: ns, us, ms, s, m, h)", "1h 30m"),
        ("has an unknown unit (known: ns, us, ms, s, m, h)", "1M"),
        ("is not a duration", "."),
        ("is not a duration", "h"),
        ("is not a duration", "--1s"),
        ("is not a duration", " 1s"),
        ("is not a duration", "١s"),
        ("is longer than 292 years", "9223372036854775808ns"),
        ("is longer than 292 years", "-9223372036854775809ns"),
        ("is longer than 292 years", "9" * 5000 + "h"),
    ],
)
def test_durations_that_go_refuses_are_refused(reason: str, text: str) -> None:
    """The reason does not repeat the text."""
    with pytest.raises(ValueError) as refused:
        parse_nanoseconds(text)
    assert reason == str(refused.value)


@given(INT64)
def test_a_formatted_duration_parses_back(nanoseconds: int) -> None:
    """Every duration that Go can represent survives formatting and parsing exactly."""
    assert nanoseconds == parse_nanoseconds(format_nanoseconds(nanoseconds))


@given(st.text(alphabet="0123456789.-+hmsnuµ ", max_size=20) | st.text(max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """The parser raises only ValueError, and returns only values that Go can represent."""
    try:
        nanoseconds = parse_nanoseconds(text)
    except ValueError:
        return
    assert -(1 << 63) <= nanoseconds < 1 << 63


@given(st.integers(0, 10**6), st.sampled_from(["ns", "us", "ms", "s", "m", "h"]), st.integers(0, 10**6))
def test_parts_add_up(first: int, unit: str, second: int) -> None:
    """A duration of two parts is their sum."""
    both = parse_nanoseconds(f"{first}{unit}{second}s")
    assert both == parse_nanoseconds(f"{first}{unit}") + parse_nanoseconds(f"{second}s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("1h30m", 5400), ("1h5s", 3605), ("0s", 0), ("500ms", 0.5), ("1.5µs", 1.5e-6)],
)
def test_needless_zeros_are_omitted(text: str, seconds: float) -> None:
    """Twenty minutes are 20m, not 20m0s."""
    assert text == format_duration(seconds)


def test_seconds_are_a_float() -> None:
    """Settings store durations in seconds."""
    assert repr(parse_duration("1m")) == "60.0"
