"""The policy admits callers and decides what they get."""

from __future__ import annotations

import msgspec
import pytest
from harness.settings import issuer_settings
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
from tailbone.token.policy import Decision, TokenRequest, admit, decide

SETTINGS = issuer_settings(issuer="tailbone", expiry_s=1200, audiences=("sts.example", "api://b"))
PERSON = Identity(node_id="nStable", node="laptop", user_id=123)
EXPIRED = msgspec.structs.replace(PERSON, expired=True)
SHARED = msgspec.structs.replace(PERSON, shared=True)


@pytest.mark.parametrize(
    ("request_", "decision"),
    [
        (TokenRequest(), Decision(audience=None, ttl_s=1200)),
        (TokenRequest(audience="sts.example"), Decision(audience="sts.example", ttl_s=1200)),
        (TokenRequest(audience="api://b", ttl_s=60.0), Decision(audience="api://b", ttl_s=60)),
        (TokenRequest(ttl_s=1.0), Decision(audience=None, ttl_s=1)),
        (TokenRequest(ttl_s=1200.0), Decision(audience=None, ttl_s=1200)),
    ],
)
def test_what_is_granted(request_: TokenRequest, decision: Decision) -> None:
    """An audience on the list, and a lifetime up to the setting, are granted as requested."""
    assert decide(request_, SETTINGS) == decision


@pytest.mark.parametrize("ttl_s", [0.0, -1.0, 0.5, 1.5, 1200.5, 1201.0, 1e300, float("inf"), float("nan")])
def test_lifetimes_that_are_refused(ttl_s: float) -> None:
    """A lifetime is whole seconds, at least one and at most the setting."""
    with pytest.raises(BadParameterError, match=r"ttl must be whole seconds from 1s to 1200s \(20m\)"):
        decide(TokenRequest(ttl_s=ttl_s), SETTINGS)


@pytest.mark.parametrize("audience", ["other", "STS.example", "sts.example ", "sts.example/", ""])
def test_audiences_that_are_refused(audience: str) -> None:
    """An audience must be on the list byte for byte; the message shows the list, not what was sent."""
    with pytest.raises(AudienceNotAllowedError) as caught:
        decide(TokenRequest(audience=audience), SETTINGS)
    assert caught.value.message == "this audience is not allowed; allowed: sts.example, api://b"


def test_an_empty_list_allows_no_audience() -> None:
    """The default of issuer.audiences is empty, and the message names the setting."""
    with pytest.raises(AudienceNotAllowedError, match=r"none: issuer\.audiences is empty"):
        decide(TokenRequest(audience="a"), issuer_settings(issuer="tailbone", expiry_s=1200))


def test_an_expired_node_is_refused() -> None:
    """An expired node key no longer proves who calls."""
    with pytest.raises(ExpiredCallerError):
        admit(EXPIRED, SETTINGS)


def test_a_shared_node_is_refused() -> None:
    """A node shared in from another tailnet is refused by default."""
    with pytest.raises(SharedCallerError):
        admit(SHARED, SETTINGS)


def test_allow_shared_admits_shared_nodes() -> None:
    """issuer.allowShared admits nodes that are shared in."""
    settings = msgspec.structs.replace(SETTINGS, allow_shared=True)
    assert admit(SHARED, settings).identity == SHARED


def test_a_bad_lifetime_is_named_before_a_bad_audience() -> None:
    """The order is part of the interface."""
    with pytest.raises(BadParameterError):
        decide(TokenRequest(audience="other", ttl_s=-1), SETTINGS)


@given(
    st.builds(
        TokenRequest,
        audience=st.none() | st.text() | st.sampled_from(SETTINGS.audiences),
        ttl_s=st.none() | st.floats() | st.integers(-10, 2000).map(float),
    ),
    st.booleans(),
    st.booleans(),
)
def test_every_decision_is_within_the_settings(request_: TokenRequest, expired: bool, shared: bool) -> None:
    """Any request ends in a decision within the settings or in one of tailbone's own errors."""
    identity = msgspec.structs.replace(PERSON, expired=expired, shared=shared)
    try:
        admit(identity, SETTINGS)
        decision = decide(request_, SETTINGS)
    except TailboneError:
        return
    assert not expired
    assert not shared
    assert decision.audience in (None, *SETTINGS.audiences)
    assert 1 <= decision.ttl_s <= 1200
