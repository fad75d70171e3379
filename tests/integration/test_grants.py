"""Grants of the tailnet's policy decide what a caller gets, and a changed grant counts at once."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

import jwt
import msgspec
import pytest
from harness.tailnet import EVERYTHING
from harness.waiting import until

from tailbone.policy_file.example import EXAMPLE
from tailbone.policy_file.hujson import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet

RULE = {"audiences": ["vault"], "ttl": "5m", "groups": ["deployers"], "claims": {"team": "infra"}}


def granting(*rules: Any, src: str = "tag:ci", name: str = "tailbone.dev/cap/token") -> dict[str, Any]:
    """Return a grant of a capability on the servers."""
    return {"src": [src], "dst": ["tag:tailbone"], "ip": ["*"], "app": {name: list(rules)}}


@pytest.fixture
def grants(tailnet: Tailnet) -> Iterator[Callable[..., None]]:
    """Replace the grants beside the one that lets all nodes connect to each other."""
    yield lambda *more: tailnet.grant(EVERYTHING, *more)
    tailnet.grant(EVERYTHING)


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def test_changed_grants_count_for_the_next_request(
    server: Callable[..., Server], caller: Callable[..., Caller], grants: Callable[..., None]
) -> None:
    """With access by grant, audiences and claims come and go with the grants, while the server runs."""
    route = caller("tag:ci").to(server(TB_ISSUER_ACCESS="grant").name)
    assert route.issue("?audience=vault").json["error"] == "no_grant"

    grants(granting(RULE))
    until(lambda: route.issue("?audience=vault").status == 200, "a token")
    answer = route.issue("?audience=vault").json
    claims = claims_of(answer["token"])
    assert (claims["aud"], claims["groups"], claims["team"]) == ("vault", ["deployers"], "infra")
    assert claims["exp"] - claims["iat"] == 305
    assert route.issue("?audience=other").json["error"] == "no_grant"
    assert route.issue().json["error"] == "no_grant"
    assert route.issue("?audience=vault&ttl=6m").json["error"] == "bad_parameter"

    grants(granting(RULE), granting({"audiences": ["vault"], "claims": {"team": "web"}}))
    until(
        lambda: route.issue("?audience=vault").json.get("error") == "grant_conflict", "the rules contradict"
    )

    grants(granting({"audiences": ["*"], "subject": "ci"}))
    until(lambda: route.issue("?audience=other").status == 200, "a token for any audience")
    assert claims_of(route.issue("?audience=other").json["token"])["sub"] == "cap:ci"

    grants()
    until(lambda: route.issue("?audience=vault").json.get("error") == "no_grant", "no further token")


def test_a_changed_grant_counts_on_an_open_connection(
    server: Callable[..., Server], caller: Callable[..., Caller], grants: Callable[..., None]
) -> None:
    """The rules of a request are those of its moment, also on a connection that was open before."""
    route = caller("tag:ci").to(server(TB_ISSUER_ACCESS="grant").name)
    connection = http.client.HTTPConnection(route.address, timeout=10)

    def team() -> Any:
        connection.request("POST", "/issue?audience=vault", headers={"Host": route.host})
        answer = json.loads(connection.getresponse().read())
        return claims_of(answer["token"])["team"] if "token" in answer else answer["error"]

    assert team() == "no_grant"
    for name in ("infra", "web"):
        grants(granting({"audiences": ["vault"], "claims": {"team": name}}))
        until(lambda name=name: team() == name, "the claim of the new grant")
    grants()
    until(lambda: team() == "no_grant", "no further token")
    connection.close()


def test_grants_are_for_their_callers(
    server: Callable[..., Server], caller: Callable[..., Caller], grants: Callable[..., None]
) -> None:
    """With access by ACL, a grant adds an audience for its own sources only."""
    name = server("--audience", "sts.example").name
    ci, person = caller("tag:ci").to(name), caller().to(name)
    grants(granting(RULE))
    until(lambda: ci.issue("?audience=vault").status == 200, "a token")
    assert person.issue("?audience=vault").json["error"] == "audience_not_allowed"
    assert person.issue("?audience=sts.example").status == 200
    assert ci.get("/whoami").json["audiences"] == ["sts.example", "vault"]
    assert person.get("/whoami").json["audiences"] == ["sts.example"]
    dry = ci.issue("?dry_run=true&audience=vault").json
    assert (dry["claims"]["team"], dry["rules"]) == ("infra", [{"rule": RULE, "matches": True}])


def test_a_void_rule(
    server: Callable[..., Server], caller: Callable[..., Caller], grants: Callable[..., None]
) -> None:
    """A void rule is warned of once, and leaves the others."""
    started = server()
    route = caller("tag:ci").to(started.name)
    grants(granting({"audiences": ["vault"], "ttl": 5}, RULE))
    until(lambda: route.issue("?audience=vault").status == 200, "a token")
    for _ in range(3):
        assert route.issue("?audience=vault").status == 200
    [warning] = started.events("a rule in the tailnet's policy is void and grants nothing")
    assert (warning["level"], warning["rule"]) == ("warn", '{"audiences":["vault"],"ttl":5}')

    broken = msgspec.Raw(b'"\\ud800"'), msgspec.Raw(b"[" * 2000 + b"]" * 2000)
    grants(granting(*broken, name="example.com/cap/other"), granting(*broken, RULE))
    until(lambda: len(route.issue("?dry_run=true&audience=vault").json.get("rules", [])) == 3, "all rules")
    assert route.issue("?audience=vault").status == 200


def test_a_denied_tag(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """issuer.deny refuses a tag, and nobody else."""
    name = server(TB_ISSUER_DENY="tag:ci").name
    assert caller("tag:ci").to(name).issue().json["error"] == "denied"
    assert caller().to(name).issue().status == 200


def test_the_example_policy(
    server: Callable[..., Server], caller: Callable[..., Caller], grants: Callable[..., None]
) -> None:
    """The grants that `tailbone policy example` prints do what they say."""
    route = caller("tag:ci").to(server(TB_ISSUER_ACCESS="grant").name)
    ci, _admins = parse(EXAMPLE).value["grants"]
    grants(ci)
    until(lambda: route.issue("?audience=sts.amazonaws.com").status == 200, "a token")
    assert claims_of(route.issue("?audience=sts.amazonaws.com").json["token"])["groups"] == ["deployers"]
    assert route.issue("?audience=other").json["error"] == "no_grant"


def test_explain(
    server: Callable[..., Server],
    caller: Callable[..., Caller],
    grants: Callable[..., None],
    tailbone: Callable[..., Program],
) -> None:
    """`tailbone explain` shows what another node would get, found by its name or address."""
    started, ci = server(), caller("tag:ci")
    admin = caller().to(started.name, 50051)
    host, _, port = admin.address.rpartition(":")
    grants(granting(RULE))
    until(lambda: ci.to(started.name).issue("?audience=vault").status == 200, "the grant has arrived")
    for node in (ci.name.partition(".")[0], ci.name, *ci.addresses):
        explained = tailbone(
            "explain", node, "--audience", "vault", "--host", host, "--port", port, "-o", "json"
        )
        assert explained.wait() == 0, explained.output()
        found = json.loads(explained.out[0])
        assert (found["node"], found["claims"]["team"]) == (ci.name, "infra")
        assert found["rules"] == [{"rule": RULE, "matches": True}]
    nobody = tailbone("explain", "nobody", "--host", host, "--port", port)
    assert (nobody.wait(), nobody.out) == (1, [])
    assert '"nobody" is not a peer of this tailnet' in nobody.err[0]
