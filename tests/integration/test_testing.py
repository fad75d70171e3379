"""tailbone.testing: a tailnet in a test's process, and pytest's fixtures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from harness.programs import run

from tailbone.client import Issuer, TokenSource
from tailbone.errors import ConfigError, IssuerRefusedError, NodeClosedError, TailnetError
from tailbone.testing import Tailnet
from tailbone.verify import AsyncVerifier, Verifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def running() -> Iterator[Tailnet]:
    with Tailnet() as tailnet:
        # The first connections of two nodes start parts of tsnet that keep running: no test leaks them.
        for caller in tailnet.callers:
            tailnet.token(as_=caller)
        yield tailnet


def granting(*rules: Any, src: str = "tag:ci") -> dict[str, Any]:
    return {
        "src": [src],
        "dst": ["tag:tailbone"],
        "ip": ["*"],
        "app": {"tailbone.dev/cap/token": list(rules)},
    }


def test_tokens_of_its_callers_verify(running: Tailnet) -> None:
    """With the identity that the tailnet gives them."""
    verifier = Verifier(running.issuer, "service")
    person = verifier.verify(running.token(audience="service"))
    assert (person.user, person.tags) == ("dev@example.com", ())
    node = verifier.verify(running.token(audience="service", as_="tag:ci", ttl_s=60))
    assert (node.user, node.tags) == ("", ("tag:ci",))
    assert isinstance(node.iat, int)
    assert node.exp - node.iat == 65


async def test_it_can_be_entered_in_coroutines() -> None:
    """Two of them can run at the same time, each with its own callers and settings."""
    async with Tailnet("alice@example.com", settings={"keys.expiry": "5m"}) as tailnet:
        verifier = AsyncVerifier(tailnet.issuer, any_audience=True)
        claims = await verifier.verify(tailnet.token())
        assert (claims.user, claims.aud) == ("alice@example.com", ())
        with pytest.raises(TailnetError, match=r"tag:ci is not a caller; there are alice@example\.com"):
            tailnet.token(as_="tag:ci")


def test_changed_grants_count_at_once(running: Tailnet) -> None:
    """No test needs to wait for the next netmap."""
    verifier = Verifier(running.issuer, "vault")
    for number in range(5):
        running.set_grants(granting({"audiences": ["vault"], "groups": [f"g{number}"]}))
        assert verifier.verify(running.token(audience="vault", as_="tag:ci")).groups == (f"g{number}",)
        with pytest.raises(IssuerRefusedError):
            running.token(audience="vault")
    running.set_grants()
    with pytest.raises(IssuerRefusedError):
        running.token(audience="vault", as_="tag:ci")


def test_audiences_can_be_bounded_by_settings_and_grants() -> None:
    """Refusals name the audiences that there are, and no others."""
    settings = {"issuer.access": "grant", "issuer.audiences": ["vault"]}
    with Tailnet("tag:ci", settings=settings) as tailnet:
        assert Verifier(tailnet.issuer, "vault").verify(tailnet.token(audience="vault")).tags == ("tag:ci",)
        tailnet.set_grants(granting({"audiences": ["vault"]}))
        with pytest.raises(IssuerRefusedError) as refused:
            tailnet.token(audience="other")
        assert "tailbone-" not in str(refused.value)
        assert Issuer(tailnet.callers["tag:ci"]).whoami()["audiences"] == ["vault"]


def test_its_variables_lead_the_client_to_it(running: Tailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the caller that was named."""
    for name, value in running.environment("tag:ci").items():
        monkeypatch.setenv(name, value)
    assert Verifier(running.issuer, any_audience=True).verify(TokenSource().get()).tags == ("tag:ci",)


def test_wrong_use() -> None:
    """A caller that cannot be, a malformed setting, a tailnet that was not entered."""
    with pytest.raises(ConfigError):
        Tailnet("nobody")
    with pytest.raises(ConfigError):
        Tailnet(settings={"keys.expiry": "soon"})
    with pytest.raises(NodeClosedError):
        Tailnet().token()


TESTS = """
import os
from tailbone.client import Issuer, TokenSource
from tailbone.verify import TokenError, Verifier

def test_token(tailbone_tailnet, tailbone_token):
    verifier = Verifier(tailbone_tailnet.issuer, "service")
    assert verifier.verify(tailbone_token(audience="service", as_="tag:ci")).tags == ("tag:ci",)

def test_env(tailbone_tailnet, tailbone_env):
    assert os.environ["TAILBONE_ISSUE_URL"] == tailbone_env["TAILBONE_ISSUE_URL"]
    assert Verifier(tailbone_tailnet.issuer, any_audience=True).verify(TokenSource().get()).user

def test_fake_issuer(tailbone_fake_issuer):
    verifier = Verifier(tailbone_fake_issuer.url, "service")
    assert verifier.verify(tailbone_fake_issuer.token(audience="service")).user
    try:
        verifier.verify(tailbone_fake_issuer.token(audience="service", expired=True))
    except TokenError as error:
        assert error.code == "token_expired"
"""
CONFTEST = """
import sys
before = {name for name in sys.modules if name.startswith("tailbone")}
assert before == {"tailbone", "tailbone.testing", "tailbone.testing.plugin"}, before
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "with pytest-xdist"])
def test_the_plugin_works_in_a_fresh_project(
    workers: tuple[str, ...], environment: dict[str, str], tmp_path: Path
) -> None:
    """pytest finds the fixtures by itself, and loads nothing else at collection."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, str(tmp_path)]
    ended = run(command, env=environment, cwd=tmp_path, timeout_s=60)
    assert "3 passed" in "".join(ended.out), "\n".join([*ended.out, *ended.err])
