"""The client and the verifier where there are neither Unix modules nor the native library, as on Windows."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.programs import Program, run
from harness.web import Page, WebServer

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[2]
IN_PYTHON = """
from harness.without_unix import hide
hide()
import sys
from tailbone.client import Issuer, TokenSource
from tailbone.verify import Verifier
url, issuer = sys.argv[1:]
print(Verifier(issuer, "service").verify(TokenSource("service", issuer=Issuer(url)).get()).sub)
"""


@pytest.fixture
def python(environment: dict[str, str], tmp_path: Path) -> Callable[..., Program]:
    """Run ``python ARGUMENTS``, which can import the harness."""

    def call(*arguments: str) -> Program:
        variables = {**environment, "PYTHONPATH": str(TESTS)}
        return run([sys.executable, *arguments], env=variables, cwd=tmp_path)

    return call


def test_a_token_is_fetched_and_verified(python: Callable[..., Program]) -> None:
    """By the commands, and in Python."""
    with FakeIssuer(algorithm="ES256") as issuer, WebServer() as web:
        token = issuer.token(audience="service", as_="tag:ci")
        web.pages["/issue?audience=service"] = Page(
            f'{{"token": "{token}", "expires_at": 4000000000}}'.encode()
        )
        hidden = ("-m", "harness.without_unix")
        fetched = python(*hidden, "token", "--audience", "service", "--issuer-url", web.url)
        assert (fetched.wait(), fetched.out) == (0, [token]), fetched.output()
        verified = python(*hidden, "verify", "--issuer", issuer.url, "--audience", "service", token)
        assert verified.wait() == 0, verified.output()
        both = python("-c", IN_PYTHON, web.url, issuer.url)
        assert (both.wait(), both.out) == (0, ["node:nFaketag-ci"]), both.output()


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent",),
        ("exec", "--", "true"),
        ("aws", "arn:aws:iam::123456789012:role/deploy"),
        ("token", "--join"),
        ("dev",),
        ("server", "start"),
        ("verify", "--serve", "127.0.0.1:0", "--issuer", "http://127.0.0.1:9", "--audience", "service"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_needs_unix_says_so_in_one_line(
    python: Callable[..., Program], arguments: tuple[str, ...]
) -> None:
    """Nothing ends in a traceback."""
    ended = python("-m", "harness.without_unix", *arguments)
    assert (ended.wait(), ended.err[-1:]) == (1, ["tailbone: this needs Linux or macOS"]), ended.output()
    assert "Traceback" not in ended.output()


@pytest.mark.parametrize("arguments", [("token", "--join"), ("dev",), ("server", "start")])
def test_what_needs_a_node_says_so_in_one_line(
    python: Callable[..., Program], environment: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """As with the wheel for any system: Unix modules are there, and the native library is not."""
    environment |= {"TS_AUTHKEY": "tskey-x", "TS_CONTROL_URL": "http://127.0.0.1:9"}
    script = (
        "from harness import without_unix; without_unix.NAMES.clear();"
        "without_unix.MODULES = frozenset({'tailbone.tsnet._ffi'}); without_unix.hide();"
        "from tailbone.__main__ import main; main()"
    )
    ended = python("-c", script, *arguments)
    assert (ended.wait(), len(ended.err)) == (1, 1), ended.output()
    assert ended.err[0].startswith("tailbone: the native library is missing, which nodes need: ")
    assert "Traceback" not in ended.output()


def test_no_agent_runs(python: Callable[..., Program]) -> None:
    """There are no Unix sockets, so commands ask the issuer."""
    script = (
        "from harness.without_unix import hide; hide();"
        "from tailbone.client.local_agent import LocalAgent, default_socket;"
        "print(LocalAgent(default_socket()).runs)"
    )
    ended = python("-c", script)
    assert (ended.wait(), ended.out) == (0, ["False"]), ended.output()
