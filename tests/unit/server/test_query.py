"""What a caller asks for in its query."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.errors import BadParameterError
from tailbone.server.query import parse_query
from tailbone.token.policy import TokenRequest

KNOWN = "audience, ttl and dry_run are known, each at most once"


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", TokenRequest()),
        ("audience=sts.example", TokenRequest(audience="sts.example")),
        ("audience=https%3A%2F%2Fa.example%2Fb", TokenRequest(audience="https://a.example/b")),
        ("audience=https://a.example/b?c=d", TokenRequest(audience="https://a.example/b?c=d")),
        ("audience=a+b%2Bc", TokenRequest(audience="a b+c")),
        ("audience=%C3%A9", TokenRequest(audience="\u00e9")),
        ("%61udience=a", TokenRequest(audience="a")),
        ("ttl=5m", TokenRequest(ttl_s=300.0)),
        ("ttl=1h30m", TokenRequest(ttl_s=5400.0)),
        ("ttl=1.5h", TokenRequest(ttl_s=5400.0)),
        ("ttl=90000ms", TokenRequest(ttl_s=90.0)),
        ("ttl=-5m", TokenRequest(ttl_s=-300.0)),
        ("ttl=5m&audience=a", TokenRequest(audience="a", ttl_s=300.0)),
        ("audience=a&ttl=5m", TokenRequest(audience="a", ttl_s=300.0)),
        ("dry_run=true&audience=a", TokenRequest(audience="a", dry_run=True)),
        ("dry_run=false", TokenRequest()),
    ],
)
def test_what_is_asked(query: str, asked: TokenRequest) -> None:
    """Form-encoded, in any order; whether it may be had is for policy to say."""
    assert parse_query(query) == asked


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("aud=a", f"unknown query parameter; {KNOWN}"),
        ("Audience=a", f"unknown query parameter; {KNOWN}"),
        ("=a", f"unknown query parameter; {KNOWN}"),
        ("&", f"unknown query parameter; {KNOWN}"),
        ("audience=a&", f"unknown query parameter; {KNOWN}"),
        ("audience[]=a", f"unknown query parameter; {KNOWN}"),
        (
            "audience=a&audience=a",
            f"audience is given twice; {KNOWN}",
        ),
        ("ttl=5m&ttl=6m", f"ttl is given twice; {KNOWN}"),
        (
            "audience=a&%61udience=b",
            f"audience is given twice; {KNOWN}",
        ),
        ("dry_run=1", "dry_run must be true or false"),
        ("dry_run=True", "dry_run must be true or false"),
        ("dry_run=", "dry_run is empty"),
        ("audience", "audience is empty"),
        ("audience=", "audience is empty"),
        ("ttl=", "ttl is empty"),
        ("audience=%", "a % in the query is not followed by two hexadecimal digits"),
        ("audience=%4", "a % in the query is not followed by two hexadecimal digits"),
        ("audience=%zz", "a % in the query is not followed by two hexadecimal digits"),
        ("audience=%FF", "the query is not UTF-8"),
        ("audience=%C0%80", "the query is not UTF-8"),
        ("ttl=5", "ttl has a number without a unit; a duration such as 90s, 5m or 1h30m is allowed"),
        ("ttl=m", "ttl is not a duration; a duration such as 90s, 5m or 1h30m is allowed"),
        ("ttl=%205m", "ttl is not a duration; a duration such as 90s, 5m or 1h30m is allowed"),
        ("ttl=NaN", "ttl is not a duration; a duration such as 90s, 5m or 1h30m is allowed"),
        ("ttl=9999999h", "ttl is longer than 292 years; a duration such as 90s, 5m or 1h30m is allowed"),
    ],
)
def test_what_is_refused(query: str, message: str) -> None:
    """The message says what was wrong and what is known, and repeats no value: it might be a secret."""
    with pytest.raises(BadParameterError) as caught:
        parse_query(query)
    assert caught.value.message == message


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50), st.integers(1, 10**6))
def test_what_a_library_encodes_is_read_back(audience: str, seconds: int) -> None:
    """Any audience survives the form encoding of HTTP libraries."""
    query = urlencode({"audience": audience, "ttl": f"{seconds}s"})
    assert parse_query(query) == TokenRequest(audience=audience, ttl_s=float(seconds))


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_query_is_read_or_refused(query: str) -> None:
    """No query is a fault of ours."""
    try:
        asked = parse_query(query)
    except BadParameterError:
        return
    assert asked.audience != ""
