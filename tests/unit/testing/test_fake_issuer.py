"""FakeIssuer: its tokens verify with other libraries as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jwt
import pytest

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from tailbone.algorithms import Algorithm


def decoded(issuer: FakeIssuer, token: str) -> dict[str, object]:
    key = jwt.PyJWKClient(issuer.jwks_url).get_signing_key_from_jwt(token)
    claims: dict[str, object] = jwt.decode(
        token, key, algorithms=["RS256", "ES256"], issuer=issuer.url, audience="service"
    )
    return claims


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_tokens_verify_with_pyjwt(algorithm: Algorithm) -> None:
    """Person and tagged node have the claims that tailbone gives them."""
    with FakeIssuer(algorithm=algorithm) as issuer:
        person = decoded(issuer, issuer.token(audience="service", scope="read"))
        assert (person["sub"], person["user"], person["scope"]) == ("user:1", "dev@example.com", "read")
        node = decoded(issuer, issuer.token(audience="service", as_="tag:ci"))
        assert (node["tags"], "user" in node) == (["tag:ci"], False)


def test_bad_tokens_are_refused_for_their_reason() -> None:
    """Expired, signed with another key, for another audience, of a removed key."""
    with FakeIssuer() as issuer:
        for token, error in (
            (issuer.token(audience="service", expired=True), jwt.ExpiredSignatureError),
            (issuer.token(audience="service", wrong_key=True), jwt.InvalidSignatureError),
            (issuer.token(audience="other"), jwt.InvalidAudienceError),
            (issuer.token(), jwt.MissingRequiredClaimError),
        ):
            with pytest.raises(error):
                decoded(issuer, token)
        old = issuer.token(audience="service")
        issuer.rotate()
        assert decoded(issuer, old)
        assert decoded(issuer, issuer.token(audience="service"))
        issuer.rotate(remove_old=True)
        with pytest.raises(jwt.PyJWKClientError):
            decoded(issuer, old)
