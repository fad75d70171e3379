"""Report to systemd (sd_notify): ready, alive, stopping."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

_MICROSECONDS: Final = 1_000_000


def notify(state: str) -> None:
    """Send a state, such as ``READY=1``, to the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # An abstract name begins with a null byte, which the variable shows as "@".
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
        connection.connect(name)
        connection.send(state.encode())


async def watchdog() -> None:
    """Report twice per watchdog interval that the event loop runs; return if there is no watchdog."""
    interval_us = int(os.environ.get("WATCHDOG_USEC") or 0)
    if not interval_us or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_us / _MICROSECONDS / 2)
