"""``tailbone doctor`` on a caller's machine: it finds everything out from the running server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from harness.consumers import AUDIENCE, CI, PERSON
from harness.programs import TAILBONE, clean_environment, run
from harness.web import Page

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness.consumers import TrustedIssuer
    from harness.programs import Program
    from harness.web import Certificate, WebServer


@pytest.fixture
def doctor(https_issuer: TrustedIssuer, certificate: Certificate, tmp_path: Path) -> Callable[..., Program]:
    """Run doctor as a caller, which trusts the certificate, with an audience that the server issues."""

    def call(*arguments: str, identity: str = CI, **variables: str) -> Program:
        environment = clean_environment(
            tmp_path,
            SSL_CERT_FILE=str(certificate.file),
            TS_CONTROL_URL=https_issuer.control_url,
            TAILBONE_ISSUE_URL=https_issuer.issuer_url(identity),
            **variables,
        )
        command = [*TAILBONE, "doctor", "--audience", AUDIENCE, *arguments]
        return run(command, env=environment, cwd=tmp_path, timeout_s=60)

    return call


def report(ended: Program) -> dict[str, Any]:
    return dict(json.loads("\n".join(ended.out)))


def problems(ended: Program) -> list[tuple[str, str]]:
    return [(check["level"], check["check"]) for check in report(ended)["checks"] if check["level"] != "ok"]


def test_all_is_well(doctor: Callable[..., Program], https_issuer: TrustedIssuer) -> None:
    """Without settings, the server says issuer, sub and tags; the texts contain them."""
    ended = doctor("--for", "vault", "-o", "json")
    assert (problems(ended), ended.process.returncode) == ([], 0), ended.output()
    checks = [check["check"] for check in report(ended)["checks"]]
    assert checks == [
        "settings",
        "issuer",
        "certificate",
        "discovery document",
        "issuer",
        "jwks_uri",
        "JWKS",
        "public copy",
        "clock",
        "clock",
        "server",
        "token's issuer",
        "subject",
        "audience",
        "JWKS",
    ]
    [configuration, login] = report(ended)["paste"]
    assert f"oidc_discovery_url={https_issuer.url}" in configuration["text"]
    assert f'"bound_subject": "{https_issuer.subject()}"' in configuration["text"]
    assert '"groups_claim": "tags"' in configuration["text"]
    way = f"--issuer-url {https_issuer.issuer_url()}"
    assert f"tailbone exec --file {AUDIENCE}=YOUR_TOKEN_FILE {way} -- bao write" in login["text"]
    assert set(report(ended)["replace"]) == {"YOUR_TOKEN_FILE", "YOUR_POLICY"}


def test_the_text_says_level_check_and_fix(doctor: Callable[..., Program]) -> None:
    """One line for each check, then the texts, then what to replace in them."""
    ended = doctor("--for", "claude", ANTHROPIC_API_KEY="x")
    assert ended.process.returncode == 1
    words = [line.split()[:2] for line in ended.out]
    assert ["error", "issuer"] in words  # a loopback address, which Anthropic cannot reach
    assert ["warning", "variables"] in words
    assert any("ANTHROPIC_API_KEY is set" in line and "unset ANTHROPIC_API_KEY" in line for line in ended.out)
    assert f"audience  {AUDIENCE}" in ended.out
    assert any(line.startswith("YOUR_SERVICE_ACCOUNT_ID ") for line in ended.out)


def test_a_refusal_fails(doctor: Callable[..., Program], https_issuer: TrustedIssuer) -> None:
    """The server's own message is shown; issuer and sub come from its other answers."""
    ended = doctor("--for", "vault", "--audience", "elsewhere", "-o", "json", identity=PERSON)
    assert problems(ended) == [("error", "server")]
    configuration = report(ended)["paste"][0]["text"]
    assert f'"bound_subject": "{https_issuer.subject(PERSON)}"' in configuration
    assert f"bound_issuer={https_issuer.url}" in configuration
    assert not {"YOUR_SUBJECT", "YOUR_ISSUER_HOST"} & report(ended)["replace"].keys()
    assert ended.process.returncode == 1


def test_a_fault_of_the_public_url_fails(
    doctor: Callable[..., Program], https_web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public check is part of the examination."""
    monkeypatch.setitem(https_web.pages, "/.well-known/jwks.json", Page(b"<html>", {}, 403))
    ended = doctor("--for", "vault", "-o", "json")
    assert problems(ended) == [("error", "JWKS")]
    assert ended.process.returncode == 1


def test_another_issuer_than_the_servers_fails(doctor: Callable[..., Program]) -> None:
    """Without a target, too."""
    assert ("error", "token's issuer") in problems(doctor("-o", "json", "--issuer", "other"))


def test_the_bucket_is_examined(
    doctor: Callable[..., Program], https_issuer: TrustedIssuer, tmp_path: Path
) -> None:
    """On the server's machine: it is read, and takes conditional writes."""
    bucket = tmp_path / "bucket"
    flags = ("--for", "vault", "-o", "json", "--bucket", bucket.as_uri(), "--issuer", https_issuer.url)
    assert problems(doctor(*flags)) == [("warning", "bucket")]
    (bucket / ".well-known").mkdir(parents=True)
    (bucket / ".well-known/jwks.json").write_text('{"keys":[]}')
    [found] = [check for check in report(doctor(*flags))["checks"] if check["check"] == "bucket"]
    assert found["text"].endswith("/.well-known/jwks.json can be read, and takes conditional writes")
    (bucket / ".well-known/jwks.json").write_text("<html>")
    ended = doctor(*flags)
    assert problems(ended) == [("error", "bucket")]
    assert ended.process.returncode == 1
