"""Claims: types, issuer, audience and time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from harness.forging import CLAIMS, ISSUER, NOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailbone.verify.claims import Claims, OtherClaims, check_claims, decode_claims
from tailbone.verify.errors import (
    MalformedClaimsError,
    TokenExpiredError,
    TokenNotYetValidError,
    VerificationError,
    WrongAudienceError,
    WrongIssuerError,
)


def decoded(**changes: Any) -> Claims:
    return decode_claims(json.dumps({**CLAIMS, **changes}).encode())


EXTRA = OtherClaims({"extra": 1, "team": {"x": [1]}, "": {}})


def test_all_claims_have_their_place() -> None:
    """Claims of tailbone's own are typed; the others are in ``extra``, also one of that name."""
    claims = decoded(
        tags=["tag:ci"],
        node="a.ts.net",
        node_id="n1",
        groups=["g"],
        scope="a b",
        **EXTRA,
    )
    assert claims == Claims(
        iss=ISSUER,
        sub="user:1",
        aud="service",
        iat=NOW,
        nbf=NOW,
        exp=NOW + 600,
        tags=("tag:ci",),
        node="a.ts.net",
        node_id="n1",
        groups=("g",),
        scope="a b",
        extra=EXTRA,
    )
    assert (claims.scopes, claims.audiences) == ({"a", "b"}, ("service",))
    assert decoded(aud=["a", "b"]).audiences == ("a", "b")
    assert decoded(**{"": {"user": "x"}}).extra == {"": {"user": "x"}}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": str(NOW)},
        {"exp": True},
        {"exp": None},
        {"exp": [NOW]},
        {"exp": 10**30},
        {"exp": 1e300},
        {"nbf": str(NOW)},
        {"iat": {}},
        {"iss": 1},
        {"iss": [ISSUER]},
        {"sub": ""},
        {"sub": 1},
        {"aud": 1},
        {"aud": None},
        {"aud": ["service", 1]},
        {"aud": {"service": 1}},
        {"tags": "tag:ci"},
        {"tags": [1]},
        {"groups": "admins"},
        {"scope": ["a"]},
        {"user": 1},
        {"jti": 1},
    ],
)
def test_a_claim_of_another_type_is_refused(changes: dict[str, Any]) -> None:
    """Nothing is converted: a list is not a text, a text is not a number."""
    with pytest.raises(MalformedClaimsError):
        decoded(**changes)


@pytest.mark.parametrize("name", ["iss", "sub", "exp"])
def test_three_claims_are_required(name: str) -> None:
    """A token without issuer, subject or end is refused."""
    with pytest.raises(MalformedClaimsError):
        decode_claims(json.dumps({key: CLAIMS[key] for key in CLAIMS if key != name}).encode())


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"1", b"{", b"\xff", b'{"a":\xff}', b"[" * 100_000])
def test_other_json_is_refused(text: bytes) -> None:
    """The claims are one JSON object in UTF-8."""
    with pytest.raises(MalformedClaimsError):
        decode_claims(text)


def test_float_times_are_accepted() -> None:
    """NumericDate may have a fraction (RFC 7519 section 2)."""
    assert decoded(exp=NOW + 0.5).exp == NOW + 0.5


def judged(now: float = NOW, audience: frozenset[str] | None = frozenset({"service"}), **changes: Any) -> str:
    """Return the code of the refusal; empty if the claims pass."""
    try:
        check_claims(decoded(**changes), issuer=ISSUER, audience=audience, now=now, leeway_s=10)
    except VerificationError as error:
        return error.code
    return ""


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, None),
        ({"iss": f"{ISSUER}/"}, WrongIssuerError),
        ({"iss": ISSUER.upper()}, WrongIssuerError),
        ({"aud": "other"}, WrongAudienceError),
        ({"aud": "servic"}, WrongAudienceError),
        ({"aud": []}, WrongAudienceError),
        ({"aud": ["other", "service"]}, None),
        ({"aud": "other", "audience": None}, None),
        ({"aud": "b", "audience": frozenset({"a", "b"})}, None),
        ({"now": NOW + 609.9}, None),
        ({"now": NOW + 610}, TokenExpiredError),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW + 11}, TokenNotYetValidError),
        ({"iat": NOW + 11}, TokenNotYetValidError),
    ],
)
def test_issuer_audience_and_time(arguments: dict[str, Any], error: type[VerificationError] | None) -> None:
    """Issuer and audience must be equal; ten seconds of leeway apply at both ends."""
    assert judged(**arguments) == (error.code if error else "")


def test_a_token_without_audience_is_for_nobody() -> None:
    """It is accepted only if any audience is."""
    claims = decode_claims(json.dumps({key: CLAIMS[key] for key in CLAIMS if key != "aud"}).encode())
    with pytest.raises(WrongAudienceError):
        check_claims(claims, issuer=ISSUER, audience=frozenset({"service"}), now=NOW, leeway_s=0)
    check_claims(claims, issuer=ISSUER, audience=None, now=NOW, leeway_s=0)


SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
WORD = st.text("a \u00e9\ud7ff", max_size=3)
JSON = SCALAR | WORD | st.lists(SCALAR | WORD, max_size=3) | st.dictionaries(WORD, SCALAR, max_size=3)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from([*Claims.__struct_fields__, "other", ""]), JSON))
def test_any_members_are_typed_or_refused(members: dict[str, Any]) -> None:
    """What decodes has the types that it promises; the rest is a MalformedClaimsError."""
    try:
        claims = decode_claims(json.dumps({**CLAIMS, **members}).encode())
    except MalformedClaimsError:
        return
    own = {name: getattr(claims, name) for name in Claims.__struct_fields__ if name != "extra"}
    assert msgspec.convert({**own, "": claims.extra}, Claims) == claims
    assert claims.extra == {name: members[name] for name in members.keys() & {"extra", "other", ""}}
