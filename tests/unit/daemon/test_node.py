"""What a node logs and notes. It is never entered, so the native library is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.log import Lines
from harness.problems import texts

from tailbone.config.checks import is_loopback
from tailbone.config.load import load
from tailbone.daemon.node import TailnetNode
from tailbone.tsnet.events import Event

if TYPE_CHECKING:
    from tailbone.process.log import Logger


class Heard:
    """A node that receives the events of the test.

    Attributes:
        member: itself.
        log: what it logged.
        urls: the login URLs that it showed.
    """

    def __init__(self, **flags: str) -> None:
        self.log = Lines()
        self.urls: list[str] = []
        config = load({name.replace("_", "."): text for name, text in flags.items()}, environ={})
        self.member = TailnetNode(
            config,
            log=cast("Logger", self.log),
            on_login_url=self.urls.append,
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
    assert heard.log.events == [("warning", "the control server does not answer; trying again")]


def test_states() -> None:
    """Leaving the tailnet is a warning, and a reason as long as it lasts."""
    heard = Heard()
    for state in ("NeedsLogin", "Starting", "Running"):
        heard.hear("state", state=state)
    assert heard.member.reasons == []
    heard.hear("state", state="NeedsLogin")
    assert texts(heard.member.reasons) == ["node: NeedsLogin"]
    heard.hear("state", state="Running")
    levels = [level for level, _ in heard.log.events]
    assert levels == ["info", "info", "info", "warning", "info"]


def test_faults_and_the_log_of_tsnet() -> None:
    """A fault is logged as an error, a warning as a warning, and tsnet's own lines at trace."""
    heard = Heard()
    heard.hear("log", line="x")
    heard.hear("warning", line="z")
    heard.hear("fault", line="y")
    assert heard.log.events == [
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
    assert heard.log.events == [("info", "the node has another name or address")]


def test_a_deleted_node_is_noted() -> None:
    """The event comes with each poll of the control server; there is one warning."""
    heard = Heard()
    for _ in range(3):
        heard.hear("node_deleted")
    assert [level for level, _ in heard.log.events] == ["warning"]
    assert texts(heard.member.notes) == ["node: the control server has deleted it"]
