"""Commands that SDKs run, with an issuer on loopback."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from harness.issuers import LoopbackIssuer


def test_gcp_answers_as_an_executable_source(issuer: LoopbackIssuer, tmp_path: Path) -> None:
    """The answer is also in the file that Google's SDKs name."""
    file = tmp_path / "answer.json"
    result = issuer.run("gcp", "-a", "service", GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE=str(file))
    assert json.loads(result.stdout) == {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": issuer.token,
        "expiration_time": issuer.claims["exp"],
    }
    assert json.loads(file.read_text()) == json.loads(result.stdout)


def test_a_failure_of_gcp_is_an_answer(issuer: LoopbackIssuer) -> None:
    """The SDKs show it, and the exit code is 0."""
    result = issuer.run("gcp")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["success"]) == (0, False)
    assert "GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE" in answer["message"]


@pytest.mark.parametrize(
    "version", ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"]
)
def test_kubernetes_answers_as_an_exec_plugin(issuer: LoopbackIssuer, version: str) -> None:
    """The cluster's extension names the audience; the token is renewed before its end."""
    version = f"client.authentication.k8s.io/{version}"
    info = {"apiVersion": version, "spec": {"cluster": {"config": {"audience": "service"}}}}
    result = issuer.run("kubernetes", KUBERNETES_EXEC_INFO=json.dumps(info))
    end = datetime.fromtimestamp(issuer.claims["exp"] - 30, UTC)
    assert json.loads(result.stdout) == {
        "apiVersion": version,
        "kind": "ExecCredential",
        "status": {"token": issuer.token, "expirationTimestamp": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
    }


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("", "there is no audience: set --audience, or the cluster's extension"),
        ("{", "KUBERNETES_EXEC_INFO is not an ExecCredential"),
        ("[]", "KUBERNETES_EXEC_INFO is not an ExecCredential"),
    ],
)
def test_kubernetes_needs_an_audience(issuer: LoopbackIssuer, info: str, message: str) -> None:
    """The exit code is that of wrong usage."""
    result = issuer.run("kubernetes", KUBERNETES_EXEC_INFO=info)
    assert (result.exit_code, result.stderr) == (2, f"tailbone: {message}\n")


def test_aws_refuses_what_is_not_a_role(issuer: LoopbackIssuer, tmp_path: Path) -> None:
    """Before a token is requested."""
    result = issuer.run("aws", "arn:aws:iam::123456789012:user/me", XDG_CACHE_HOME=str(tmp_path))
    assert result.exit_code == 2
    assert "the role must be an ARN such as" in result.stderr
    assert issuer.web.requests == []
