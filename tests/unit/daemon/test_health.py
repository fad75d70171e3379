"""The health socket, and those who ask it."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from harness.log import Lines

from tailbone.daemon.health import Health, ask, health_socket
from tailbone.errors import Problem, TailboneError

if TYPE_CHECKING:
    from pathlib import Path

READY = Health((), ())
STARTING = Health((Problem("starting", "server: starting"),), (Problem("jwks_stale", "jwks: stale"),))


async def test_it_answers_with_the_current_health(tmp_path: Path) -> None:
    """Each question gets the health of that moment."""
    now = [STARTING, READY]
    async with health_socket(tmp_path, lambda: now.pop(0), Lines()):
        assert await asyncio.to_thread(ask, tmp_path) == STARTING
        assert await asyncio.to_thread(ask, tmp_path) == READY


async def test_only_this_user_can_connect(tmp_path: Path) -> None:
    """The mode of the socket is 0600."""
    async with health_socket(tmp_path, lambda: READY, Lines()):
        assert (tmp_path / "health.sock").stat().st_mode & 0o777 == 0o600


async def test_it_is_removed_at_the_end(tmp_path: Path) -> None:
    """Then there is no server to ask."""
    async with health_socket(tmp_path, lambda: READY, Lines()):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TailboneError, match=r"no server runs with the folder .* \(--ts-dir\)"):
        ask(tmp_path)


async def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    """Until then, there is no server to ask."""
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "health.sock"))
    with pytest.raises(TailboneError, match="no server runs"):
        ask(tmp_path)
    async with health_socket(tmp_path, lambda: READY, Lines()):
        assert await asyncio.to_thread(ask, tmp_path) == READY


async def test_a_folder_of_any_length(tmp_path: Path) -> None:
    """The path of the folder may be longer than that of a Unix socket."""
    folder = tmp_path / ("x" * 200)
    folder.mkdir()
    async with health_socket(folder, lambda: READY, Lines()):
        assert await asyncio.to_thread(ask, folder) == READY


async def test_a_folder_without_sockets_is_a_warning(tmp_path: Path) -> None:
    """The server runs on; here the socket's name is already taken by a folder."""
    (tmp_path / "health.sock").mkdir()
    log = Lines()
    async with health_socket(tmp_path, lambda: READY, log):
        assert log.events == [("warning", "tailbone health cannot ask this server")]


def test_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose event loop does not run is reported after the time limit."""
    monkeypatch.setattr("tailbone.daemon.health._TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(tmp_path / "health.sock"))
        hanging.listen()
        with pytest.raises(TailboneError, match=r"does not answer within 0\.05 s"):
            ask(tmp_path)


async def test_a_server_that_ends_meanwhile(tmp_path: Path) -> None:
    """A connection without an answer is an error."""
    ending = await asyncio.start_unix_server(lambda _, writer: writer.close(), tmp_path / "health.sock")
    async with ending:
        with pytest.raises(TailboneError, match="closed the connection without an answer"):
            await asyncio.to_thread(ask, tmp_path)
