"""``tailbone explain`` as a user runs it: in its own process, against a real server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import yaml
from harness.admin import CI, DEV
from harness.grants import as_json

from tailbone.token.grants import TOKEN_CAPABILITY

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.admin import GoServer, Running

    from tailbone.token.identity import Identity

    Run = Callable[..., Any]

RULE = {"audiences": ["vault"], "groups": ["deployers"]}
OTHER = {"audiences": ["other"]}
VOID = {"audience": "vault"}


def there(server: Running | GoServer) -> tuple[object, ...]:
    return "--host", "127.0.0.1", "--port", server.port


def granting(identity: Identity, *values: Any) -> Identity:
    return msgspec.structs.replace(
        identity, capabilities={TOKEN_CAPABILITY: as_json(*values)}, addresses=("100.64.0.7",)
    )


async def test_explain_as_json(tailbone: Run, run: Running) -> None:
    """JSON has the node, every rule, and the claims without jti."""
    run.nodes = [DEV, granting(CI, RULE, OTHER, VOID)]
    ended = await tailbone("explain", "ci", "--audience", "vault", *there(run), "-o", "json")
    assert (ended.status, ended.err) == (0, "")
    assert json.loads(ended.out) == {
        "node": "ci.dev.tailnet.test",
        "sub": "node:nCi",
        "caller": "tag:ci",
        "addresses": ["100.64.0.7"],
        "rules": [
            {"rule": RULE, "matches": True},
            {"rule": OTHER, "matches": False},
            {
                "rule": '{"audience":"vault"}',
                "matches": False,
                "void": "Object contains unknown field `audience`",
            },
        ],
        "notes": [],
        "claims": {
            "iss": "https://issuer.example",
            "sub": "node:nCi",
            "aud": "vault",
            "iat": 1795518225,
            "nbf": 1795518225,
            "exp": 1795519430,
            "tags": ["tag:ci"],
            "node": "ci.dev.tailnet.test",
            "node_id": "nCi",
            "groups": ["deployers"],
        },
    }


async def test_explain_as_text(tailbone: Run, run: Running) -> None:
    """Text has a line for each rule and each claim."""
    run.nodes = [granting(CI, RULE, VOID)]
    ended = await tailbone("explain", "100.64.0.7", "--audience", "vault", *there(run))
    assert ended.status == 0
    assert ended.out.splitlines()[:5] == [
        "node     ci.dev.tailnet.test (100.64.0.7)",
        "caller   tag:ci (node:nCi)",
        'matches  {"audiences":["vault"],"groups":["deployers"]}',
        'void     {"audience":"vault"}',
        "         Object contains unknown field `audience`",
    ]
    assert 'groups   ["deployers"]' in ended.out.splitlines()


async def test_explain_a_refusal(tailbone: Run, run: Running) -> None:
    """A refusal is a result, with the reason that the caller itself does not see."""
    run.nodes = [granting(CI, {"claims": {"team": "a"}}, {"claims": {"team": "b"}})]
    ended = await tailbone("explain", "ci", *there(run), "-o", "yaml")
    assert ended.status == 0
    refusal = yaml.safe_load(ended.out)["refusal"]
    assert (refusal["error"], refusal["detail"]) == (
        "grant_conflict",
        'claim team has two values: "a" and "b"',
    )
    text = await tailbone("explain", "ci", *there(run))
    assert "refused  grant_conflict: the tailnet's grants" in text.out
    assert text.out.endswith('claim team has two values: "a" and "b"\n')


async def test_explain_an_unknown_node(tailbone: Run, run: Running) -> None:
    """A name or address that no node has is an error."""
    ended = await tailbone("explain", "nobody", *there(run))
    assert (ended.status, ended.err) == (1, 'tailbone: "nobody" is not a peer of this tailnet\n')
    ended = await tailbone("explain", "100.64.0.99", *there(run))
    assert (ended.status, ended.err) == (1, "tailbone: no node of this tailnet has the address 100.64.0.99\n")


async def test_an_old_server(tailbone: Run, go_server: GoServer) -> None:
    """A server without the method says to update it."""
    ended = await tailbone("explain", "ci", *there(go_server))
    assert (ended.status, ended.err) == (
        1,
        "tailbone: the server is too old for this command: update it\n",
    )


async def test_status_counts_void_rules(tailbone: Run, run: Running) -> None:
    """``keys status`` shows how many void rules callers have."""
    assert run.caller is not None
    run.caller = msgspec.structs.replace(
        run.caller, capabilities={"tailbone.dev/cap/admin": as_json({"role": "admin"}, 7)}
    )
    ended = await tailbone("keys", "status", *there(run))
    assert "void rules  2 in the tailnet's policy: the log says why" in ended.out.splitlines()
    ended = await tailbone("keys", "status", *there(run), "-o", "json")
    assert json.loads(ended.out)["void_rules"] == 2
    assert [facts["reason"] for _, event, facts in run.log.lines if event.startswith("a rule in")] == [
        "Object contains unknown field `role`",
        "Expected `object`, got `int`",
    ]
