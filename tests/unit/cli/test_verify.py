"""``tailbone verify``."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from click.testing import CliRunner
from harness.refusals import AUDIENCE, TAG, bearer

from tailbone.cli import tailbone
from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result
    from harness.programs import Program


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer() as running:
        yield running


def verify(*arguments: str, typed: str | None = None) -> Result:
    environment = {"HOME": "/nonexistent"}
    return CliRunner().invoke(tailbone, ["verify", *arguments], input=typed, env=environment)


def test_a_good_token(issuer: FakeIssuer) -> None:
    """Verdict, header and claims, one a line."""
    result = verify("--issuer", issuer.url, "--audience", "a", issuer.token(audience="a", as_=TAG))
    assert (result.exit_code, result.stderr) == (0, "")
    shown = dict(re.split(r"  +", line, maxsplit=1) for line in result.stdout.splitlines())
    assert (shown["verified"], shown["header alg"], shown["tags"]) == ("yes", "RS256", '["tag:ci"]')
    assert shown["exp"].endswith("+00:00)")


def test_a_token_from_a_pipe(issuer: FakeIssuer) -> None:
    """As `tailbone token | tailbone verify`; notes say what was not checked."""
    result = verify(typed=f"{issuer.token()}\n")
    assert (result.exit_code, result.stdout.split()[:2]) == (0, ["verified", "yes"])
    assert result.stderr.count("note:") == 2


def test_a_bad_token(issuer: FakeIssuer) -> None:
    """Exit status 1, the reason, and what is in it; never the token."""
    token = issuer.token(expired=True)
    result = verify(token)
    assert result.exit_code == 1
    assert "no: the token has expired (token_expired)" in result.stdout
    assert "dev@example.com" in result.stdout
    assert token not in result.output


def test_json(issuer: FakeIssuer) -> None:
    """For programs."""
    result = verify("-o", "json", "--tag", TAG, issuer.token())
    report = json.loads(result.stdout)
    assert (result.exit_code, report["verified"], report["error"]) == (1, False, "not_permitted")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--jwks-url", "http://jwks.example.com", "x.y.z"],
        ["--serve", "127.0.0.1:0", "x.y.z"],
        ["--serve", "127.0.0.1:0"],
        ["--serve", "127.0.0.1:0", "--issuer", "https://a.example"],
        ["--serve", "9000", "--issuer", "https://a.example", "--audience", "a"],
        ["--serve", "127.0.0.1:x", "--issuer", "https://a.example", "--audience", "a"],
    ],
)
def test_wrong_usage(issuer: FakeIssuer, arguments: list[str]) -> None:
    """Exit status 2."""
    arguments = [issuer.token() if argument == "x.y.z" else argument for argument in arguments]
    assert verify(*arguments).exit_code == 2


def test_serve(start: Callable[..., Program], issuer: FakeIssuer) -> None:
    """It logs its address, answers, and ends on a signal."""
    checks = ("--issuer", issuer.url, "--audience", AUDIENCE)
    program = start("verify", "--serve", "127.0.0.1:0", *checks, "--log-format", "json")
    line: Any = json.loads(program.wait_for("forward auth started"))
    with httpx.Client(base_url=f"http://{line['address']}") as client:
        assert client.get("/", headers=bearer(issuer.token(audience=AUDIENCE))).status_code == 200
        assert client.get("/").status_code == 401
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(10) == 0
