"""The private tailnet outside its context; tests/integration run on a real one."""

from __future__ import annotations

import pytest

from tailbone.errors import NodeClosedError
from tailbone.tsnet.devnet import Devnet


def test_a_tailnet_that_was_not_entered_has_no_address() -> None:
    """The error says how to use it."""
    with pytest.raises(NodeClosedError, match="use it in `async with`"):
        _ = Devnet().info


async def test_a_tailnet_that_was_not_entered_runs_no_command() -> None:
    """The native library is not even loaded."""
    with pytest.raises(NodeClosedError):
        await Devnet().add_key("dev@example.com")


async def test_a_tailnet_that_was_not_entered_can_be_stopped() -> None:
    """A clean-up need not know how far the start has got."""
    await Devnet().stop()
