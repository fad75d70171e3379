"""The daemon, as far as it needs no tailnet."""

from __future__ import annotations

from harness.problems import texts

from tailbone.config.load import load
from tailbone.daemon.daemon import Daemon


async def test_a_daemon_that_has_not_started_is_not_ready() -> None:
    """It says so, and can be closed."""
    async with Daemon(load({}, environ={})) as daemon:
        assert texts(daemon.reasons()) == ["server: starting"]
