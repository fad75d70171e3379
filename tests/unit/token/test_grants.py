"""Rules of the tailnet's policy are decoded strictly, each on its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from harness.grants import as_json
from hypothesis import given
from hypothesis import strategies as st

from tailbone.token import claims
from tailbone.token.grants import (
    OWN_CLAIMS,
    RESERVED_CLAIMS,
    TOKEN_CAPABILITY,
    GrantRule,
    Void,
    granted,
    parse_rule,
)
from tailbone.token.identity import Identity

WHOLE = {
    "audiences": ["sts.amazonaws.com"],
    "ttl": "30m",
    "groups": ["deployers"],
    "scope": "read:*",
    "claims": {"team": "infra", "level": 3, "on_call": True, "roles": ["a", "b"]},
    "awsTags": {"team": "infra"},
    "subject": "ci",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_a_rule_with_every_member() -> None:
    """Each member of a rule is decoded."""
    assert parse_rule(WHOLE) == GrantRule(
        source=WHOLE,
        audiences=frozenset({"sts.amazonaws.com"}),
        ttl_s=1800,
        groups=("deployers",),
        scope="read:*",
        claims={"team": "infra", "level": 3, "on_call": True, "roles": ("a", "b")},
        aws_tags={"team": "infra"},
        subject="ci",
    )


@pytest.mark.parametrize(
    ("audiences", "covered"),
    [
        ({}, [None]),
        ({"audiences": ["a"]}, ["a"]),
        ({"audiences": ["a", "b"]}, ["a", "b"]),
        ({"audiences": ["*"]}, ["a", "b", "c", "A", "*"]),
    ],
)
def test_the_audiences_that_a_rule_covers(audiences: dict[str, Any], covered: list[str | None]) -> None:
    """A rule covers its exact audiences, ``*`` any; without audiences, tokens without aud."""
    rule = parse_rule(audiences)
    assert [each for each in (None, "a", "b", "c", "A", "*") if rule.covers(each)] == covered


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", "Expected `object`, got `str`"),
        (7, "Expected `object`, got `int`"),
        (None, "Expected `object`, got `null`"),
        ([], "Expected `object`, got `array`"),
        ({"audience": ["a"]}, "Object contains unknown field `audience`"),
        ({"aws_tags": {}}, "Object contains unknown field `aws_tags`"),
        ({"audiences": "a"}, "Expected `array`, got `str` - at `$.audiences`"),
        ({"audiences": None}, "Expected `array`, got `null` - at `$.audiences`"),
        ({"audiences": []}, "audiences is empty: omit it for tokens without aud"),
        ({"audiences": [""]}, "Expected `str` of length >= 1 - at `$.audiences[0]`"),
        (
            {"audiences": ["*.example"]},
            "audience '*.example': there are no patterns, only exact names and \"*\"",
        ),
        ({"ttl": 30}, "Expected `str`, got `int` - at `$.ttl`"),
        ({"ttl": "30"}, "ttl has a number without a unit; a duration such as 5m or 1h30m is allowed"),
        ({"ttl": "0s"}, "ttl must be whole seconds, at least 1s"),
        ({"ttl": "-5m"}, "ttl must be whole seconds, at least 1s"),
        ({"ttl": "1500ms"}, "ttl must be whole seconds, at least 1s"),
        ({"groups": "a"}, "Expected `array`, got `str` - at `$.groups`"),
        ({"groups": [1]}, "Expected `str`, got `int` - at `$.groups[0]`"),
        ({"claims": {"sub": "user:1"}}, "claim sub is reserved"),
        ({"claims": {"email": "a@b"}}, "claim email is reserved"),
        ({"claims": {"groups": "a"}}, "claim groups is reserved"),
        ({"claims": {"Exp": 4102444800}}, "claim Exp is reserved"),
        ({"claims": {"AUD": "a"}}, "claim AUD is reserved"),
        ({"claims": {"team": "a", "Team": "b"}}, "claims 'team' and 'Team' differ only in case"),
        (
            {"claims": {"https://aws.amazon.com/source_identity": "a"}},
            "claim https://aws.amazon.com/source_identity is reserved",
        ),
        ({"claims": {"https://aws.amazon.com/tags": "a"}}, "claim https://aws.amazon.com/tags is reserved"),
        ({"claims": {"": 1}}, "claim '': a name has 1 to 128 letters, digits and _ : / . -"),
        ({"claims": {"a b": 1}}, "claim 'a b': a name has 1 to 128 letters, digits and _ : / . -"),
        (
            {"claims": {f"c{number}": 1 for number in range(21)}},
            "the rule has 21 claims; at most 20 are allowed",
        ),
        ({"claims": {"a": 2**53 + 1}}, "Expected `int` <= 9007199254740992 - at `$.claims[...]`"),
        ({"awsTags": {"a": 1}}, "Expected `str`, got `int` - at `$.awsTags[...]`"),
        ({"awsTags": {"a": "1", "A": "2"}}, "awsTags 'a' and 'A' differ only in case"),
        ({"awsTags": {"": "a"}}, "awsTags '': a key has 1 to 128 characters, a value at most 256"),
        ({"awsTags": {"a": "b" * 257}}, "awsTags 'a': a key has 1 to 128 characters, a value at most 256"),
        ({"awsTags": {"a": "?"}}, "awsTags 'a': letters, digits, spaces and _ . : / = + - @ are allowed"),
        (
            {"awsTags": {f"t{number}": "" for number in range(51)}},
            "the rule has 51 awsTags; at most 50 are allowed",
        ),
    ],
)
def test_what_makes_a_rule_void(value: Any, reason: str) -> None:
    """An unknown member, a wrong type, a reserved claim or a value out of bounds makes a rule void."""
    found = granted({TOKEN_CAPABILITY: as_json(value)}, TOKEN_CAPABILITY)
    assert found.rules == ()
    assert found.void == (Void(capability=TOKEN_CAPABILITY, source=as_json(value)[0], reason=reason),)


@pytest.mark.parametrize("value", [None, {"a": 1}, ["a", 1], [["a"]]])
def test_claims_are_scalars_or_lists_of_strings(value: Any) -> None:
    """Any other value of a claim makes the rule void."""
    with pytest.raises(ValueError):
        parse_rule({"claims": {"a": value}})


@pytest.mark.parametrize("subject", ["", "a b", "a*", "a?", "é", "a\n", "x" * 121])
def test_subjects_that_are_refused(subject: str) -> None:
    """A subject is 1 to 120 printable ASCII characters, and never a pattern."""
    with pytest.raises(ValueError, match=r"subject must be 1 to 120 printable ASCII characters"):
        parse_rule({"subject": subject})


@pytest.mark.parametrize("scope", ["", " a", "a  b", 'a"', "a\\", "a\tb", "é"])
def test_scopes_that_are_refused(scope: str) -> None:
    """A scope is words separated by single spaces (RFC 6749 section 3.3)."""
    with pytest.raises(ValueError, match=r"scope must be words of ASCII separated by single spaces"):
        parse_rule({"scope": scope})


def test_a_rule_is_at_most_4_kib() -> None:
    """A rule above the limit is void by itself."""
    with pytest.raises(ValueError, match=r"the rule has \d+ bytes of JSON; at most 4096 are allowed"):
        parse_rule({"claims": {"a": "x" * 4097}})


def test_every_claim_of_a_token_is_reserved() -> None:
    """No rule can set a claim that tailbone writes."""
    assert set(claims.Claims.__struct_fields__) <= OWN_CLAIMS <= RESERVED_CLAIMS


def test_a_void_rule_leaves_the_others() -> None:
    """Each value is decoded on its own."""
    found = granted({TOKEN_CAPABILITY: as_json({"audiences": ["a"]}, {"x": 1}, WHOLE)}, TOKEN_CAPABILITY)
    assert [rule.source for rule in found.rules] == [{"audiences": ["a"]}, WHOLE]
    assert [void.source for void in found.void] == ['{"x":1}']


@pytest.mark.parametrize(
    "capabilities", [{}, {TOKEN_CAPABILITY: ()}, {"example.com/cap/other": as_json(WHOLE)}]
)
def test_without_the_capability_nothing_is_granted(capabilities: dict[str, tuple[str, ...]]) -> None:
    """Only the values of the capability that the settings name count."""
    found = granted(capabilities, TOKEN_CAPABILITY)
    assert (found.rules, found.void) == ((), ())


@given(st.lists(JSON, max_size=4))
def test_any_json_is_a_rule_or_void(values: list[Any]) -> None:
    """No JSON value raises, and each is accounted for."""
    found = granted({TOKEN_CAPABILITY: as_json(*values)}, TOKEN_CAPABILITY)
    assert len(found.rules) + len(found.void) == len(values)


@given(
    st.dictionaries(st.sampled_from([*WHOLE, "audience", "tags"]), JSON, min_size=1, max_size=3),
    st.booleans(),
)
def test_a_rule_with_one_wrong_member_is_void(members: dict[str, Any], whole: bool) -> None:
    """A rule is valid only if each of its members is valid in a rule of its own."""
    rule = {**WHOLE, **members} if whole else members
    alone = all(_is_valid({name: value}) for name, value in members.items())
    assert _is_valid(rule) == alone


def _is_valid(value: Any) -> bool:
    try:
        parse_rule(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "value", ["1e400", "9" * 5000, '"\\ud800"', '{"\\udfff":1}', "[" * 2000 + "]" * 2000, "", "{"]
)
def test_a_value_that_cannot_be_decoded_is_void(value: str) -> None:
    """It takes neither the other rules nor the caller with it, whichever capability has it."""
    values = [value, '{"ttl":"5m"}']
    capabilities = {"example.com/cap/x": values, TOKEN_CAPABILITY: values}
    answer = {"node_id": "n1", "node": "a.b", "tags": ["tag:ci"], "capabilities": capabilities}
    identity = Identity.decode(json.dumps(answer))
    found = granted(identity.capabilities, TOKEN_CAPABILITY)
    assert [rule.ttl_s for rule in found.rules] == [300]
    assert len(found.void) == 1
