"""What systemd is sent."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from tailbone.process.systemd import notify, watchdog

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_state_is_one_datagram(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent without a service manager."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "s"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


async def test_the_watchdog_is_fed_twice_an_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an interval, or for another process, it is not."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await watchdog()
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    await watchdog()
    monkeypatch.delenv("WATCHDOG_PID")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "s"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "s"))
        feeding = asyncio.ensure_future(watchdog())
        assert [await asyncio.to_thread(manager.recv, 100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        feeding.cancel()
