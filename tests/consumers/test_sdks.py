"""The vendors' own SDKs exchange tokens, at stubs of their token endpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from harness.consumers import AUDIENCE, CI
from harness.programs import TAILBONE, Program, clean_environment, run
from harness.web import Certificate, Page, WebServer

from tailbone.client import Issuer, TokenSource
from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.consumers import TrustedIssuer

ACCESS = {"access_token": "access", "token_type": "Bearer", "expires_in": 3600}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


@pytest.fixture
def source(issuer: TrustedIssuer) -> TokenSource:
    return TokenSource(AUDIENCE, issuer=Issuer(issuer.issuer_url(CI)))


def job(
    command: Sequence[str], script: str, issuer: TrustedIssuer, folder: Path, **variables: str
) -> Program:
    """Run a Python program as the command of ``tailbone COMMAND``; without one, alone."""
    environment = clean_environment(folder, TAILBONE_ISSUE_URL=issuer.issuer_url(CI), **variables)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    outer = [*TAILBONE, *command, "--"] if command else []
    done = run([*outer, sys.executable, "-c", script], env=environment, cwd=folder, timeout_s=60)
    assert done.wait() == 0, done.output()
    return done


# --- Google Cloud

GOOGLE = """
import google.auth, google.auth.transport.requests
credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
credentials.refresh(google.auth.transport.requests.Request())
print(credentials.token)
"""


def configuration(web: WebServer, source: dict[str, Any]) -> str:
    """Return what `gcloud iam workload-identity-pools create-cred-config` writes, for the stub."""
    return json.dumps(
        {
            "type": "external_account",
            "universe_domain": "googleapis.com",
            "audience": AUDIENCE,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{web.url}/v1/token",
            "credential_source": source,
        }
    )


def exchanged(web: WebServer) -> dict[str, Any]:
    """Return the claims of the token that Google's SDK exchanged."""
    form = parse_qs(web.requests[-1]["body"])
    assert form["audience"] == [AUDIENCE]
    return claims_of(form["subject_token"][0])


def serve_google(web: WebServer) -> None:
    issued = {**ACCESS, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    web.pages["/v1/token"] = Page(json.dumps(issued).encode())


def test_exec_gcp(web: WebServer, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """google-auth reads the token from the file of the private configuration."""
    serve_google(web)
    file = tmp_path / "config.json"
    file.write_text(configuration(web, {"file": "/nonexistent"}))
    done = job(["exec", "--gcp", str(file)], GOOGLE, issuer, tmp_path, GOOGLE_CLOUD_PROJECT="p")
    assert done.out == ["access"]
    assert exchanged(web)["aud"] == AUDIENCE


def test_gcp_as_the_executable_source(web: WebServer, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """google-auth runs `tailbone gcp`, and uses its output file the next time."""
    serve_google(web)
    file, output = tmp_path / "config.json", tmp_path / "output"
    executable = {"command": "tailbone gcp", "timeout_millis": 30000, "output_file": str(output)}
    file.write_text(configuration(web, {"executable": executable}))
    for _ in range(2):
        done = job(
            [], GOOGLE, issuer, tmp_path,
            GOOGLE_APPLICATION_CREDENTIALS=str(file),
            GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES="1",
            GOOGLE_CLOUD_PROJECT="p",
        )  # fmt: skip
        assert done.out == ["access"]
    tokens = [parse_qs(request["body"])["subject_token"] for request in web.requests]
    assert tokens[0] == tokens[1]
    assert exchanged(web)["aud"] == AUDIENCE


def test_the_agent_as_the_url_source(web: WebServer, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """google-auth asks the agent on loopback, with its bearer token."""
    serve_google(web)
    (tmp_path / "bearer").write_text("0123456789abcdef")
    (tmp_path / "bearer").chmod(0o600)
    environment = clean_environment(tmp_path, TAILBONE_ISSUE_URL=issuer.issuer_url(CI))
    agent = [*TAILBONE, "agent", "--socket", str(tmp_path / "s"), "--listen", "127.0.0.1:0"]
    agent += ["--bearer-file", str(tmp_path / "bearer"), "--log-format", "json"]
    with Program(agent, env=environment, cwd=tmp_path) as program:
        program.wait_for('"event":"listening"')
        record = program.event("listening")
        assert record is not None
        source = {
            "url": f"http://127.0.0.1:{record['port']}/token?audience={AUDIENCE}",
            "headers": {"Authorization": "Bearer 0123456789abcdef"},
            "format": {"type": "json", "subject_token_field_name": "token"},
        }
        file = tmp_path / "config.json"
        file.write_text(configuration(web, source))
        variables = {"GOOGLE_APPLICATION_CREDENTIALS": str(file), "GOOGLE_CLOUD_PROJECT": "p"}
        assert job([], GOOGLE, issuer, tmp_path, **variables).out == ["access"]
    assert exchanged(web)["aud"] == AUDIENCE


# --- Azure

AZURE = """
import os
from azure.identity import WorkloadIdentityCredential
credential = WorkloadIdentityCredential(
    authority=os.environ["STUB"], disable_instance_discovery=True, connection_verify=os.environ["CA"]
)
print(credential.get_token("https://vault.azure.net/.default").token)
"""


@pytest.fixture
def entra(tmp_path: Path) -> Iterator[tuple[WebServer, Path]]:
    """A stub of Entra's token endpoint, and its CA."""
    certificate = Certificate(tmp_path)
    ca = tmp_path / "ca.pem"
    ca.write_text(certificate.pem)
    with WebServer(certificate) as web:
        base = f"{web.url}/tenant"
        document = {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        }
        web.pages["/tenant/v2.0/.well-known/openid-configuration"] = Page(json.dumps(document).encode())
        web.pages["/tenant/oauth2/v2.0/token"] = Page(json.dumps(ACCESS).encode())
        yield web, ca


def assertion(web: WebServer) -> dict[str, Any]:
    """Return the claims of the client assertion that Entra got."""
    form = parse_qs(web.requests[-1]["body"])
    assert form["client_id"] == ["client"]
    return claims_of(form["client_assertion"][0])


def test_exec_azure(entra: tuple[WebServer, Path], issuer: TrustedIssuer, tmp_path: Path) -> None:
    """azure-identity finds the file and the ids in its variables."""
    web, ca = entra
    command = ["exec", "--azure", "client:tenant", "--azure-audience", AUDIENCE]
    done = job(command, AZURE, issuer, tmp_path, STUB=web.url, CA=str(ca))
    assert done.out == ["access"]
    assert assertion(web)["aud"] == AUDIENCE


def test_a_source_is_azures_client_assertion(entra: tuple[WebServer, Path], source: TokenSource) -> None:
    """It can be passed as it is."""
    from azure.identity import ClientAssertionCredential

    web, ca = entra
    credential = ClientAssertionCredential(
        "tenant",
        "client",
        source,
        authority=web.url,
        disable_instance_discovery=True,
        connection_verify=str(ca),
    )
    assert credential.get_token("https://vault.azure.net/.default").token == "access"
    assert assertion(web)["tags"] == [CI]


# --- LLM APIs

CLAUDE = """
import anthropic
message = anthropic.Anthropic().messages.create(
    model="claude", max_tokens=10, messages=[{"role": "user", "content": "hello"}]
)
print(message.content[0].text)
"""


def test_exec_claude(web: WebServer, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """The SDK exchanges the token of the file, and calls with what it got."""
    web.pages["/v1/oauth/token"] = Page(json.dumps(ACCESS).encode())
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    web.pages["/v1/messages"] = Page(json.dumps(message).encode())
    command = ["exec", "--claude", "fdrl_1:org_1:svac_1", "--claude-audience", AUDIENCE]
    done = job(command, CLAUDE, issuer, tmp_path, ANTHROPIC_BASE_URL=web.url)
    assert done.out == ["hi"]
    exchange, call = web.requests[0], web.requests[-1]
    body = json.loads(exchange["body"])
    assert body["federation_rule_id"] == "fdrl_1"
    assert claims_of(body["assertion"])["aud"] == AUDIENCE
    assert call["Authorization"] == "Bearer access"


def test_a_source_is_openais_get_token(
    web: WebServer, source: TokenSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can be passed as it is. The SDK's token endpoint is a constant, which is the stub here."""
    from openai import OpenAI

    client = OpenAI(
        workload_identity={
            "identity_provider_id": "idp_1",
            "service_account_id": "sa_1",
            "provider": {"token_type": "jwt", "get_token": source},
        },
        base_url=f"{web.url}/v1",
    )
    assert client._workload_identity_auth is not None
    monkeypatch.setattr(client._workload_identity_auth, "token_exchange_url", f"{web.url}/oauth/token")
    web.pages["/oauth/token"] = Page(json.dumps(ACCESS).encode())
    web.pages["/v1/models"] = Page(b'{"object": "list", "data": [{"id": "m", "object": "model"}]}')
    assert [model.id for model in client.models.list()] == ["m"]
    body = json.loads(web.requests[0]["body"])
    assert claims_of(body["subject_token"])["aud"] == AUDIENCE
    assert web.requests[-1]["Authorization"] == "Bearer access"
