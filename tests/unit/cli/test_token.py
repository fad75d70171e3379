"""``tailbone token``, with an issuer on loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml
from harness.web import Page

if TYPE_CHECKING:
    from harness.issuers import LoopbackIssuer


def test_standard_output_is_the_token(issuer: LoopbackIssuer) -> None:
    """It and a newline, so that a shell can use it."""
    result = issuer.run("token", "-a", "service")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{issuer.token}\n", "")


def test_other_formats_also_say_when_it_expires(issuer: LoopbackIssuer) -> None:
    """In JSON and in YAML."""
    expected = {"token": issuer.token, "expires_at": issuer.claims["exp"]}
    assert json.loads(issuer.run("token", "-o", "json").stdout) == expected
    assert yaml.safe_load(issuer.run("token", "-o", "yaml").stdout) == expected


def test_its_claims_instead(issuer: LoopbackIssuer) -> None:
    """As JSON that a person can read."""
    assert json.loads(issuer.run("token", "--claims").stdout) == issuer.claims


def test_an_explanation_is_a_dry_run(issuer: LoopbackIssuer) -> None:
    """The answer is printed as it is."""
    answer = {"claims": {"sub": "user:1"}, "rules": []}
    issuer.web.pages["/issue?audience=service&ttl=60s&dry_run=true"] = Page(json.dumps(answer).encode())
    result = issuer.run("token", "-a", "service", "--ttl", "1m", "--explain")
    assert json.loads(result.stdout) == answer


def test_claims_and_an_explanation_exclude_each_other(issuer: LoopbackIssuer) -> None:
    """It is wrong usage, and nothing is asked."""
    result = issuer.run("token", "--claims", "--explain")
    assert (result.exit_code, result.stderr) == (
        2,
        "tailbone: --claims and --explain exclude each other\n",
    )
    assert issuer.web.requests == []


def test_a_refusal_is_one_line(issuer: LoopbackIssuer) -> None:
    """With the issuer's own text; standard output stays empty."""
    refusal = {"error": "no_grant", "message": "no grant gives you this audience"}
    issuer.web.pages["/issue"] = Page(json.dumps(refusal).encode(), status=403)
    result = issuer.run("token")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        "tailbone: no grant gives you this audience (no_grant)\n",
    )
