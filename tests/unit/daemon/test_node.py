"""What a node logs and notes. It is never entered, so the native library is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.problems import texts

from tailbone.config.checks import is_loopback
from tailbone.config.load import load
from tailbone.daemon.node import TailnetNode
from tailbone.tsnet.events import Event
from tailbone.tsnet.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.process.log import Logger

NOW = 1_795_518_230.0


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **_: self.lines.append((level, event))


class Heard:
    """A node that receives the events of the test.

    Attributes:
        member: itself.
        lines: what it logged.
        urls: the login URLs that it showed.
    """

    def __init__(self, **flags: str) -> None:
        log = Lines()
        self.lines = log.lines
        self.urls: list[str] = []
        config = load({name.replace("_", "."): text for name, text in flags.items()}, environ={})
        self.monotonic = 0.0
        self.member = TailnetNode(
            config,
            log=cast("Logger", log),
            on_login_url=self.urls.append,
            clock=lambda: NOW,
            monotonic=lambda: self.monotonic,
        )

    def hear(self, kind: str, **facts: Any) -> None:
        """Send the node an event."""
        self.member.node._event(Event(type=kind, **facts))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("", False),
        ("example.com", False),
        ("localhost.example.com", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_loopback_by_spelling(host: str, expected: bool) -> None:
    """The spelling decides; there is no lookup."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("choice", "url", "expected"),
    [
        ("auto", "http://127.0.0.1:8080", True),
        ("auto", "https://headscale.example", False),
        ("auto", "", False),
        ("on", "https://headscale.example", True),
        ("off", "http://127.0.0.1:8080", False),
    ],
)
def test_loopback_settings(choice: str, url: str, expected: bool) -> None:
    """By default they are on when the control server is on this machine."""
    flags = {"server_tailscale_loopback": choice} | ({"server_tailscale_controlUrl": url} if url else {})
    assert Heard(**flags).member.node._settings.loopback is expected


def test_a_login_url_is_shown_once() -> None:
    """Each new URL is shown, once."""
    heard = Heard()
    for url in ("https://x/1", "https://x/1", "https://x/2"):
        heard.hear("auth_url", url=url)
    assert heard.urls == ["https://x/1", "https://x/2"]


def test_an_unreachable_control_server_is_one_line() -> None:
    """There is one line for all attempts."""
    heard = Heard()
    for _ in range(3):
        heard.hear("control_unreachable", url="http://x")
    assert heard.lines == [("warning", "the control server does not answer; trying again")]


def test_states() -> None:
    """Leaving the tailnet is a warning, and a reason as long as it lasts."""
    heard = Heard()
    for state in ("NeedsLogin", "Starting", "Running"):
        heard.hear("state", state=state)
    assert heard.member.reasons == []
    heard.hear("state", state="NeedsLogin")
    assert texts(heard.member.reasons) == ["node: NeedsLogin"]
    heard.hear("state", state="Running")
    levels = [level for level, _ in heard.lines]
    assert levels == ["info", "info", "info", "warning", "info"]


def test_faults_and_the_log_of_tsnet() -> None:
    """A fault is logged as an error, a warning as a warning, and tsnet's own lines at trace."""
    heard = Heard()
    heard.hear("log", line="x")
    heard.hear("warning", line="z")
    heard.hear("fault", line="y")
    assert heard.lines == [
        ("trace", "tsnet"),
        ("warning", "tailnet"),
        ("error", "a fault in the native library ended a connection"),
    ]


def test_another_name_is_passed_on() -> None:
    """It is passed on once for each change after the join."""
    heard, names = Heard(), []
    heard.member.on_renamed = lambda name, addresses: names.append((name, addresses))
    heard.hear("self", dns_name="one.ts.net", addresses=("100.64.0.1",))
    heard.member.known_as = "one.ts.net", ("100.64.0.1",)
    heard.hear("self", dns_name="one.ts.net", addresses=("100.64.0.1",))
    for _ in range(2):
        heard.hear("self", dns_name="two.ts.net", addresses=("100.64.0.1",))
    assert names == [("two.ts.net", ("100.64.0.1",))]
    assert heard.lines == [("info", "the node has another name or address")]


def status(*, expires_in_s: float | None = None, reachable: bool = True) -> NodeStatus:
    expiry = None if expires_in_s is None else NOW + expires_in_s
    return NodeStatus(state="Running", hostname="x", key_expiry=expiry, control_reachable=reachable)


@pytest.mark.parametrize(
    ("days", "warnings", "notes"),
    [
        ((None, 30, 15), 0, []),
        ((30, 13.9, 13, 8), 1, ["node: its key expires in 192 h"]),
        ((8, 6, 5, 0.9, 0.5, 0.04, 0.01), 4, ["node: its key expires in 0 h"]),
        ((0.125,), 1, ["node: its key expires in 3 h"]),
        ((3, 90, 3), 2, ["node: its key expires in 72 h"]),
    ],
)
def test_the_nodes_key_expires(days: Sequence[float | None], warnings: int, notes: list[str]) -> None:
    """Warnings come 14, 7 and 1 days and 1 h ahead, each once; from the first one on there is a note."""
    heard = Heard()
    for left in days:
        heard.member._check(status(expires_in_s=None if left is None else left * 86400))
    assert ([level for level, _ in heard.lines], texts(heard.member.notes)) == (["warning"] * warnings, notes)


def test_a_deleted_node() -> None:
    """There is one warning at once, a note, and a line when the control server knows the node again."""
    heard = Heard()
    for _ in range(3):
        heard.hear("node_deleted")
    heard.monotonic = 600.0
    heard.member._check(status(reachable=False))
    assert texts(heard.member.notes) == ["node: the control server has deleted it"]
    heard.member._check(status(reachable=True))
    assert ([level for level, _ in heard.lines], heard.member.notes) == (["warning", "info"], [])


def test_the_control_server_goes_away_and_comes_back() -> None:
    """After two minutes there is one warning and a note, and a line when it answers again."""
    heard = Heard()
    for seconds, reachable in ((0, True), (60, False), (120, False), (180, False), (240, False)):
        heard.monotonic = float(seconds)
        heard.member._check(status(reachable=reachable))
    assert texts(heard.member.notes) == ["node: the control server does not answer"]
    heard.member._check(status(reachable=True))
    assert ([level for level, _ in heard.lines], heard.member.notes) == (["warning", "info"], [])
