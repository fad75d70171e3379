"""The linter finds what the server would not accept, and what is likely a mistake."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.policy_file.lint import Finding, Server, lint
from tailbone.token.grants import TOKEN_CAPABILITY, parse_rule

SERVER = Server(
    token_capability="tailbone.dev/cap/token",
    admin_capability="tailbone.dev/cap/admin",
    port=80,
    admin_port=50051,
)


def found(policy: str | dict[str, Any]) -> list[tuple[int, str, str]]:
    text = policy if isinstance(policy, str) else json.dumps(policy)
    return [(finding.line, finding.level, finding.message) for finding in lint(text, SERVER)[0]]


def grant(*rules: Any, name: str = TOKEN_CAPABILITY, **members: Any) -> dict[str, Any]:
    usual = {"src": ["tag:ci"], "dst": ["tag:tailbone"], "ip": ["*"], "app": {name: list(rules)}}
    return {**usual, **members}


def messages(*grants: dict[str, Any], **sections: Any) -> list[str]:
    return [f"{level}: {message}" for _, level, message in found({"grants": list(grants), **sections})]


def test_a_good_policy() -> None:
    """Nothing is found in a policy that the server takes whole."""
    policy = {
        "grants": [grant({"audiences": ["a"]}), grant({"roles": ["viewer"]}, name="tailbone.dev/cap/admin")]
    }
    assert lint(json.dumps(policy), SERVER) == ([], 2)


def test_other_capabilities_are_not_judged() -> None:
    """Grants of other programs are left alone, even where they are wide."""
    assert messages(grant({"x": 1}, name="example.com/cap/x", src=["*"], dst=["*"])) == []


def test_a_void_rule_is_an_error_in_its_line() -> None:
    """The error has the line of the member that is wrong, and the reason of the server's own decoder."""
    policy = """{
      // ours
      "grants": [{
        "src": ["tag:ci"], "dst": ["tag:tailbone"], "ip": ["tcp:80", "tcp:50051"],
        "app": {
          "tailbone.dev/cap/token": [
            {"audiences": ["a"],
             "ttl": 5},
            "text",
            {"audiences": ["a"], "claims": {"sub": "x"}},
          ],
          "tailbone.dev/cap/admin": [{"roles": ["root"]}],
        },
      }],
    }"""
    assert found(policy) == [
        (8, "error", "void: Expected `str`, got `int` - at `$.ttl`"),
        (9, "error", "void: Expected `object`, got `str`"),
        (10, "error", "void: claim sub is reserved"),
        (12, "error", "void: Invalid enum value 'root' - at `$.roles[0]`"),
    ]


@given(
    st.dictionaries(
        st.sampled_from(["audiences", "ttl", "groups", "scope", "x"]), st.just(["a"]) | st.just("5m")
    )
)
def test_the_linter_judges_as_the_server_does(rule: dict[str, Any]) -> None:
    """A rule is an error exactly if the server finds it void."""
    try:
        parse_rule(rule)
        void = False
    except ValueError:
        void = True
    assert any(level == "error" for _, level, _ in found({"grants": [grant(rule)]})) == void


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("{", 1, "not HuJSON: the name of a member must be in double quotes"),
        ("\n[]", 2, "a policy is an object"),
        ('{"grants": [],\n"grants": []}', 2, "grants is given twice in one object: only the last one counts"),
    ],
)
def test_a_file_that_cannot_be_read(text: str, line: int, message: str) -> None:
    """A file that is not a policy is an error."""
    assert found(text) == [(line, "error", message)]


def test_an_unknown_capability() -> None:
    """A capability of tailbone's domain that no server reads is an error, as is one that is not a list."""
    known = "tailbone.dev/cap/token and tailbone.dev/cap/admin"
    assert messages(grant({}, name="tailbone.dev/cap/tokens")) == [
        f"error: tailbone.dev/cap/tokens is unknown; the server reads {known}"
    ]
    assert messages(grant(app={TOKEN_CAPABILITY: {"audiences": ["a"]}})) == [
        "error: tailbone.dev/cap/token must be a list of objects"
    ]


def test_a_capability_in_another_place() -> None:
    """A capability outside the app of a grant grants nothing."""
    misplaced = "error: tailbone.dev/cap/token is read from the app of a grant only"
    acl = {"action": "accept", "src": ["*"], "dst": ["*:*"], "app": {TOKEN_CAPABILITY: [{}]}}
    assert messages(acls=[acl]) == [misplaced]
    assert messages({"src": ["a"], "dst": ["b"], "ip": ["*"], TOKEN_CAPABILITY: [{}]}) == [misplaced]
    assert messages(**{TOKEN_CAPABILITY: [{}]}) == [misplaced]


def test_wide_grants() -> None:
    """A warning for every source, every destination, and a grant without network access."""
    assert messages(grant({}, src=["*"])) == [
        'warning: src is "*": this grants to every node, also those shared in'
    ]
    assert messages(grant({}, dst=["*"])) == ['warning: dst is "*": name the servers, such as tag:tailbone']
    without_ip = grant({})
    del without_ip["ip"]
    access = {"src": ["tag:ci"], "dst": ["tag:tailbone"], "ip": ["tcp:80"]}
    assert messages(access, without_ip) == [
        "warning: ip is missing: this grant alone lets nobody reach the server"
    ]


@pytest.mark.parametrize(
    ("access", "reaches"),
    [
        ({"grants": [{"src": ["a"], "dst": ["tag:tailbone"], "ip": ["tcp:80"]}]}, True),
        ({"grants": [{"src": ["a"], "dst": ["*"], "ip": ["*"]}]}, True),
        ({"grants": [{"src": ["a"], "dst": ["tag:tailbone"], "ip": ["70-90"]}]}, True),
        ({"grants": [{"src": ["a"], "dst": ["tag:tailbone"], "ip": ["tcp:*"]}]}, True),
        ({"grants": [{"src": ["a"], "dst": ["tag:tailbone"], "ip": ["udp:80", "tcp:81"]}]}, False),
        ({"grants": [{"src": ["a"], "dst": ["tag:other"], "ip": ["*"]}]}, False),
        ({"grants": [{"src": [], "dst": ["*"], "ip": ["*"]}]}, False),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["tag:tailbone:22,80"]}]}, True),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["*:*"]}]}, True),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["100.64.0.0/10:*"]}]}, True),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["[fd7a::1]:80"]}]}, True),
        ({"grants": [{"src": ["a"], "dst": ["autogroup:tagged"], "ip": ["80"]}]}, True),
        ({"acls": [{"action": "accept", "src": ["a"], "proto": "tcp", "dst": ["*:80"]}]}, True),
        ({"acls": [{"action": "accept", "src": ["a"], "proto": "udp", "dst": ["*:80"]}]}, False),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["tag:tailbone:443"]}]}, False),
        ({"acls": [{"action": "accept", "src": ["a"], "dst": ["tag:other:80"]}]}, False),
        ({}, False),
    ],
)
def test_nobody_reaches_the_port(access: dict[str, Any], reaches: bool) -> None:
    """A warning if neither grants nor acls open the server's port."""
    policy = {**access, "grants": [*access.get("grants", ()), grant({}, ip=["tcp:443"])]}
    warning = (1, "warning", "nothing in grants or acls lets anybody reach port 80 of tag:tailbone")
    assert found(policy) == ([] if reaches else [warning])


@pytest.mark.parametrize(
    ("one", "other", "warning"),
    [
        (
            {"audiences": ["a"], "claims": {"t": 1}},
            {"audiences": ["a", "b"], "claims": {"t": 2}},
            "claim t has two values: 1 and 2 for audience a",
        ),
        (
            {"audiences": ["*"], "scope": "r"},
            {"audiences": ["b"], "scope": "w"},
            'claim scope has two values: "r" and "w" for audience b',
        ),
        (
            {"subject": "r"},
            {"subject": "w"},
            'claim sub has two values: "r" and "w" for tokens without an audience',
        ),
        ({"audiences": ["a"], "claims": {"t": 1}}, {"audiences": ["b"], "claims": {"t": 2}}, ""),
        ({"audiences": ["*"], "scope": "r"}, {"scope": "w"}, ""),
        ({"audiences": ["a"], "groups": ["x"]}, {"audiences": ["a"], "groups": ["y"]}, ""),
    ],
)
def test_contradicting_rules(one: dict[str, Any], other: dict[str, Any], warning: str) -> None:
    """A warning for two rules that give one audience different values of a claim."""
    where = ", here and in line 1: a caller with both rules is refused (grant_conflict)"
    assert messages(grant(one), grant(other)) == ([f"warning: {warning}{where}"] if warning else [])


def test_other_capabilities_and_ports_of_the_settings() -> None:
    """The names and ports of the server's settings count."""
    server = Server(token_capability="example.com/cap/t", admin_capability="x.y/z", port=8080, admin_port=1)
    policy = {"grants": [grant({"x": 1}, name="example.com/cap/t", ip=["tcp:80"])]}
    assert lint(json.dumps(policy), server)[0] == [
        Finding(line=1, level="error", message="void: Object contains unknown field `x`"),
        Finding(
            line=1,
            level="warning",
            message="nothing in grants or acls lets anybody reach port 8080 of tag:tailbone",
        ),
    ]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"grants": {"a": 1}}, "grants must be a list of objects: it grants nothing"),
        ({"grants": ["a"]}, "grants must be a list of objects: it grants nothing"),
        ({"grants": [], "acls": "*"}, "acls must be a list of objects: it grants nothing"),
        ({"grants": [grant(app=[{TOKEN_CAPABILITY: []}])]}, "app must be an object: it grants nothing"),
        ({"grants": [grant({}, src="*")]}, "src must be a list of text: it grants nothing"),
        ({"grants": [grant({}, dst="tag:a")]}, "dst must be a list of text: it grants nothing"),
        ({"grants": [grant({}, src=[1])]}, "src must be a list of text: it grants nothing"),
        ({"grants": [grant({}, src=[])]}, "src is empty or missing: this grants nothing"),
        ({"grants": [grant({}, dst=[])]}, "dst is empty or missing: this grants nothing"),
        ({"grants": [grant()]}, "tailbone.dev/cap/token is an empty list: it grants nothing"),
    ],
)
def test_a_policy_that_grants_nothing(policy: dict[str, Any], message: str) -> None:
    """A wrong type or an empty list is an error, which Tailscale may not report."""
    assert (1, "error", message) in found(policy)


@pytest.mark.parametrize("name", ["tailbone.dev/cap/Token", "Tailbone.dev/cap/token"])
def test_a_capability_in_another_case(name: str) -> None:
    """Names are compared exactly."""
    [message] = messages(grant({}, name=name))
    assert message.startswith(f"error: {name} is unknown")


def test_members_of_the_policy_in_another_case() -> None:
    """Tailscale and Headscale take the policy's own names in any case, as in older policies."""
    rule = {TOKEN_CAPABILITY: [{"audiences": ["a"]}]}
    wide = {"Src": ["*"], "Dst": ["tag:tailbone"], "IP": ["tcp:80"], "App": rule}
    assert found({"Grants": [wide]}) == [
        (1, "warning", 'src is "*": this grants to every node, also those shared in')
    ]
    access = {"Action": "accept", "Src": ["a"], "Dst": ["tag:tailbone:80"]}
    assert messages(grant({}, ip=["tcp:443"]), ACLs=[access]) == []


def test_many_rules() -> None:
    """The time grows with the number of rules, not with its square."""
    rules = [{"audiences": [f"a{number}"], "claims": {"t": number}} for number in range(2000)]
    began = time.process_time()
    assert messages(*map(grant, rules)) == []
    assert len(messages(*map(grant, rules), grant({"audiences": ["*"], "claims": {"t": "x"}}))) == 2
    assert time.process_time() - began < 10


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["grants", "acls", "app", "src", "dst", "ip", "action", TOKEN_CAPABILITY]),
            inner,
            max_size=4,
        )
    ),
)


@given(JSON)
def test_any_policy_is_judged(policy: Any) -> None:
    """No document raises."""
    lint(json.dumps(policy), SERVER)
