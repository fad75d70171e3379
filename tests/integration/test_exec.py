"""``tailbone exec`` with a real issuer."""

from __future__ import annotations

import json
import signal
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.devs import Dev
from harness.waiting import until

from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.programs import Program

ROLE = "arn:aws:iam::123456789012:role/Deploy"
AUDIENCES = ("sts.amazonaws.com", "api://AzureADTokenExchange", "https://api.anthropic.com", "cluster", "a=b")


@pytest.fixture(scope="module")
def dev(shared_start: Callable[..., Program]) -> Dev:
    allowed = [part for audience in (*AUDIENCES, "//iam/pool") for part in ("--audience", audience)]
    return Dev(shared_start("dev", "--listen", "127.0.0.1:0", "-o", "json", "--expiry", "4s", *allowed))


@pytest.fixture
def run(tailbone: Callable[..., Program], dev: Dev) -> Callable[..., Program]:
    """Run ``tailbone exec ARGS`` as tag:ci."""

    def call(*args: str, **variables: str) -> Program:
        return tailbone("exec", *args, **({"TAILBONE_ISSUE_URL": dev.facts["callers"]["tag:ci"]} | variables))

    return call


def variables(program: Program) -> dict[str, str]:
    """Return the variables that `env` printed."""
    assert program.wait() == 0, program.output()
    return dict(line.split("=", 1) for line in program.out)


def test_the_status_is_the_commands(run: Callable[..., Program]) -> None:
    """Also that of a command that does not exist."""
    assert run("--", "sh", "-c", "exit 7").wait() == 7
    assert run("--", "sh", "-c", "kill -9 $$").wait() == 137
    assert run("--", "no-such-command").wait() == 127


def test_the_variables_of_aws(run: Callable[..., Program]) -> None:
    """Those of the web identity provider; the session name is made legal."""
    file = "$AWS_WEB_IDENTITY_TOKEN_FILE"
    script = f'env | grep ^AWS_; echo "TOKEN=$(cat {file})"; stat -c MODE=%a {file}'
    found = variables(run("--aws", ROLE, "--aws-session-name", "a:b", "--", "sh", "-c", script))
    assert (found["AWS_ROLE_ARN"], found["AWS_ROLE_SESSION_NAME"], found["MODE"]) == (ROLE, "a-b", "600")
    assert claims_of(found["TOKEN"])["aud"] == "sts.amazonaws.com"
    until(lambda: not Path(found["AWS_WEB_IDENTITY_TOKEN_FILE"]).exists(), "the file is removed")


def test_the_variables_of_the_others(run: Callable[..., Program], tmp_path: Path) -> None:
    """Each SDK's own, all at once."""
    gcp = tmp_path / "config.json"
    gcp.write_text(json.dumps({"type": "external_account", "audience": "//iam/pool", "token_url": "x"}))
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        "current-context: c\n"
        "contexts: [{name: c, context: {cluster: d, user: u, namespace: n}}]\n"
        "clusters: [{name: d, cluster: {server: 'https://k', certificate-authority: ca.pem}}]\n"
        "users: [{name: u, user: {token: old}}]\n"
    )
    script = (
        'env; echo "GCP=$(cat $GOOGLE_APPLICATION_CREDENTIALS)";'
        " sed s/^/K=/ $KUBECONFIG | grep -e tokenFile -e ca.pem"
    )
    done = run(
        "--gcp", str(gcp), "--azure", "client:tenant", "--claude", "rule:org:account",
        "--kubernetes", "cluster", "--env", "a=b=TOKEN", "--", "sh", "-c", script, KUBECONFIG=str(kubeconfig),
    )  # fmt: skip
    assert done.wait() == 0, done.output()
    found = dict(line.split("=", 1) for line in done.out if "=" in line)
    assert (found["AZURE_CLIENT_ID"], found["AZURE_TENANT_ID"]) == ("client", "tenant")
    assert found["AZURE_FEDERATED_TOKEN_FILE"].endswith("/azure")
    assert (found["ANTHROPIC_FEDERATION_RULE_ID"], found["ANTHROPIC_ORGANIZATION_ID"]) == ("rule", "org")
    assert found["ANTHROPIC_SERVICE_ACCOUNT_ID"] == "account"
    document = json.loads(found["GCP"])
    assert document["token_url"] == "x"
    assert document["credential_source"]["file"].endswith("/gcp")
    kubernetes = " ".join(line for line in done.out if line.startswith("K="))
    assert f"certificate-authority: {tmp_path}/ca.pem" in kubernetes
    assert "tokenFile" in kubernetes
    assert claims_of(found["TOKEN"])["aud"] == "a=b"


def test_no_token_is_in_a_log_or_an_argument(run: Callable[..., Program], tmp_path: Path) -> None:
    """Neither of tailbone nor of the command; other users can read the arguments of both."""
    token = tmp_path / "token"
    agent = "$(cat /proc/$$/task/$$/children)"
    script = f"for id in {agent} $$; do tr '\\0' ' ' < /proc/$id/cmdline; echo; done"
    flags = ("--log-level", "trace", "--env", "a=b=TOKEN", "--file", f"cluster={token}", "--aws", ROLE)
    done = run(*flags, "--", "sh", "-c", script)
    assert done.wait() == 0, done.output()
    assert "--file" in done.output()
    assert token.read_text().startswith("eyJ")
    assert "eyJ" not in done.output()


def test_variables_that_would_win_are_named(run: Callable[..., Program]) -> None:
    """In a warning: the command runs."""
    done = run("--aws", ROLE, "--", "true", AWS_ACCESS_KEY_ID="AKIA", AWS_PROFILE="prod")
    assert done.wait() == 0
    assert (
        "tailbone: warning: AWS: AWS_ACCESS_KEY_ID, AWS_PROFILE may be used instead of the token"
        in done.err[0]
    )


def test_a_file_is_renewed_while_the_command_runs(
    start: Callable[..., Program], dev: Dev, tmp_path: Path
) -> None:
    """At half of its life; and it is written again when a reader deletes it."""
    path = tmp_path / "token"
    program = start(
        "exec", "--file", f"cluster={path}", "--", "sh", "-c", "echo ready; exec sleep 60",
        TAILBONE_ISSUE_URL=dev.facts["callers"]["tag:ci"],
    )  # fmt: skip
    program.wait_for("ready")
    first = path.read_text()
    assert not first.endswith("\n")
    until(lambda: path.read_text() != first, "the file is renewed")
    path.unlink()
    until(path.exists, "the file is back")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert program.stop() == 143
    assert path.exists()


def test_a_signal_is_passed_on_and_the_command_has_time(start: Callable[..., Program], dev: Dev) -> None:
    """A server that takes seconds to stop is not killed meanwhile."""
    program = start(
        "exec", "--", "sh", "-c", "trap 'sleep 2; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
        TAILBONE_ISSUE_URL=dev.facts["callers"]["tag:ci"],
    )  # fmt: skip
    program.wait_for("ready")
    program.send(signal.SIGTERM)
    assert program.wait() == 3


def test_signals_that_do_not_end_the_command(start: Callable[..., Program], dev: Dev) -> None:
    """A server that rereads its settings at SIGHUP, and reopens its log at SIGUSR1, keeps running."""
    program = start(
        "exec", "--", "sh", "-c",
        "trap 'echo HUP' HUP; trap 'echo USR1' USR1; trap 'exit 3' TERM; "
        "echo ready; while :; do sleep 0.05; done",
        TAILBONE_ISSUE_URL=dev.facts["callers"]["tag:ci"],
    )  # fmt: skip
    program.wait_for("ready")
    for number in (signal.SIGHUP, signal.SIGUSR1) * 2:
        seen = len(program.out)
        program.send(number)
        until(lambda seen=seen: len(program.out) > seen, "the command gets it")  # type: ignore[misc]
    assert program.out[1:] == ["HUP", "USR1"] * 2
    program.send(signal.SIGTERM)
    assert program.wait() == 3


def test_a_command_of_the_command_asks_the_agent(run: Callable[..., Program]) -> None:
    """So that it need not reach the issuer."""
    script = "TAILBONE_ISSUE_URL=http://127.0.0.1:9 python -m tailbone token --audience cluster"
    done = run("--", "sh", "-c", script.replace("python", sys.executable))
    assert done.wait() == 0, done.output()
    assert claims_of(done.out[0])["aud"] == "cluster"


def test_a_refusal_ends_it_before_the_command(run: Callable[..., Program], tmp_path: Path) -> None:
    """With the issuer's text and exit code 1; wrong usage has 2."""
    done = run("--file", f"elsewhere={tmp_path}/t", "--", "touch", str(tmp_path / "ran"))
    assert (done.wait(), len(done.err)) == (1, 1)
    assert "(audience_not_allowed)" in done.err[0]
    assert not (tmp_path / "ran").exists()
    for wrong in (("--azure", "x"), ("--aws", "role"), ("--claude", "a"), ("--vault", "x"), ("--file", "x")):
        assert run(*wrong, "--", "true").wait() == 2, wrong
