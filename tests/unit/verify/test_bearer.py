"""Bearer tokens in requests, and refusals as RFC 6750 asks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.verify import (
    KeysUnavailableError,
    MalformedTokenError,
    MissingTokenError,
    NotPermittedError,
    TokenError,
    TokenExpiredError,
    require,
)
from tailbone.verify.bearer import bearer_token, challenge_of, refusal_of


@pytest.mark.parametrize("value", ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c", "Bearer a.b.c "])
def test_a_token_is_found(value: str) -> None:
    """The scheme's case does not matter (RFC 9110 section 11.1)."""
    assert bearer_token([value]) == "a.b.c"


@pytest.mark.parametrize("values", [[], [""], ["Basic YTpi"], ["Bearerx a.b.c"], ["a.b.c"]])
def test_no_token(values: list[str]) -> None:
    """Other schemes are for others."""
    with pytest.raises(MissingTokenError):
        bearer_token(values)


@pytest.mark.parametrize(
    "values",
    [["Bearer"], ["Bearer "], ["Bearer a b"], ["Bearer a,Bearer b"], ['Bearer "a"'], ["Bearer a"] * 2],
)
def test_a_malformed_field(values: list[str]) -> None:
    """Two tokens, or none after the scheme, are an error of the caller."""
    with pytest.raises(MalformedTokenError):
        bearer_token(values)


@given(st.text())
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """Nothing else is raised, and a token contains no white space."""
    try:
        token = bearer_token([f"Bearer {text}"])
    except TokenError:
        return
    assert token == text.strip()
    assert token.isascii()


def test_a_missing_token_has_no_error() -> None:
    """RFC 6750 section 3.1."""
    refusal = refusal_of(MissingTokenError("the request has no bearer token"))
    assert (refusal.status, refusal.fields["WWW-Authenticate"]) == (401, "Bearer")


def test_an_expired_token() -> None:
    """401, with the reason for people and the code for programs."""
    refusal = refusal_of(TokenExpiredError("the token has expired"))
    assert refusal.status == 401
    assert refusal.fields["WWW-Authenticate"] == (
        'Bearer error="invalid_token", error_description="the token has expired"'
    )
    assert json.loads(refusal.body) == {"error": "token_expired", "message": "the token has expired"}


def test_a_caller_who_is_not_permitted() -> None:
    """403, with the scope that is needed."""
    error = NotPermittedError("no")
    assert refusal_of(error).status == 403
    assert challenge_of(error, require(scope="write read")) == (
        'Bearer error="insufficient_scope", error_description="no", scope="read write"'
    )


def test_unavailable_keys_are_not_the_callers_fault() -> None:
    """503, without a challenge."""
    refusal = refusal_of(KeysUnavailableError("the issuer's keys were not fetched yet"))
    assert (refusal.status, "WWW-Authenticate" in refusal.fields) == (503, False)
