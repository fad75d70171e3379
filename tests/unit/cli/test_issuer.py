"""The issuer's flags: what they mean, and which of them contradict each other."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tailbone.cli.issuer import IssuerFlags, deciding_values, issuer_of, tokens_of
from tailbone.client.issuer import Issuer
from tailbone.client.local_agent import LocalAgent
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_FLAGS: IssuerFlags = {
    "issuer_url": "",
    "proxy": "",
    "any_address": False,
    "join": False,
    "join_state": None,
}


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's runtime folder, without an agent; no variable names an agent or an issuer."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("TAILBONE_AGENT", raising=False)
    monkeypatch.delenv("TAILBONE_ISSUE_URL", raising=False)
    return tmp_path


@pytest.fixture
def own_agent(runtime_folder: Path) -> Iterator[None]:
    """A socket where the user's own agent listens."""
    (runtime_folder / "tailbone").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(runtime_folder / "tailbone" / "agent.sock"))
        listening.listen()
        yield


def test_the_flags_describe_the_issuer() -> None:
    """Nothing is connected yet."""
    with issuer_of(**NO_FLAGS | {"issuer_url": "http://other:81"}) as issuer:
        assert (issuer.host, issuer.port) == ("other", 81)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"join_state": Path("state")}, "--join-state needs --join"),
        ({"join": True, "proxy": "http://127.0.0.1:1055"}, "two ways to the issuer"),
        ({"issuer_url": "https://issuer.example"}, "the issuer's URL must be"),
    ],
)
def test_flags_that_cannot_be_used(flags: IssuerFlags, message: str) -> None:
    """The message names them."""
    with pytest.raises(ConfigError, match=message), issuer_of(**NO_FLAGS | flags):
        pass


def test_without_flags_and_agents_it_is_the_default_issuer() -> None:
    """Its name in the tailnet is tailbone."""
    with tokens_of(**NO_FLAGS) as tokens:
        assert isinstance(tokens, Issuer)
        assert tokens.url == "http://tailbone"


@pytest.mark.usefixtures("own_agent")
def test_the_users_agent_is_asked_if_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable or a flag that names an issuer wins over it."""
    with tokens_of(**NO_FLAGS) as tokens:
        assert isinstance(tokens, LocalAgent)
    with tokens_of(**NO_FLAGS | {"any_address": True}) as tokens:
        assert isinstance(tokens, Issuer)
    monkeypatch.setenv("TAILBONE_ISSUE_URL", "http://other/issue")
    with tokens_of(**NO_FLAGS) as tokens:
        assert isinstance(tokens, Issuer)
        assert tokens.url == "http://other"


def test_a_named_agent_wins_over_a_named_issuer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command of `tailbone exec`; only a flag wins over it."""
    monkeypatch.setenv("TAILBONE_AGENT", "/nonexistent/agent.sock")
    monkeypatch.setenv("TAILBONE_ISSUE_URL", "http://other/issue")
    with tokens_of(**NO_FLAGS) as tokens:
        assert isinstance(tokens, LocalAgent)
    with tokens_of(**NO_FLAGS | {"issuer_url": "http://flagged"}) as tokens:
        assert isinstance(tokens, Issuer)
        assert tokens.url == "http://flagged"


@pytest.mark.parametrize(
    "name", ["TS_AUTHKEY", "TS_CLIENT_ID", "TS_ID_TOKEN_FROM", "TS_ADVERTISE_TAGS", "TS_CONTROL_URL"]
)
def test_the_login_of_a_joined_node_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another login is another caller, whose credentials must not come from a cache. Only --join uses it."""
    monkeypatch.setenv(name, "one")
    before = [deciding_values(**NO_FLAGS | {"join": join}) for join in (False, True)]
    monkeypatch.setenv(name, "two")
    after = [deciding_values(**NO_FLAGS | {"join": join}) for join in (False, True)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


@pytest.mark.parametrize("name", ["TAILBONE_ISSUE_URL", "TAILBONE_AGENT"])
def test_the_named_issuer_or_agent_decides(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may know this machine by another name."""
    before = deciding_values(**NO_FLAGS)
    monkeypatch.setenv(name, "two")
    assert deciding_values(**NO_FLAGS) != before
