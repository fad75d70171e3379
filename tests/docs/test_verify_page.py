"""docs/verify.md: its app, commands and tests work as they are."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from harness.consumers import free_ports
from harness.programs import TAILBONE, Program, run
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
APP, TESTS = (text for language, text in BLOCKS if language == "python")
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
# The last two build and install tailbone-verify, as tests/packaging do.


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 401
    except httpx.TransportError:
        return False


@pytest.mark.integration
def test_the_app_is_protected(
    start: Callable[..., Program], environment: dict[str, str], tmp_path: Path
) -> None:
    """A new user's commands, on other ports: a person is greeted, and only the tagged node deploys."""
    install, issuer, activate, serve, activate_again, greet, deploy = COMMANDS[:7]
    assert install == f"python3 -m venv .venv && {activate} && pip install . fastapi uvicorn"
    assert activate == activate_again
    dev = start(*issuer.split()[1:], "--listen", "127.0.0.1:0", "-o", "json")
    facts = json.loads(dev.wait_for('{"tailnet"'))
    [port] = free_ports(1)
    ports = {
        "http://127.0.0.1:8080": facts["callers"]["dev@example.com"],
        "http://127.0.0.1:8081": facts["callers"]["tag:ci"],
        "http://127.0.0.1:8090": facts["jwks_url"].partition("/.well-known")[0],
        "9000": str(port),
    }

    def at(text: str) -> str:
        for shown, real in ports.items():
            text = text.replace(shown, real)
        return text

    (tmp_path / "app.py").write_text(at(APP))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "tailbone").write_text(f'#!/bin/sh\nexec {" ".join(TAILBONE)} "$@"\n')
    (programs / "tailbone").chmod(0o755)
    environment["PATH"] = os.pathsep.join((str(programs), environment["PATH"]))
    with Program([sys.executable, "-m", *at(serve).split()], env=environment, cwd=tmp_path):
        until(lambda: answers(port), "the app answers", timeout_s=30)

        def curl(command: str) -> str:
            ended = run(["sh", "-c", f"{at(command)} --silent"], env=environment, cwd=tmp_path)
            return "".join(ended.out)

        assert curl(greet) == '"hello dev@example.com"'
        assert curl(deploy).startswith('"deployed by tag-ci.')
        as_person = deploy.replace("8081", "8080")
        assert curl(as_person) == '{"detail":"the token\'s caller is not permitted"}'


@pytest.mark.integration
def test_the_tests_pass(environment: dict[str, str], tmp_path: Path) -> None:
    """With the fixtures that pytest finds by itself."""
    (tmp_path / "test_service.py").write_text(TESTS)
    ended = run(
        [sys.executable, "-m", "pytest", "-q", str(tmp_path)], env=environment, cwd=tmp_path, timeout_s=60
    )
    assert "2 passed" in "".join(ended.out), "\n".join([*ended.out, *ended.err])
