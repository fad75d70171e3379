"""A node of the tailnet gets a token that independent libraries verify."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from harness.programs import TAILBONE, Program
from harness.waiting import until
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller, Route, Tailnet


def verified(token: str, route: Route, **options: Any) -> dict[str, Any]:
    """Verify a token with PyJWT against the server's JWKS, and return its claims."""
    client = jwt.PyJWKClient(f"http://{route.address}/.well-known/jwks.json", headers={"Host": route.host})
    key = client.get_signing_key_from_jwt(token)
    return dict(jwt.decode(token, key.key, algorithms=["RS256"], **options))


def test_user(server: Callable[..., Server], caller: Callable[..., Caller], tailnet: Tailnet) -> None:
    """A person's node gets a token with sub, user and display_name, which PyJWT verifies without leeway."""
    route = caller("dev@example.com", hostname="laptop").to(
        server(TB_KEYS_ISSUER="https://issuer.example", TB_KEYS_OUTSIDECHECK="off").name
    )
    before = int(time.time())
    answer = route.issue()
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    claims = verified(answer.json["token"], route, issuer="https://issuer.example")
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
    route = caller("tag:ci", hostname="runner").to(server().name)
    claims = verified(route.issue().json["token"], route, issuer="tailbone")
    node = tailnet.known("runner")
    assert claims["sub"] == f"node:{node['stable_id']}"
    assert claims["tags"] == ["tag:ci"]
    assert set(claims) == {"iss", "iat", "nbf", "exp", "jti", "sub", "tags", "node", "node_id"}


def test_joserfc_verifies(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """joserfc verifies signature and times with the published JWKS alone."""
    route = caller().to(server("--audience", "sts.example").name)
    jwks = KeySet.import_key_set(route.get("/.well-known/jwks.json").json)
    token = route.issue("?audience=sts.example&ttl=60s").json["token"]
    verified_token = joserfc_jwt.decode(token, jwks, algorithms=["RS256"])
    rules = joserfc_jwt.JWTClaimsRegistry(
        leeway=0, aud={"essential": True, "value": "sts.example"}, exp={"essential": True}
    )
    rules.validate(verified_token.claims)
    assert verified_token.claims["exp"] - verified_token.claims["iat"] == 65


def test_es256(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """PyJWT also verifies tokens of ES256 keys."""
    route = caller().to(server("--algorithm", "ES256").name)
    client = jwt.PyJWKClient(f"http://{route.address}/.well-known/jwks.json", headers={"Host": route.host})
    token = route.issue().json["token"]
    key = client.get_signing_key_from_jwt(token)
    assert jwt.decode(token, key.key, algorithms=["ES256"])["user"] == "dev@example.com"


def test_bucket_folder_holds_the_jwks(
    server: Callable[..., Server], caller: Callable[..., Caller], tmp_path: Path
) -> None:
    """The JWKS in a file:// bucket verifies the tokens without the tailnet."""
    bucket = tmp_path / "bucket"
    route = caller().to(server(TB_KEYS_BUCKET=bucket.as_uri()).name)
    until(lambda: route.get("/_readyz").status == 200, "ready")
    document = json.loads((bucket / ".well-known/jwks.json").read_text())
    token = route.issue().json["token"]
    keys = KeySet.import_key_set(document)
    assert joserfc_jwt.decode(token, keys, algorithms=["RS256"]).claims["user"] == "dev@example.com"
    published = route.get("/.well-known/jwks.json")
    assert published.json == document
    assert published.headers["Cache-Control"] == "public, max-age=300"


def test_no_secret_in_the_log(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """At level trace, the log has one line for the token, and contains neither the token nor the auth key."""
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


@pytest.mark.parametrize("output", ["full", "not read"])
def test_a_token_is_withheld_if_its_line_cannot_be_logged(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    environment: dict[str, str],
    tmp_path: Path,
    output: str,
) -> None:
    """If the log cannot be written, the token is not sent; all else goes on, and the server can end."""
    started = server()
    started.program.stop()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = ["sh", "-c", 'exec "$@" > "$OUTPUT"', "sh", *TAILBONE, "server", "start"]
    variables = {
        "TB_SERVER_RATELIMIT": "0",
        "OUTPUT": "/dev/full" if output == "full" else str(pipe),
        "TB_KEYS_DIR": str(started.folder / "keys"),
        "TB_SERVER_TAILSCALE_DIR": str(started.folder / "node"),
        "TB_SERVER_TAILSCALE_HOSTNAME": started.name,
        "TB_SERVER_TAILSCALE_CONTROLURL": started.control_url,
        "TB_SERVER_TAILSCALE_AUTHKEY": started.authkey,
    }
    with (
        os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reading,
        Program(command, env=environment | variables) as program,
    ):
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 1 << 14)
        route = caller().to(started.name)
        until(lambda: serves(route), "served", timeout_s=30)
        # The pipe takes the lines of some tokens.
        answer = until(lambda: answer if (answer := route.issue()).status != 200 else None, "a refusal")
        assert (answer.status, answer.json["error"]) == (503, "log_unavailable")
        assert route.get("/_readyz").json["reasons"] == ["log_unavailable"]
        assert route.get("/.well-known/jwks.json").status == 200
        assert serves(route)
        assert program.stop() == 0


def serves(route: Route) -> bool:
    """Return whether requests are answered."""
    try:
        return bool(route.get("/_healthz").status == 200)
    except OSError:
        return False
