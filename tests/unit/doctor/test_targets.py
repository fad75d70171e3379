"""What readers paste for each verifier."""

from __future__ import annotations

import json
import shlex

import msgspec
import pytest

from tailbone.doctor.targets import PLACEHOLDERS, TARGETS, SnippetValues, placeholders_in, snippets_for

VALUES = SnippetValues(issuer="https://issuer.example/prod", subject="node:n1CNTRL", audience="sts.example")


def text_of(name: str, values: SnippetValues = VALUES) -> str:
    return "\n".join(snippet.text for snippet in snippets_for(TARGETS[name], values))


@pytest.mark.parametrize("name", TARGETS)
def test_the_texts_contain_issuer_sub_and_audience(name: str) -> None:
    """What is known is filled in, and needs no replacement."""
    text = text_of(name)
    for known in ("issuer.example/prod", "node:n1CNTRL", "sts.example"):
        assert known in text
    assert not {"YOUR_ISSUER_HOST", "YOUR_SUBJECT", "YOUR_AUDIENCE"} & set(
        placeholders_in(snippets_for(TARGETS[name], VALUES))
    )


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_unknown_is_explained(name: str) -> None:
    """Nothing is guessed: each placeholder has its line."""
    snippets = snippets_for(TARGETS[name], SnippetValues())
    assert {"YOUR_ISSUER_HOST", "YOUR_SUBJECT"} <= set(placeholders_in(snippets))
    rest = "\n".join(snippet.text for snippet in snippets)
    for placeholder in sorted(PLACEHOLDERS, key=len, reverse=True):
        rest = rest.replace(placeholder, "")
    assert "YOUR_" not in rest


def test_the_convention_is_the_default_audience() -> None:
    """Each verifier has its own, if any."""
    values = msgspec.structs.replace(VALUES, audience="")
    assert "sts.amazonaws.com" in text_of("aws", values)
    assert "api://AzureADTokenExchange" in text_of("azure", values)
    assert "snowflakecomputing.com" in text_of("snowflake", values)
    assert "--allowed-audiences" not in text_of("gcp", values)
    assert "--allowed-audiences=sts.example" in text_of("gcp")


def test_the_trust_policy_of_aws() -> None:
    """Its conditions name the issuer without its scheme; session tags need another action."""
    policy = json.loads(snippets_for(TARGETS["aws"], VALUES)[0].text)
    [statement] = policy["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {
            "issuer.example/prod:aud": "sts.example",
            "issuer.example/prod:sub": "node:n1CNTRL",
        }
    }
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    tagged = msgspec.structs.replace(VALUES, has_aws_tags=True)
    [statement] = json.loads(snippets_for(TARGETS["aws"], tagged)[0].text)["Statement"]
    assert statement["Action"] == ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]


def test_tags_are_mapped_to_groups() -> None:
    """Only for a tagged caller: others have no such claim."""
    tagged = msgspec.structs.replace(VALUES, tags=("tag:ci",))
    assert "google.groups=assertion.tags" in text_of("gcp", tagged)
    assert '"groups_claim": "tags"' in text_of("vault", tagged)
    assert "groups" not in text_of("gcp") + text_of("vault")


@pytest.mark.parametrize("name", TARGETS)
def test_a_shell_takes_each_value_as_one_word(name: str) -> None:
    """A sub or an audience is never run as a command."""
    sly = "x'; $(reboot) `reboot`"
    for snippet in snippets_for(TARGETS[name], SnippetValues(subject=sly, audience=sly)):
        if snippet.language == "sh":
            words = shlex.split(snippet.text.partition("<<'END'")[0])
            assert "reboot" not in words
            assert "`reboot`" not in words
            assert "$(reboot)" not in words
