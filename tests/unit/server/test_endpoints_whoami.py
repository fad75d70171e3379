"""What a caller sees of itself: GET /whoami, and POST /issue?dry_run=true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness.grants import as_json

from tailbone.errors import UnknownCallerError
from tailbone.token.grants import TOKEN_CAPABILITY
from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from conftest import Running, World

PERSON = Identity(
    node_id="nStable",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)
WHOAMI = b"GET /whoami HTTP/1.1\r\nHost: tailbone\r\n\r\n"


def issue(query: str) -> bytes:
    return f"POST /issue?{query} HTTP/1.1\r\nHost: tailbone\r\n\r\n".encode()


def granting(identity: Identity, *values: Any) -> Identity:
    return msgspec.structs.replace(identity, capabilities={TOKEN_CAPABILITY: as_json(*values)})


async def test_whoami_of_a_person(running: Running, world: World) -> None:
    """A person sees its user, node, audiences and roles."""
    world.caller = granting(
        msgspec.structs.replace(PERSON, addresses=("100.64.0.2",), key_expiry=1795604630),
        {"audiences": ["vault"]},
    )
    answer = await running.ask(WHOAMI)
    assert (answer.status, answer.fields["Cache-Control"]) == (200, "no-store")
    assert answer.json == {
        "sub": "user:123",
        "user": "dev@example.com",
        "display_name": "Dev",
        "node": "laptop.dev.tailnet.test",
        "node_id": "nStable",
        "addresses": ["100.64.0.2"],
        "shared": False,
        "expired": False,
        "key_expires_at": 1795604630,
        "audiences": ["sts.example", "vault"],
        "without_audience": True,
        "refusal": None,
        "roles": ["viewer"],
    }
    assert world.audit.lines == []


async def test_whoami_of_a_tagged_node(running: Running, world: World) -> None:
    """A tagged node sees its tags, and no user."""
    world.caller = Identity(node_id="nCi", node="ci.dev.tailnet.test", tags=("tag:ci",))
    said = (await running.ask(WHOAMI)).json
    assert (said["sub"], said["tags"]) == ("node:nCi", ["tag:ci"])
    assert said["key_expires_at"] is None
    assert not said.keys() & {"user", "display_name"}


async def test_whoami_answers_a_caller_that_gets_no_token(running: Running, world: World) -> None:
    """A shared node sees that it is shared, and why it gets no token."""
    world.caller = msgspec.structs.replace(PERSON, shared=True)
    answer = await running.ask(WHOAMI)
    assert (answer.status, answer.json["shared"], answer.json["audiences"]) == (200, True, [])
    assert answer.json["refusal"]["error"] == "shared_caller"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (WHOAMI.replace(b"tailbone", b"evil.example"), 421, "wrong_host"),
        (WHOAMI.replace(b"\r\n\r\n", b"\r\nOrigin: http://tailbone\r\n\r\n"), 403, "browser_request"),
        (issue("dry_run=true").replace(b"tailbone", b"evil.example"), 421, "wrong_host"),
        (
            issue("dry_run=true").replace(b"\r\n\r\n", b"\r\nSec-Fetch-Site: cross-site\r\n\r\n"),
            403,
            "browser_request",
        ),
    ],
)
async def test_the_checks_of_issue_apply(running: Running, request_: bytes, status: int, code: str) -> None:
    """A web page learns nothing about its visitor."""
    answer = await running.ask(request_)
    assert (answer.status, answer.json["error"]) == (status, code)


async def test_whoami_of_an_unknown_caller(running: Running, world: World) -> None:
    """An address without a node is refused."""
    world.caller = UnknownCallerError("no node of this tailnet has your address")
    assert (await running.ask(WHOAMI)).status == 403


async def test_a_dry_run_shows_the_claims(running: Running, world: World) -> None:
    """The claims of the token, without jti; every rule; nothing is signed, and no token's line is written."""
    rule, other = {"audiences": ["vault"], "ttl": "2h", "groups": ["a"]}, {"audiences": ["other"]}
    world.caller = granting(PERSON, rule, other, {"x": 1})
    answer = await running.ask(issue("dry_run=true&audience=vault"))
    assert answer.status == 200
    assert answer.json == {
        "claims": {
            "iss": "https://issuer.example",
            "sub": "user:123",
            "aud": "vault",
            "iat": 1795518225,
            "nbf": 1795518225,
            "exp": 1795519430,
            "user": "dev@example.com",
            "display_name": "Dev",
            "node": "laptop.dev.tailnet.test",
            "node_id": "nStable",
            "groups": ["a"],
        },
        "rules": [
            {"rule": rule, "matches": True},
            {"rule": other, "matches": False},
            {"rule": '{"x":1}', "matches": False, "void": "Object contains unknown field `x`"},
        ],
        "notes": ["the ttl 2h is shortened to keys.expiry, 20m"],
    }
    assert (world.audit.lines, world.log.lines) == ([], [])


@pytest.mark.parametrize("audience", ["vault", "other"])
async def test_a_dry_run_is_refused_as_the_request_would_be(
    running: Running, world: World, audience: str
) -> None:
    """Status, code and message are those of the same request without dry_run."""
    world.caller = granting(
        PERSON,
        {"audiences": ["vault"], "claims": {"team": "secret-a"}},
        {"audiences": ["vault"], "claims": {"team": "secret-b"}},
    )
    dry = await running.ask(issue(f"dry_run=true&audience={audience}"))
    real = await running.ask(issue(f"audience={audience}"))
    assert (dry.status, dry.json) == (real.status, real.json)
    assert dry.status == 403
    assert b"secret" not in dry.body


async def test_a_conflict_is_logged_with_both_values(running: Running, world: World) -> None:
    """The log names the claim and its values."""
    world.caller = granting(PERSON, {"claims": {"team": "a"}}, {"claims": {"team": "b"}})
    assert (await running.ask(issue("ttl=5m"))).json["error"] == "grant_conflict"
    [line] = world.log.of("request refused")
    assert line.fields["detail"] == 'claim team has two values: "a" and "b"'


async def test_a_dry_run_needs_a_signing_key(running: Running, world: World) -> None:
    """Without a key there would be no token either."""
    world.signing = None
    assert (await running.ask(issue("dry_run=true"))).json["error"] == "no_signing_key"


async def test_the_line_of_a_granted_subject_names_the_caller(running: Running, world: World) -> None:
    """Where a grant names the subject, the token's line has the caller's own, too."""
    world.caller = granting(PERSON, {"subject": "ci"})
    assert (await running.ask(issue("ttl=5m"))).status == 200
    [line] = world.audit.lines
    assert (line.fields["sub"], line.fields["caller"]) == ("cap:ci", "user:123")


async def test_access_by_grant(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """Without a rule there is no token; a changed rule counts for the next request of a connection."""
    world.settings = msgspec.structs.replace(world.settings, access="grant", audiences=())
    async with start(world) as running:
        client = await running.connect()
        assert (await client.ask(issue("audience=vault"))).json["error"] == "no_grant"
        world.caller = granting(PERSON, {"audiences": ["vault"]})
        assert (await client.ask(issue("audience=vault"))).status == 200
        world.caller = granting(PERSON, {"audiences": ["other"]})
        assert (await client.ask(issue("audience=vault"))).json["error"] == "no_grant"


async def test_a_denied_caller(
    start: Callable[[World], AbstractAsyncContextManager[Running]], world: World
) -> None:
    """issuer.deny wins over grants."""
    world.settings = msgspec.structs.replace(world.settings, deny=frozenset({"user:123"}))
    world.caller = granting(PERSON, {"audiences": ["*"]})
    async with start(world) as running:
        answer = await running.ask(issue("audience=vault"))
    assert (answer.status, answer.json["error"]) == (403, "denied")
