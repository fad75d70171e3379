"""From a node of the tailnet to a token that libraries of other people verify."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
from harness.programs import TAILBONE, Program
from harness.waiting import until
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet, Way


def verified(token: str, way: Way, **options: Any) -> dict[str, Any]:
    """The claims, checked by PyJWT against the JWKS that the server publishes."""
    client = jwt.PyJWKClient(f"http://{way.address}/.well-known/jwks.json", headers={"Host": way.host})
    key = client.get_signing_key_from_jwt(token)
    return dict(jwt.decode(token, key.key, algorithms=["RS256"], **options))


def test_user(server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A person's node gets a token with sub, user and display_name, which PyJWT verifies without leeway."""
    way = caller("dev@example.com", hostname="laptop").to(
        server(TB_KEYS_ISSUER="https://issuer.example").name
    )
    before = int(time.time())
    answer = way.issue()
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    claims = verified(answer.json["token"], way, issuer="https://issuer.example")
    node = tailnet.known("laptop")
    assert {name: claims[name] for name in ("sub", "user", "display_name", "node", "node_id")} == {
        "sub": f"user:{node['user_id']}",
        "user": "dev@example.com",
        "display_name": "Dev",
        "node": "laptop.dev.tailnet.test",
        "node_id": node["stable_id"],
    }
    assert set(claims) == {
        "iss",
        "iat",
        "nbf",
        "exp",
        "jti",
        "sub",
        "user",
        "display_name",
        "node",
        "node_id",
    }
    assert answer.json["expires_at"] == claims["exp"]
    assert before + 1200 <= claims["exp"] <= time.time() + 1200
    assert claims["exp"] - claims["iat"] == 1205
    assert claims["nbf"] == claims["iat"]


def test_tagged_node(server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A tagged node's token names its tags and no user."""
    way = caller("tag:ci", hostname="runner").to(server().name)
    claims = verified(way.issue().json["token"], way, issuer="tailbone")
    node = tailnet.known("runner")
    assert claims["sub"] == f"node:{node['stable_id']}"
    assert claims["tags"] == ["tag:ci"]
    assert set(claims) == {"iss", "iat", "nbf", "exp", "jti", "sub", "tags", "node", "node_id"}


def test_joserfc_verifies(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """joserfc verifies signature and times with the published JWKS alone."""
    way = caller().to(server("--audience", "sts.example").name)
    jwks = KeySet.import_key_set(way.get("/.well-known/jwks.json").json)
    token = way.issue("?audience=sts.example&ttl=60s").json["token"]
    verified_token = joserfc_jwt.decode(token, jwks, algorithms=["RS256"])
    rules = joserfc_jwt.JWTClaimsRegistry(
        leeway=0, aud={"essential": True, "value": "sts.example"}, exp={"essential": True}
    )
    rules.validate(verified_token.claims)
    assert verified_token.claims["exp"] - verified_token.claims["iat"] == 65


def test_es256(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """With ES256 keys, PyJWT verifies too."""
    way = caller().to(server("--algorithm", "ES256").name)
    client = jwt.PyJWKClient(f"http://{way.address}/.well-known/jwks.json", headers={"Host": way.host})
    token = way.issue().json["token"]
    key = client.get_signing_key_from_jwt(token)
    assert jwt.decode(token, key.key, algorithms=["ES256"])["user"] == "dev@example.com"


def test_bucket_folder_holds_the_jwks(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """The JWKS in a file:// bucket verifies the tokens: who reads it needs no tailnet."""
    bucket = tmp_path / "bucket"
    way = caller().to(server(TB_KEYS_BUCKET=bucket.as_uri()).name)
    until(lambda: way.get("/_readyz").status == 200, "ready")
    document = json.loads((bucket / ".well-known/jwks.json").read_text())
    token = way.issue().json["token"]
    keys = KeySet.import_key_set(document)
    assert joserfc_jwt.decode(token, keys, algorithms=["RS256"]).claims["user"] == "dev@example.com"
    published = way.get("/.well-known/jwks.json")
    assert published.json == document
    assert published.headers["Cache-Control"] == "public, max-age=300"


def test_no_secret_in_the_log(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """One line for the token, without the token; the auth key is nowhere, also at level trace."""
    started = server(TB_LOG_LEVEL="trace")
    token = caller().to(started.name).issue().json["token"]
    started.program.wait_for("token issued")
    started.program.stop()
    [line] = started.events("token issued")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert {name: line[name] for name in ("level", "sub", "kid", "jti", "aud", "node")} == {
        "level": "info",
        "sub": claims["sub"],
        "kid": jwt.get_unverified_header(token)["kid"],
        "jti": claims["jti"],
        "aud": None,
        "node": claims["node"],
    }
    assert token not in started.program.output()
    assert token.split(".")[2] not in started.program.output()
    assert started.authkey not in started.program.output()
    assert started.events("tsnet"), "level trace shows tsnet's own log"


def test_no_token_without_its_line(
    server: Callable[..., Server], caller: Callable[..., Caller], environment: dict[str, str]
) -> None:
    """When the log cannot be written, the line of a token neither, and the token does not leave."""
    started = server()
    started.program.stop()
    script = 'exec "$@" > /dev/full'
    command = ["sh", "-c", script, "sh", *TAILBONE, "server", "start"]
    variables = {
        "TB_KEYS_DIR": str(started.folder / "keys"),
        "TB_SERVER_TAILSCALE_DIR": str(started.folder / "node"),
        "TB_SERVER_TAILSCALE_HOSTNAME": started.name,
        "TB_SERVER_TAILSCALE_CONTROLURL": started.control_url,
        "TB_SERVER_TAILSCALE_AUTHKEY": started.authkey,
    }
    with Program(command, env=environment | variables):
        way = caller().to(started.name)
        until(lambda: serves(way), "served")
        answer = way.issue()
        assert (answer.status, answer.json["error"]) == (503, "log_unavailable")


def serves(way: Way) -> bool:
    """Whether requests are answered."""
    try:
        return bool(way.get("/_healthz").status == 200)
    except OSError:
        return False
