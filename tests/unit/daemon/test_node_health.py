"""What a node that has joined logs and notes: the expiry of its key, and the control server."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from harness.log import Lines
from harness.problems import texts

from tailbone.daemon.node_health import NodeHealth
from tailbone.tsnet.node import NodeStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.process.log import Logger

NOW = 1_795_518_230.0


class Watched:
    """A node's health at ``NOW``.

    Attributes:
        health: itself.
        log: what it logged.
        monotonic: seconds on the monotonic clock.
    """

    def __init__(self) -> None:
        self.log = Lines()
        self.monotonic = 0.0
        self.health = NodeHealth(
            cast("Logger", self.log), clock=lambda: NOW, monotonic=lambda: self.monotonic
        )


def status(*, expires_in_s: float | None = None, reachable: bool = True) -> NodeStatus:
    expiry = None if expires_in_s is None else NOW + expires_in_s
    return NodeStatus(state="Running", hostname="x", key_expiry=expiry, control_reachable=reachable)


@pytest.mark.parametrize(
    ("days", "warnings", "notes"),
    [
        ((None, 30, 15), 0, []),
        ((30, 13.9, 13, 8), 1, ["node: its key expires in 8d: disable its key expiry"]),
        ((8, 6, 5, 0.9, 0.5, 0.04, 0.01), 4, ["node: its key expires in 14m24s: disable its key expiry"]),
        ((0.125,), 1, ["node: its key expires in 3h: disable its key expiry"]),
        ((3, 90, 3), 2, ["node: its key expires in 3d: disable its key expiry"]),
        ((0.01, -0.001, -1), 2, ["node: its key has expired: restart the server"]),
        ((-1, 90), 1, []),
    ],
)
def test_the_nodes_key_expires(days: Sequence[float | None], warnings: int, notes: list[str]) -> None:
    """Warnings come 14, 7 and 1 days and 1 h ahead, and at the end, each once, and there is a note."""
    watched = Watched()
    for left in days:
        watched.health.check(status(expires_in_s=None if left is None else left * 86400))
    assert [level for level, _ in watched.log.events] == ["warning"] * warnings
    for text, begins in zip(texts(watched.health.notes), notes, strict=True):
        assert text.startswith(begins)
        assert "restart the server with a valid auth key" in text


def test_a_deleted_node() -> None:
    """There is one warning at once, a note, and a line when the control server knows the node again."""
    watched = Watched()
    for _ in range(3):
        watched.health.note_deletion()
    watched.monotonic = 600.0
    watched.health.check(status(reachable=False))
    assert texts(watched.health.notes) == ["node: the control server has deleted it"]
    watched.health.check(status(reachable=True))
    assert ([level for level, _ in watched.log.events], watched.health.notes) == (["warning", "info"], [])


def test_the_control_server_goes_away_and_comes_back() -> None:
    """After two minutes there is one warning and a note, and a line when it answers again."""
    watched = Watched()
    for seconds, reachable in ((0, True), (60, False), (120, False), (180, False), (240, False)):
        watched.monotonic = float(seconds)
        watched.health.check(status(reachable=reachable))
    assert texts(watched.health.notes) == ["node: the control server does not answer"]
    watched.health.check(status(reachable=True))
    assert ([level for level, _ in watched.log.events], watched.health.notes) == (["warning", "info"], [])
