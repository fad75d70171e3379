"""``tailbone aws``, ``gcp``, ``kubernetes`` and ``vault login``: what they print, with a real issuer."""

from __future__ import annotations

import datetime as dt
import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from harness.devs import Dev
from harness.web import Page, WebServer

from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.programs import Program

ROLE = "arn:aws:iam::123456789012:role/Deploy"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"


@pytest.fixture(scope="module")
def dev(shared_start: Callable[..., Program]) -> Dev:
    audiences = ("sts.amazonaws.com", POOL, "cluster", "vault")
    allowed = [part for audience in audiences for part in ("--audience", audience)]
    return Dev(shared_start("dev", "--listen", "127.0.0.1:0", "-o", "json", *allowed))


@pytest.fixture
def run(tailbone: Callable[..., Program], dev: Dev) -> Callable[..., Program]:
    """Run ``tailbone ARGS`` as tag:ci."""

    def call(*args: str, **variables: str) -> Program:
        return tailbone(*args, **({"TAILBONE_ISSUE_URL": dev.facts["callers"]["tag:ci"]} | variables))

    return call


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as web:
        yield web


def credentials(life: dt.timedelta) -> Page:
    """Return an answer of STS."""
    end = (dt.datetime.now(dt.UTC) + life).strftime("%Y-%m-%dT%H:%M:%SZ")
    rows = {"AccessKeyId": "ASIA1", "SecretAccessKey": "secret", "SessionToken": "session", "Expiration": end}
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in rows.items())
    space = "https://sts.amazonaws.com/doc/2011-06-15/"
    return Page(f'<R xmlns="{space}"><Credentials>{fields}</Credentials></R>'.encode())


def test_aws_prints_credentials_and_keeps_them(
    run: Callable[..., Program], web: WebServer, tmp_path: Path
) -> None:
    """One request for all processes, until SDKs would renew them; the cache is private."""
    web.pages["/"] = credentials(dt.timedelta(hours=1))
    cache = tmp_path / "cache"

    def call() -> Program:
        return run("aws", ROLE, "--endpoint-url", f"{web.url}/", XDG_CACHE_HOME=str(cache))

    first = call()
    assert first.wait() == 0, first.output()
    answer = json.loads(first.out[0])
    assert (answer["Version"], answer["AccountId"]) == (1, "123456789012")
    assert set(answer) == {
        "Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "AccountId",
    }  # fmt: skip
    assert call().out == first.out
    assert len(web.requests) == 1
    form = parse_qs(web.requests[0]["body"])
    assert claims_of(form["WebIdentityToken"][0])["aud"] == "sts.amazonaws.com"
    [entry] = (cache / "tailbone").glob("*.json")
    assert stat.S_IMODE(entry.stat().st_mode) == 0o600


def test_aws_renews_credentials_before_sdks_would(
    run: Callable[..., Program], web: WebServer, tmp_path: Path
) -> None:
    """They ask 15 minutes before the end; a cache that others can write does not count."""
    web.pages["/"] = credentials(dt.timedelta(minutes=14))
    for _ in range(2):
        run("aws", ROLE, "--endpoint-url", f"{web.url}/", XDG_CACHE_HOME=str(tmp_path))
    assert len(web.requests) == 2
    web.pages["/"] = credentials(dt.timedelta(hours=1))
    run("aws", ROLE, "--endpoint-url", f"{web.url}/", XDG_CACHE_HOME=str(tmp_path))
    [entry] = (tmp_path / "tailbone").glob("*.json")
    entry.chmod(0o666)
    run("aws", ROLE, "--endpoint-url", f"{web.url}/", XDG_CACHE_HOME=str(tmp_path))
    assert len(web.requests) == 4


def test_aws_fails_in_one_line(run: Callable[..., Program], web: WebServer) -> None:
    """Which SDKs put into their error."""
    refusal = "<E><Error><Code>AccessDenied</Code><Message>no</Message></Error></E>"
    web.pages["/"] = Page(refusal.encode(), status=403)
    done = run("aws", ROLE, "--endpoint-url", f"{web.url}/")
    assert (done.wait(), done.out) == (1, [])
    assert done.err == ["tailbone: STS refused the token: no (AccessDenied)"]
    assert run("aws", "role").wait() == 2


def test_a_traceback_shows_no_token(run: Callable[..., Program], web: WebServer) -> None:
    """Even if STS repeats the token in its text."""
    refusal = "<E><Error><Code>Invalid</Code><Message>eyJhbGciOi.eyJzdWIi.c2ln</Message></Error></E>"
    web.pages["/"] = Page(refusal.encode(), status=400)
    done = run("aws", ROLE, "--endpoint-url", f"{web.url}/", "--log-level", "trace")
    assert done.wait() == 1
    assert "Traceback" in done.output()
    assert "eyJ" not in done.output()


def test_gcp_takes_the_audience_of_the_sdk(run: Callable[..., Program], tmp_path: Path) -> None:
    """And writes the output file that the SDK reads first; nothing is on standard error."""
    output = tmp_path / "output"
    variables = {"GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE": POOL, "GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE": str(output)}
    done = run("gcp", **variables)
    assert (done.wait(), done.err) == (0, [])
    answer = json.loads(done.out[0])
    assert (answer["version"], answer["success"]) == (1, True)
    assert answer["token_type"] == "urn:ietf:params:oauth:token-type:jwt"
    claims = claims_of(answer["id_token"])
    assert (claims["aud"], claims["exp"]) == (POOL, answer["expiration_time"])
    assert json.loads(output.read_text()) == answer
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_a_failure_of_gcp_is_in_its_answer(run: Callable[..., Program]) -> None:
    """With exit code 0, and nothing on standard error."""
    for args, variables in (
        (["--audience", "elsewhere"], {}),
        ([], {}),
        (["--audience", POOL], {"GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE": "/nonexistent/x"}),
        (["--audience", POOL, "--issuer-url", "ftp://x"], {}),
    ):
        done = run("gcp", *args, **variables)
        assert (done.wait(), done.err) == (0, []), args
        answer = json.loads(done.out[0])
        assert answer["success"] is False
        assert answer["message"]


def test_kubernetes_prints_an_exec_credential(run: Callable[..., Program]) -> None:
    """In the requested version, for the cluster's audience, and 30 s before the token's end."""
    info = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"config": {"audience": "cluster"}}},
    }
    done = run("kubernetes", KUBERNETES_EXEC_INFO=json.dumps(info))
    assert done.wait() == 0, done.output()
    answer = json.loads(done.out[0])
    assert answer["apiVersion"] == info["apiVersion"]
    assert answer["kind"] == "ExecCredential"
    claims = claims_of(answer["status"]["token"])
    assert claims["aud"] == "cluster"
    end = dt.datetime.fromisoformat(answer["status"]["expirationTimestamp"])
    assert claims["exp"] - end.timestamp() == 30
    assert json.loads(run("kubernetes", "-a", "cluster").out[0])["apiVersion"].endswith("/v1")
    assert run("kubernetes").wait() == 2
    assert run("kubernetes", KUBERNETES_EXEC_INFO="[").wait() == 2


def test_vault_login_stores_its_token(
    run: Callable[..., Program], web: WebServer, environment: dict[str, str]
) -> None:
    """Where Vault's own commands look, for this user only; or prints it."""
    answer = {"auth": {"client_token": "hvs.x", "lease_duration": 600, "renewable": True}}
    web.pages["/v1/auth/jwt/login"] = Page(json.dumps(answer).encode())
    done = run("vault", "login", "--role", "ci", VAULT_ADDR=web.url)
    assert done.wait() == 0, done.output()
    assert "hvs.x" not in done.output()
    stored = Path(environment["HOME"]) / ".vault-token"
    assert stored.read_text() == "hvs.x"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert claims_of(json.loads(web.requests[0]["body"])["jwt"])["aud"] == "vault"
    assert run("vault", "login", "--role", "ci", "--print", BAO_ADDR=web.url).out == ["hvs.x"]
