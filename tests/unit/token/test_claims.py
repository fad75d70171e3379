"""Claims are built from identity, grant and time."""

from __future__ import annotations

import msgspec
from harness.grants import as_json

from tailbone.token import claims
from tailbone.token.identity import Identity

PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
    addresses=("100.64.0.2",),
    capabilities={"tailbone.dev/cap/admin": as_json({"roles": ["admin"]})},
)
TAGGED = Identity(node_id="nCi", node="ci.dev.tailnet.test", tags=("tag:ci", "tag:prod"))


def built(identity: Identity, *, audience: str | None = None, now: float = 1795518230.75) -> bytes:
    """Build claims with fixed settings, as JSON."""
    return msgspec.json.encode(
        claims.build(
            identity,
            issuer="https://issuer.example",
            audience=audience,
            ttl_s=1200,
            backdate_s=5.0,
            now=now,
            jti="0123456789abcdef0123456789abcdef",
        )
    )


def test_a_persons_claims() -> None:
    """A person's token has user and display_name, no tags, and no aud unless one was granted."""
    assert built(PERSON) == (
        b'{"iss":"https://issuer.example","sub":"user:123","iat":1795518225,"nbf":1795518225,"exp":1795519430,'
        b'"jti":"0123456789abcdef0123456789abcdef","user":"dev@example.com","display_name":"Dev",'
        b'"node":"laptop.dev.tailnet.test","node_id":"nStable"}'
    )


def test_a_tagged_nodes_claims() -> None:
    """A tagged node's token has tags, and neither user nor display_name."""
    assert built(TAGGED, audience="sts.example") == (
        b'{"iss":"https://issuer.example","sub":"node:nCi","aud":"sts.example","iat":1795518225,"nbf":1795518225,'
        b'"exp":1795519430,"jti":"0123456789abcdef0123456789abcdef","tags":["tag:ci","tag:prod"],'
        b'"node":"ci.dev.tailnet.test","node_id":"nCi"}'
    )


def test_times_are_whole_seconds() -> None:
    """NumericDate may have fractions, but not every verifier reads them, so times are rounded down."""
    said = msgspec.json.decode(built(PERSON, now=1000000000.999))
    assert (said["iat"], said["nbf"], said["exp"]) == (999999995, 999999995, 1000001200)


def test_a_fraction_of_backdate_moves_iat_to_the_second_before() -> None:
    """Rounding never shortens the backdate: iat is at least that far before now."""
    said = claims.build(
        PERSON, issuer="i", audience=None, ttl_s=1, backdate_s=0.5, now=1000000000.25, jti="j"
    )
    assert (said.iat, said.exp) == (999999999, 1000000001)


def test_sub_contains_only_ids() -> None:
    """Login, display name and node name can be chosen by users, so sub contains none of them."""
    renamed = msgspec.structs.replace(PERSON, node="user:1", login="user:1", display_name="user:1")
    assert msgspec.json.decode(built(renamed))["sub"] == "user:123"
