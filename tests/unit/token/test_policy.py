"""What a caller may have."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.errors import (
    AudienceNotAllowedError,
    BadParameterError,
    ExpiredCallerError,
    SharedCallerError,
    TailboneError,
)
from tailbone.token.identity import Identity
from tailbone.token.policy import Grant, Rules, TokenRequest, admit, decide

RULES = Rules(issuer="tailbone", expiry_s=1200, audiences=("sts.example", "api://b"))
PERSON = Identity(node_id="nStable", node="laptop", user_id=123)
EXPIRED = msgspec.structs.replace(PERSON, expired=True)
SHARED = msgspec.structs.replace(PERSON, shared=True)


@pytest.mark.parametrize(
    ("request_", "grant"),
    [
        (TokenRequest(), Grant(audience=None, ttl_s=1200)),
        (TokenRequest(audience="sts.example"), Grant(audience="sts.example", ttl_s=1200)),
        (TokenRequest(audience="api://b", ttl_s=60.0), Grant(audience="api://b", ttl_s=60)),
        (TokenRequest(ttl_s=1.0), Grant(audience=None, ttl_s=1)),
        (TokenRequest(ttl_s=1200.0), Grant(audience=None, ttl_s=1200)),
    ],
)
def test_what_is_granted(request_: TokenRequest, grant: Grant) -> None:
    """An audience on the list, and a lifetime up to the setting, are given as asked."""
    assert decide(request_, RULES) == grant


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 0.5, 1.5, 1200.5, 1201.0, 1e300, float("inf"), float("nan")])
def test_lifetimes_that_are_refused(ttl_s: float) -> None:
    """exp has whole seconds; none at all, a fraction, or more than the setting is no lifetime."""
    with pytest.raises(BadParameterError, match=r"ttl: whole seconds from 1s to 1200s \(20m\) are allowed"):
        decide(TokenRequest(ttl_s=ttl_s), RULES)


@pytest.mark.parametrize("audience", ["other", "STS.example", "sts.example ", "sts.example/", ""])
def test_audiences_that_are_refused(audience: str) -> None:
    """An audience is on the list byte for byte; the message says which are, not what was sent."""
    with pytest.raises(AudienceNotAllowedError) as caught:
        decide(TokenRequest(audience=audience), RULES)
    assert caught.value.message == "this audience may not be asked for; allowed: sts.example, api://b"


def test_without_a_list_no_audience_may_be_asked_for() -> None:
    """The default of issuer.audiences is empty, and the message names the setting."""
    with pytest.raises(AudienceNotAllowedError, match=r"none: issuer\.audiences is empty"):
        decide(TokenRequest(audience="a"), Rules(issuer="tailbone", expiry_s=1200))


def test_an_expired_node_gets_nothing() -> None:
    """The key of a node that has expired proves nothing any more."""
    with pytest.raises(ExpiredCallerError):
        admit(EXPIRED, RULES)


def test_a_shared_node_gets_nothing() -> None:
    """A node shared in from another tailnet is refused by default."""
    with pytest.raises(SharedCallerError):
        admit(SHARED, RULES)


def test_allow_shared_admits_shared_nodes() -> None:
    """issuer.allowShared lets them in."""
    rules = msgspec.structs.replace(RULES, allow_shared=True)
    assert admit(SHARED, rules).identity == SHARED


def test_a_bad_lifetime_is_named_before_a_bad_audience() -> None:
    """The order is part of the interface."""
    with pytest.raises(BadParameterError):
        decide(TokenRequest(audience="other", ttl_s=-1), RULES)


@given(
    st.builds(
        TokenRequest,
        audience=st.none() | st.text() | st.sampled_from(RULES.audiences),
        ttl_s=st.none() | st.floats() | st.integers(-10, 2000).map(float),
    ),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_asked_nothing_beyond_the_rules_is_granted(
    request_: TokenRequest, expired: bool, shared: bool
) -> None:
    """A decision is a grant within the rules or one of tailbone's own errors."""
    identity = msgspec.structs.replace(PERSON, expired=expired, shared=shared)
    try:
        admit(identity, RULES)
        grant = decide(request_, RULES)
    except TailboneError:
        return
    assert not expired
    assert not shared
    assert grant.audience in (None, *RULES.audiences)
    assert 1 <= grant.ttl_s <= 1200
