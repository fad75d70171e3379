"""``tailbone agent`` with a real issuer."""

from __future__ import annotations

import grp
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.devs import Dev
from harness.waiting import until

from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.programs import Program

LIFE_S = 4


@pytest.fixture(scope="module")
def dev(shared_start: Callable[..., Program]) -> Dev:
    return Dev(
        shared_start(
            "dev", "--listen", "127.0.0.1:0", "-o", "json", "--expiry", f"{LIFE_S}s", "--audience", "vault"
        )
    )


class Agent:
    """A running agent with one file."""

    def __init__(self, program: Program, file: Path, socket: Path) -> None:
        self.program = program
        self.file = file
        self.socket = socket

    def get(self, target: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.socket))
        connection.request("GET", target)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, json.loads(body) if body.startswith("{") else body


@pytest.fixture
def agent(start: Callable[..., Program], dev: Dev, tmp_path: Path) -> Callable[..., Agent]:
    """Start an agent as tag:ci, and wait for its file."""

    def call(*args: str, **variables: str) -> Agent:
        file, path = tmp_path / "token", tmp_path / "agent.sock"
        own = {"TAILBONE_ISSUE_URL": dev.facts["callers"]["tag:ci"], "TB_LOG_FORMAT": "json", **variables}
        program = start("agent", "--file", f"vault={file}", "--socket", str(path), *args, **own)
        program.wait_for('"event":"started"')
        until(file.exists, "the file is written", shows=program.output)
        return Agent(program, file, path)

    return call


def test_a_file_is_kept_fresh(agent: Callable[..., Agent]) -> None:
    """It has the token without a newline, is private, and stays when the agent ends, within a second."""
    running = agent()
    first = running.file.read_bytes()
    assert claims_of(first.decode())["aud"] == "vault"
    assert not first.endswith(b"\n")
    assert stat.S_IMODE(running.file.stat().st_mode) == 0o600
    until(lambda: running.file.read_bytes() != first, "the token is renewed")
    began = time.monotonic()
    assert running.program.stop() == 0
    assert time.monotonic() - began < 1
    assert running.file.exists()
    assert not running.socket.exists()
    assert "eyJ" not in running.program.output()


def test_a_file_that_a_reader_deletes_is_written_again(agent: Callable[..., Agent]) -> None:
    """As Vault's agent does by default."""
    running = agent("--ttl", "3s")
    for _ in range(2):
        running.file.unlink()
        until(running.file.exists, "the file is back")
    status, text = running.get("/metrics")
    assert status == 200
    assert f'tailbone_agent_stale{{path="{running.file}",audience="vault"}} 0' in text
    assert "tailbone_agent_restored_total" in text


def test_a_symbolic_link_is_replaced_not_followed(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """Another user could have planted it."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "token").symlink_to(victim)
    running = agent()
    until(lambda: not running.file.is_symlink(), "the link is replaced")
    assert victim.read_text() == "kept"


def test_the_mode_and_group_of_a_list(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """Files of a TOML file have their own settings."""
    group = grp.getgrgid(os.getgid()).gr_name
    shared = tmp_path / "shared"
    files = tmp_path / "files.toml"
    files.write_text(f'[[agent.files]]\npath = "{shared}"\nttl = "3s"\nmode = "0640"\ngroup = "{group}"\n')
    agent("--from", str(files))
    until(shared.exists, "the file of the list is written")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o640
    assert "aud" not in claims_of(shared.read_text())


def test_local_programs_get_tokens(agent: Callable[..., Agent], tailbone: Callable[..., Program]) -> None:
    """Over its socket, which only its user can use; also by the other commands, without another way."""
    running = agent()
    assert stat.S_IMODE(running.socket.stat().st_mode) == 0o600
    status, answer = running.get("/token?audience=vault")
    assert (status, set(answer)) == (200, {"token", "expires_at", "expires_in"})
    assert 0 <= answer["expires_in"] <= LIFE_S
    status, answer = running.get("/token?audience=elsewhere")
    assert (status, answer["error"]) == (403, "issuer_refused")
    assert running.get("/token?ttl=x")[0] == 400
    assert running.get("/other")[0] == 404
    done = tailbone("token", "--audience", "vault", TAILBONE_AGENT=str(running.socket))
    assert claims_of(done.out[0])["aud"] == "vault"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_refused(agent: Callable[..., Agent]) -> None:
    """Even one who can open the socket: the kernel says who connects."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "s"
        running = agent("--socket", str(path))
        path.chmod(0o666)
        code = (
            "import socket; s = socket.socket(socket.AF_UNIX); "
            f"s.connect({str(path)!r}); s.sendall(b'GET /token HTTP/1.1\\r\\n\\r\\n'); print(s.recv(999))"
        )
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", code], user=65534, capture_output=True, text=True, cwd="/"
        )
        assert "403 Forbidden" in done.stdout, done.stderr
        assert "own user only" in done.stdout
        running.program.stop()


def test_the_agent_of_the_user_is_found(
    start: Callable[..., Program], tailbone: Callable[..., Program], dev: Dev, tmp_path: Path
) -> None:
    """In the user's runtime folder. What a killed agent left there is in nobody's way."""
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    url = dev.facts["callers"]["tag:ci"]
    for _ in range(2):
        running = start("agent", "--issuer-url", url, "--log-format", "json", **runtime)
        running.wait_for('"event":"started"')
        done = tailbone("token", "--audience", "vault", **runtime)
        assert done.wait() == 0, done.output()
        assert claims_of(done.out[0])["aud"] == "vault"
        running.stop(signal.SIGKILL)
        assert (tmp_path / "tailbone" / "agent.sock").exists()
    alone = tailbone("token", TS_SOCKET=str(tmp_path / "none"), **runtime)
    assert alone.wait() == 1
    assert "agent" not in alone.err[0]


def test_loopback_needs_the_bearer_token(
    agent: Callable[..., Agent], tailbone: Callable[..., Program], tmp_path: Path
) -> None:
    """For Google's URL source and AWS's container credentials."""
    bearer = tmp_path / "bearer"
    bearer.write_text("0123456789abcdef\n")
    bearer.chmod(0o600)
    running = agent("--listen", "127.0.0.1:0", "--bearer-file", str(bearer))
    running.program.wait_for('"event":"listening"')
    record = running.program.event("listening")
    assert record is not None

    def status(**fields: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", record["port"])
        connection.request("GET", "/token?audience=vault", headers=fields)
        found = connection.getresponse().status
        connection.close()
        return found

    assert status() == 401
    assert status(Authorization="Bearer wrong") == 401
    assert status(Authorization="Bearer 0123456789abcdef") == 200
    assert status(Authorization="0123456789abcdef") == 200
    for wrong in (["--listen", "0.0.0.0:1", "--bearer-file", str(bearer)], ["--listen", "127.0.0.1:0"]):
        assert tailbone("agent", *wrong).wait() == 2


def test_sighup_renews_now(agent: Callable[..., Agent]) -> None:
    """It does not end the agent."""
    running = agent()
    first = running.file.read_text()
    running.program.send(signal.SIGHUP)
    until(lambda: running.file.read_text() != first, "the token is renewed", timeout_s=1.6)


def test_readers_are_notified(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """By a signal and a command; a failure of these is logged, and does not stop the renewals."""
    ran = tmp_path / "ran"
    pid = tmp_path / "pid"
    pid.write_text("not a number")
    running = agent("--command", f"touch {ran}", "--signal", "USR1", "--pid-file", str(pid))
    until(ran.exists, "the command has run")
    running.program.wait_for("a reader could not be signalled")
    got = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: got.set())
    try:
        pid.write_text(f"{os.getpid()}\n")
        until(got.is_set, "the signal arrives")
    finally:
        running.program.stop()
        signal.signal(signal.SIGUSR1, before)


def test_a_slow_command_delays_nothing(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """Neither a renewal nor the end; and process groups are never signalled."""
    pid = tmp_path / "pid"
    pid.write_text("0")
    running = agent("--command", "sleep 60", "--signal", "KILL", "--pid-file", str(pid))
    first = running.file.read_text()
    until(lambda: running.file.read_text() != first, "the token is renewed")
    assert "not the id of one process" in running.program.output()
    began = time.monotonic()
    assert running.program.stop() == 0
    assert time.monotonic() - began < 1


def test_systemd_is_notified(agent: Callable[..., Agent], tmp_path: Path) -> None:
    """Ready, alive, stopping."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        running = agent(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")
        assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"WATCHDOG=1"
        running.program.stop()
        manager.settimeout(0.5)
        received = []
        while b"STOPPING=1" not in received:
            received.append(manager.recv(100))


def test_once(tailbone: Callable[..., Program], dev: Dev, tmp_path: Path) -> None:
    """It writes the files and exits; a refusal is exit code 1."""
    url = dev.facts["callers"]["tag:ci"]
    done = tailbone("agent", "--once", "--issuer-url", url, "--file", f"vault={tmp_path}/once")
    assert done.wait() == 0, done.output()
    assert claims_of((tmp_path / "once").read_text())["aud"] == "vault"
    refused = tailbone("agent", "--once", "--issuer-url", url, "--file", f"elsewhere={tmp_path}/no")
    assert (refused.wait(), len(refused.err)) == (1, 1)
    assert tailbone("agent", "--once", "--file", f"x={tmp_path}/no/folder").wait() == 2
    assert tailbone("agent", "--once", "--file", f"x={tmp_path}/f", "--mode", "0644").wait() == 2


def test_the_last_token_stays_while_the_issuer_is_away(
    start: Callable[..., Program], agent: Callable[..., Agent]
) -> None:
    """The failure is logged once, and counted; the agent keeps trying."""
    own = Dev(start("dev", "--listen", "127.0.0.1:0", "-o", "json", "--expiry", "2s", "--audience", "vault"))
    running = agent(TAILBONE_ISSUE_URL=f"http://{own.caller().host}")
    own.program.stop()
    running.program.wait_for("a token file cannot be renewed")
    assert claims_of(running.file.read_text())["aud"] == "vault"
    until(lambda: 'audience="vault"} 1' in running.get("/metrics")[1].split("stale gauge")[1], "it is stale")
    assert running.program.stop() == 0
    assert running.file.exists()
    lines = [line for line in running.program.err if "cannot be renewed" in line]
    assert len(lines) == len({json.loads(line)["error"] for line in lines})
