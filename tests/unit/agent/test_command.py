"""A command with tokens: its files, its variables, its terminal, its end."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.issuers import LoopbackIssuer
from harness.programs import TAILBONE, Program
from harness.terminal import Terminal
from harness.waiting import until
from harness.web import Page, WebServer

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def issuer(environment: dict[str, str]) -> Iterator[LoopbackIssuer]:
    with FakeIssuer(algorithm="ES256") as fake, WebServer() as web:
        environment["TAILBONE_ISSUE_URL"] = web.url
        yield LoopbackIssuer(web, fake.token(audience="service"))


def folders(temporary: Path) -> list[Path]:
    """Return the private folders of commands."""
    return list(temporary.glob("tailbone-exec-*"))


def test_its_agent_is_at_the_variable(issuer: LoopbackIssuer, tailbone: Callable[..., Program]) -> None:
    """For further commands of tailbone; the socket is for this user alone."""
    done = tailbone("exec", "--", "sh", "-c", "test -S $TAILBONE_AGENT && stat -c %a $TAILBONE_AGENT")
    assert (done.wait(), done.out) == (0, ["600"])


def test_without_a_token_it_does_not_run(
    issuer: LoopbackIssuer, tailbone: Callable[..., Program], tmp_path: Path
) -> None:
    """The issuer's failure is reported; the private folder is removed."""
    issuer.web.pages.clear()
    done = tailbone("exec", "--env", "service=TOKEN", "--", "touch", "ran", TMPDIR=str(tmp_path))
    assert (done.wait(), len(done.err)) == (1, 1)
    assert not (tmp_path / "ran").exists()
    assert folders(tmp_path) == []


def test_a_login_to_vault_is_the_commands(issuer: LoopbackIssuer, tailbone: Callable[..., Program]) -> None:
    """In the variables of Vault and OpenBao."""
    answer = {"auth": {"client_token": "hvs.x", "lease_duration": 600, "renewable": True}}
    issuer.web.pages["/v1/auth/jwt/login"] = Page(json.dumps(answer).encode())
    vault = ("--vault", f"{issuer.web.url}:ci", "--vault-audience", "service")
    done = tailbone("exec", *vault, "--", "sh", "-c", "echo $VAULT_ADDR $VAULT_TOKEN $BAO_ADDR $BAO_TOKEN")
    assert done.wait() == 0, done.output()
    assert done.out == [f"{issuer.web.url} hvs.x {issuer.web.url} hvs.x"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_agent_ends_with_it(
    issuer: LoopbackIssuer, start: Callable[..., Program], tmp_path: Path, number: signal.Signals
) -> None:
    """However it ends; then the private folder is removed."""
    program = start("exec", "--", "sh", "-c", "echo $$; exec sleep 60", TMPDIR=str(tmp_path))
    program.wait_for(str(program.pid))
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
    assert len(children) == 1
    assert len(folders(tmp_path)) == 1
    program.stop(number)
    until(lambda: not folders(tmp_path), "the folder is removed")
    until(lambda: not Path(f"/proc/{children[0]}").exists(), "the agent has ended")


def test_its_agent_does_not_hold_its_output(issuer: LoopbackIssuer, start: Callable[..., Program]) -> None:
    """A reader of a pipe sees the end as soon as the command has closed it."""
    program = start("exec", "--", "sh", "-c", "echo ready; exec sleep 60 >&-")
    program.wait_for("ready")
    until(lambda: not program._readers[0].is_alive(), "the output has ended")


def test_it_gets_default_signals(issuer: LoopbackIssuer, tailbone: Callable[..., Program]) -> None:
    """Python ignores SIGPIPE, which ends `yes | head`."""
    done = tailbone("exec", "--", "grep", "SigIgn", "/proc/self/status")
    ignored = int(done.out[0].split()[1], 16)
    assert ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1) | 1 << (signal.SIGTERM - 1)) == 0


# --- at a terminal

PERSON = """
import os, signal, sys
count = 0
def interrupted(*_):
    global count
    count += 1
    print(f"interrupted {count};", flush=True)
signal.signal(signal.SIGINT, interrupted)
print(f"pid {os.getpid()};", flush=True)
with open("/dev/tty") as terminal:
    print(f"read {terminal.readline().strip()};", f"interrupts {count};", flush=True)
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_it_has_the_terminal(issuer: LoopbackIssuer, environment: dict[str, str], tmp_path: Path) -> None:
    """It reads from /dev/tty, Ctrl-C reaches it once, Ctrl-Z stops it until `fg`, `kill` reaches it too."""
    script = tmp_path / "person.py"
    script.write_text(PERSON)
    command = shlex.join([*TAILBONE, "exec", "--env", "service=TOKEN", "--", sys.executable, str(script)])
    with Terminal(environment) as terminal:
        terminal.wait_for("$ ")
        terminal.type(f"{command}\n")
        until(
            lambda: re.search(r"pid \d+;", terminal.screen), "the command runs", shows=lambda: terminal.screen
        )
        terminal.type("\x03")
        terminal.wait_for("interrupted 1;")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        terminal.type("fg\n")
        until(lambda: terminal.screen.count("person.py") >= 3, "it continues", shows=lambda: terminal.screen)
        found = re.search(r"pid (\d+);", terminal.screen)
        assert found is not None
        os.kill(int(found[1]), signal.SIGINT)
        terminal.wait_for("interrupted 2;")
        terminal.type("hello\n")
        terminal.wait_for("read hello; interrupts 2;")


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_a_shell_in_it_has_job_control(issuer: LoopbackIssuer, environment: dict[str, str]) -> None:
    """`tailbone exec -- bash -i` is a shell like another one."""
    with Terminal(environment) as terminal:
        terminal.wait_for("$ ")
        terminal.type(f"{shlex.join(TAILBONE)} exec -- bash --norc --noediting -i\n")
        terminal.type("echo $((6*7)); sleep 60 &\n")
        terminal.wait_for("42\r\n")
        terminal.type("jobs\n")
        terminal.wait_for("Running")
        assert "no job control" not in terminal.screen


def test_an_interrupt_before_it_runs(
    issuer: LoopbackIssuer, start: Callable[..., Program], tmp_path: Path
) -> None:
    """The command does not run, and nothing stays behind."""
    page = "/issue?audience=service"
    answers = threading.Event()
    issuer.web.pages[page] = issuer.web.pages[page]._replace(waits=answers)
    program = start("exec", "--env", "service=TOKEN", "--", "touch", "ran", TMPDIR=str(tmp_path))
    until(lambda: issuer.web.requests, "the token is requested")
    assert program.stop(signal.SIGINT) == 130
    until(lambda: not folders(tmp_path), "the folder is removed")
    answers.set()
    assert not (tmp_path / "ran").exists()
