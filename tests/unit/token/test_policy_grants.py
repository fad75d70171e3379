"""Rules of the tailnet's policy decide together with the settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from harness.grants import as_json
from harness.settings import issuer_settings
from hypothesis import assume, given
from hypothesis import strategies as st

from tailbone.errors import (
    AudienceNotAllowedError,
    BadParameterError,
    DeniedError,
    GrantConflictError,
    NoGrantError,
    TailboneError,
)
from tailbone.token.grants import TOKEN_CAPABILITY, GrantRule, granted, parse_rule
from tailbone.token.identity import Identity
from tailbone.token.policy import Available, Decision, IssuerSettings, TokenRequest, admit, available, decide

ACL = issuer_settings(issuer="tailbone", expiry_s=1200, audiences=("sts.example",))
GRANT = msgspec.structs.replace(ACL, access="grant", audiences=())
PERSON = Identity(node_id="nLaptop", node="laptop", user_id=123, login="Dev@example.com")
TAGGED = Identity(node_id="nCi", node="ci", tags=("tag:ci", "tag:prod"))


def rules(*values: dict[str, Any]) -> tuple[GrantRule, ...]:
    return tuple(map(parse_rule, values))


def decided(audience: str | None, *values: dict[str, Any], settings: IssuerSettings = ACL) -> Decision:
    return decide(TokenRequest(audience=audience), settings, rules(*values))


# --- audiences


def test_acl_adds_granted_audiences() -> None:
    """With access by ACL, a granted audience is allowed beside those of the settings."""
    assert decided("vault", {"audiences": ["vault"]}) == Decision(audience="vault", ttl_s=1200)
    assert decided("sts.example", {"audiences": ["vault"]}) == Decision(audience="sts.example", ttl_s=1200)
    with pytest.raises(AudienceNotAllowedError, match=r"allowed: sts\.example, vault$"):
        decided("other", {"audiences": ["vault"]})


def test_acl_gives_a_token_without_aud_to_everybody() -> None:
    """With access by ACL, a caller needs no rule."""
    assert decided(None) == Decision(audience=None, ttl_s=1200)


def test_grant_needs_a_matching_rule() -> None:
    """With access by grant, a request without a matching rule is refused."""
    assert decided("vault", {"audiences": ["vault"]}, settings=GRANT).audience == "vault"
    assert decided("vault", {"audiences": ["*"]}, settings=GRANT).audience == "vault"
    assert decided(None, {"groups": ["a"]}, settings=GRANT).audience is None
    for audience, value in (("other", {"audiences": ["vault"]}), (None, {"audiences": ["*"]}), ("a", {})):
        with pytest.raises(NoGrantError):
            decided(audience, value, settings=GRANT)


def test_grant_is_bounded_by_the_audiences_of_the_settings() -> None:
    """With access by grant, issuer.audiences is an upper bound unless it is empty."""
    bounded = msgspec.structs.replace(GRANT, audiences=("sts.example",))
    assert decided("sts.example", {"audiences": ["*"]}, settings=bounded).audience == "sts.example"
    with pytest.raises(AudienceNotAllowedError):
        decided("vault", {"audiences": ["*", "vault"]}, settings=bounded)
    with pytest.raises(NoGrantError):
        decided("sts.example", {"audiences": ["vault"]}, settings=bounded)


# --- what rules add


def test_a_rule_counts_for_its_own_audiences_only() -> None:
    """Claims, groups, tags, ttl and subject of a rule for another audience are not given."""
    other = {
        "audiences": ["other"],
        "ttl": "1s",
        "groups": ["g"],
        "scope": "s",
        "claims": {"a": 1},
        "awsTags": {"t": "v"},
        "subject": "x",
    }
    assert decided("vault", {"audiences": ["vault"]}, other) == Decision(audience="vault", ttl_s=1200)


def test_rules_add_up() -> None:
    """Groups, lists, claims and AWS tags of all matching rules are given."""
    grant = decided(
        "vault",
        {"audiences": ["vault"], "groups": ["b", "a"], "claims": {"x": ["2", "1"]}, "awsTags": {"t": "1"}},
        {"audiences": ["*"], "groups": ["c", "a"], "claims": {"x": ["3"], "y": 1}, "awsTags": {"u": "2"}},
        {"audiences": ["vault"], "scope": "read write", "subject": "ci"},
    )
    assert grant == Decision(
        audience="vault",
        ttl_s=1200,
        subject="cap:ci",
        claims={
            "groups": ["a", "b", "c"],
            "scope": "read write",
            "x": ("1", "2", "3"),
            "y": 1,
            "https://aws.amazon.com/tags": {
                "principal_tags": {"t": ["1"], "u": ["2"]},
                "transitive_tag_keys": ["t", "u"],
            },
        },
    )


def test_claims_that_differ_only_in_case_conflict() -> None:
    """Readers that ignore case would see one of the two."""
    with pytest.raises(GrantConflictError) as caught:
        decided(None, {"claims": {"team": "a"}}, {"claims": {"Team": "a"}})
    assert "also spelled" in caught.value.detail


@pytest.mark.parametrize(
    ("ttls", "longest_s"),
    [([], 1200), (["5m"], 300), (["5m", "10m"], 600), (["5m", None], 300), (["2h"], 1200), ([None], 1200)],
)
def test_the_greatest_ttl_counts_up_to_the_setting(ttls: list[str | None], longest_s: int) -> None:
    """The longest lifetime is the greatest ttl that matching rules state, never above keys.expiry."""
    values = [{"audiences": ["vault"], **({"ttl": ttl} if ttl else {})} for ttl in ttls]
    found = rules({"audiences": ["vault"]}, *values)
    assert decide(TokenRequest(audience="vault"), ACL, found).ttl_s == longest_s
    assert decide(TokenRequest(audience="vault", ttl_s=longest_s), ACL, found).ttl_s == longest_s
    with pytest.raises(BadParameterError):
        decide(TokenRequest(audience="vault", ttl_s=longest_s + 1), ACL, found)


@pytest.mark.parametrize(
    ("one", "other", "detail"),
    [
        ({"claims": {"a": "x"}}, {"claims": {"a": "y"}}, 'claim a has two values: "x" and "y"'),
        ({"claims": {"a": 1}}, {"claims": {"a": True}}, "claim a has two values: 1 and true"),
        ({"claims": {"a": "1"}}, {"claims": {"a": 1}}, 'claim a has two values: "1" and 1'),
        ({"claims": {"a": "x"}}, {"claims": {"a": ["x"]}}, 'claim a has two values: "x" and ["x"]'),
        ({"scope": "r"}, {"scope": "w"}, 'claim scope has two values: "r" and "w"'),
        ({"subject": "s"}, {"subject": "t"}, 'claim sub has two values: "s" and "t"'),
        ({"awsTags": {"a": "x"}}, {"awsTags": {"a": "y"}}, 'awsTags a has two values: "x" and "y"'),
    ],
)
def test_conflicts(one: dict[str, Any], other: dict[str, Any], detail: str) -> None:
    """A claim with two values is refused in either order; the log names both, the answer neither."""
    for pair in ((one, other), (other, one)):
        with pytest.raises(GrantConflictError) as caught:
            decided(None, *pair)
        assert caught.value.detail == detail
        assert caught.value.message == (
            "the tailnet's grants for this audience contradict each other; an administrator finds the reason "
            "in the server's log"
        )
    assert decided(None, one, one) == decided(None, one)


def test_a_token_has_at_most_20_claims() -> None:
    """Rules that add up to more than 20 claims are refused."""
    values = [{"claims": {f"c{number}": 1}} for number in range(21)]
    assert len(decided(None, *values[:20]).claims) == 20
    with pytest.raises(GrantConflictError) as caught:
        decided(None, *values)
    assert caught.value.detail == "the rules for this audience add up to 21 claims; at most 20 are allowed"


def test_a_token_has_at_most_50_aws_tags() -> None:
    """Rules that add up to more AWS tags than AWS accepts are refused."""
    values = [{"awsTags": {f"t{number}": ""}} for number in range(51)]
    tags = decided(None, *values[:50]).claims["https://aws.amazon.com/tags"]
    assert len(tags["transitive_tag_keys"]) == 50
    with pytest.raises(GrantConflictError):
        decided(None, *values)


def test_a_token_has_at_most_4_kib_of_granted_claims() -> None:
    """Rules that add up to more than 4 KiB of JSON are refused."""
    values = [{"claims": {f"c{number}": "x" * 1300}} for number in range(4)]
    assert len(decided(None, *values[:3]).claims) == 3
    with pytest.raises(GrantConflictError):
        decided(None, *values)


# --- deny


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        (PERSON, "user:123"),
        (PERSON, "user:dev@example.com"),
        (PERSON, "node:nLaptop"),
        (TAGGED, "node:nCi"),
        (TAGGED, "tag:ci"),
        (TAGGED, "tag:prod"),
    ],
)
def test_denied_callers_get_nothing(identity: Identity, name: str) -> None:
    """A caller whose user, node or tag is listed is refused, whatever it is granted."""
    denying = msgspec.structs.replace(ACL, deny=frozenset({"tag:else", name}))
    with pytest.raises(DeniedError):
        admit(identity, denying)
    assert available(identity, denying, rules({"audiences": ["*"]})).audiences == ()


@pytest.mark.parametrize("name", ["user:0", "user:", "user:124", "node:nOther", "tag:other", "node:laptop"])
def test_other_callers_are_not_denied(name: str) -> None:
    """Only the listed ones are; a tagged node has no user."""
    denying = msgspec.structs.replace(ACL, deny=frozenset({name}))
    assert (admit(PERSON, denying).identity, admit(TAGGED, denying).identity) == (PERSON, TAGGED)


# --- what may be requested


def test_available_audiences() -> None:
    """GET /whoami lists exactly what requests would be allowed."""
    values = rules({"audiences": ["vault"]}, {"groups": ["a"]})
    bounded = msgspec.structs.replace(GRANT, audiences=("sts.example", "other"))
    everything = rules({"audiences": ["*"]})
    assert available(PERSON, ACL) == Available(audiences=("sts.example",), without_audience=True)
    assert available(PERSON, ACL, values) == Available(
        audiences=("sts.example", "vault"), without_audience=True
    )
    nothing = available(PERSON, GRANT)
    assert (nothing.audiences, nothing.without_audience) == ((), False)
    assert isinstance(nothing.refusal, NoGrantError)
    assert available(PERSON, GRANT, values) == Available(audiences=("vault",), without_audience=True)
    assert available(PERSON, bounded, everything) == Available(
        audiences=("other", "sts.example"), without_audience=False
    )
    assert available(PERSON, GRANT, everything) == Available(audiences=("*",), without_audience=False)


# --- properties

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.sampled_from(["x", "y", 1, 1.0, True])
VALID = st.fixed_dictionaries(
    {},
    optional={
        "audiences": st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2),
        "ttl": st.sampled_from(["1s", "5m", "2h"]),
        "groups": st.lists(NAMES, max_size=2),
        "scope": st.sampled_from(["r", "w"]),
        "claims": st.dictionaries(NAMES, SCALARS | st.lists(NAMES, max_size=2), max_size=2),
        "awsTags": st.dictionaries(NAMES, NAMES, max_size=2),
        "subject": st.sampled_from(["s", "t"]),
    },
)
BROKEN = st.sampled_from(
    [
        7,
        None,
        "a",
        {"audiences": []},
        {"audiences": ["*"], "extra": 1},
        {"audiences": ["*"], "claims": {"sub": "user:1"}},
        {"audiences": ["*"], "ttl": 1},
    ]
)
AUDIENCES = st.sampled_from([None, "a", "b", "c"])
SETTINGS = st.builds(
    issuer_settings,
    issuer=st.just("tailbone"),
    expiry_s=st.just(1200),
    audiences=st.sampled_from([(), ("a",), ("a", "c")]),
    access=st.sampled_from(["acl", "grant"]),
)


def outcome(audience: str | None, values: list[Any], settings: IssuerSettings) -> Decision | str:
    """Return what is decided for a capability's values, or the code of the refusal."""
    found = granted({TOKEN_CAPABILITY: as_json(*values)}, TOKEN_CAPABILITY).rules
    try:
        return decide(TokenRequest(audience=audience), settings, found)
    except TailboneError as error:
        return f"{error.code}: {error.detail}"


@given(AUDIENCES, st.lists(VALID, max_size=4), SETTINGS, st.randoms())
def test_the_order_of_rules_does_not_matter(
    audience: str | None, values: list[Any], settings: IssuerSettings, random: Any
) -> None:
    """Rules in any order give the same token or the same kind of refusal."""
    before = outcome(audience, values, settings)
    after = outcome(audience, random.sample(values, len(values)), settings)
    if isinstance(before, str) and isinstance(after, str):
        assert before.partition(":")[0] == after.partition(":")[0]
    else:
        assert msgspec.json.encode(before) == msgspec.json.encode(after)


@given(AUDIENCES, st.lists(VALID, max_size=3), st.lists(BROKEN, max_size=3), SETTINGS, st.randoms())
def test_a_void_rule_never_changes_anything(
    audience: str | None, values: list[Any], broken: list[Any], settings: IssuerSettings, random: Any
) -> None:
    """A void rule neither grants nor takes anything: the result is the one without it."""
    mixed = [*values, *broken]
    kept = random.sample(mixed, len(mixed))
    valid = [value for value in kept if isinstance(value, dict) and value not in broken]
    assume(not any(value in broken for value in values))
    assert outcome(audience, kept, settings) == outcome(audience, valid, settings)


@given(AUDIENCES, st.lists(VALID, max_size=4), SETTINGS)
def test_nothing_is_given_that_no_matching_rule_states(
    audience: str | None, values: list[Any], settings: IssuerSettings
) -> None:
    """Each part of a token comes from the settings or from a rule for its audience."""
    grant = outcome(audience, values, settings)
    if isinstance(grant, str):
        return
    matching = [
        value
        for value in values
        if (audience is None and "audiences" not in value)
        or (audience is not None and {audience, "*"} & set(value.get("audiences", ())))
    ]
    assert grant.audience == audience
    assert matching or settings.access == "acl"
    if audience is not None:
        in_settings = audience in settings.audiences
        assert (in_settings or not settings.audiences) if settings.access == "grant" else True
        assert in_settings or matching
    assert grant.ttl_s <= 1200
    assert set(grant.claims.get("groups", ())) == {
        name for value in matching for name in value.get("groups", ())
    }
    assert grant.subject.removeprefix("cap:") in {value.get("subject", "") for value in [*matching, {}]}
    for name in set(grant.claims) - {"groups", "scope", "https://aws.amazon.com/tags"}:
        assert any(name in value.get("claims", {}) for value in matching)
    if tags := grant.claims.get("https://aws.amazon.com/tags"):
        given_tags = {(key, tag) for value in matching for key, tag in value.get("awsTags", {}).items()}
        assert {(key, tag) for key, [tag] in tags["principal_tags"].items()} == given_tags


@given(AUDIENCES, st.lists(VALID, max_size=3), VALID, SETTINGS)
def test_another_rule_never_takes_an_audience_away(
    audience: str | None, values: list[Any], more: dict[str, Any], settings: IssuerSettings
) -> None:
    """One more rule refuses nothing that was allowed, unless rules then contradict each other."""
    before, after = outcome(audience, values, settings), outcome(audience, [*values, more], settings)
    if not isinstance(before, str):
        assert not isinstance(after, str) or after.startswith("grant_conflict")


def test_a_refusal_names_twenty_audiences() -> None:
    """However many the grants contain."""
    rules = [{"audiences": [f"a{number}" for number in range(100)]}]
    found = granted({TOKEN_CAPABILITY: as_json(*rules)}, TOKEN_CAPABILITY).rules
    with pytest.raises(AudienceNotAllowedError, match=r"a0, .* and 81 more \(GET /whoami\)$") as caught:
        decide(TokenRequest(audience="b"), ACL, found)
    assert len(caught.value.message) < 300


def test_a_missing_grant_comes_before_a_wrong_lifetime() -> None:
    """A caller without a grant learns nothing about lifetimes."""
    with pytest.raises(NoGrantError):
        decide(TokenRequest(audience="vault", ttl_s=-1), GRANT)


def test_a_conflict_names_the_beginning_of_long_values() -> None:
    """The log's line is bounded."""
    values = [{"claims": {"a": letter * 3000}} for letter in "xy"]
    found = granted({TOKEN_CAPABILITY: as_json(*values)}, TOKEN_CAPABILITY).rules
    with pytest.raises(GrantConflictError) as caught:
        decide(TokenRequest(), ACL, found)
    assert len(caught.value.detail) < 500
