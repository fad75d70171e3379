"""What a caller would get, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from harness.grants import as_json
from harness.settings import issuer_settings

from tailbone.errors import NoGrantError
from tailbone.token.explain import explain
from tailbone.token.grants import TOKEN_CAPABILITY
from tailbone.token.identity import Identity
from tailbone.token.policy import TokenRequest

SETTINGS = issuer_settings(issuer="https://issuer.example", expiry_s=1200, audiences=("sts.example",))


def caller(*rules: Any) -> Identity:
    return Identity(
        node_id="nCi",
        node="ci.dev.tailnet.test",
        tags=("tag:ci",),
        capabilities={TOKEN_CAPABILITY: as_json(*rules)},
    )


@pytest.mark.parametrize(
    ("access", "audience", "consequence"),
    [
        ("acl", None, "a token without aud needs none"),
        ("acl", "sts.example", "issuer.audiences alone decides"),
        ("grant", None, "a token needs one"),
    ],
)
def test_what_follows_if_no_rule_matches(access: Any, audience: str | None, consequence: str) -> None:
    """The note says what decides instead."""
    settings = msgspec.structs.replace(SETTINGS, access=access)
    found = explain(caller(), TokenRequest(audience=audience), settings, now=1e9, expiry_s=1200)
    assert found.notes == [
        f"no rule of {TOKEN_CAPABILITY} is for this request; {consequence} (issuer.access)"
    ]
    assert isinstance(found.refusal, NoGrantError) == (access == "grant")
    assert bool(found.claims) == (access == "acl")


def test_every_rule_is_shown() -> None:
    """Those that match, those for other audiences, and void ones with the reason."""
    rules = {"audiences": ["vault"], "ttl": "1h"}, {"audiences": ["other"]}, {"ttl": 5}
    found = explain(caller(*rules), TokenRequest(audience="vault"), SETTINGS, now=1e9, expiry_s=600)
    assert [(rule.rule, rule.matches, bool(rule.void)) for rule in found.rules] == [
        (rules[0], True, False),
        (rules[1], False, False),
        ('{"ttl":5}', False, True),
    ]
    assert found.notes == ["the ttl 1h is shortened to keys.expiry, 20m"]
    assert found.claims["exp"] == 1000000600


def test_what_is_shown_of_many_rules_is_bounded() -> None:
    """Fifty rules are shown, and the beginning of a long void one; a note says how many there are."""
    rules = [*({"audiences": ["vault"]} for _ in range(48)), *({"x" * 9000: number} for number in range(9))]
    found = explain(caller(*rules), TokenRequest(audience="vault"), SETTINGS, now=1e9, expiry_s=600)
    assert len(found.rules) == 50
    assert found.notes == ["50 of 57 rules are shown"]
    assert (len(found.rules[-1].rule), len(found.rules[-1].void)) == (501, 501)
