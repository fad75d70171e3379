"""Join the tailnet as a node of the client, for machines without tailscaled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 -- msgspec resolves it
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from tailbone.config.checks import is_loopback
from tailbone.errors import TailnetError
from tailbone.files import ProcessLock
from tailbone.temporary import TemporaryFolder
from tailbone.tsnet.environment import check_environment
from tailbone.tsnet.node import Node, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOIN_S = 60.0
_SOCKET = "issuer"
_LOCK = ".tailbone-lock"
_LOCK_S = 10.0


class JoinSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a client's node.

    Attributes:
        authkey: for its first login.
        tags: the tags to request.
        state_dir: keeps its login; None for an ephemeral node, which leaves the tailnet at the end.
        control_url: the control server; empty means Tailscale's.
        hostname: the name to request.
    """

    authkey: str = ""
    tags: tuple[str, ...] = ()
    state_dir: Path | None = None
    control_url: str = ""
    hostname: str = "tailbone-client"

    def __repr__(self) -> str:
        return f"JoinSettings(hostname={self.hostname!r})"


@contextmanager
def joined(settings: JoinSettings, host: str, port: int) -> Iterator[Path]:
    """Join the tailnet until the context ends.

    Args:
        settings: the node's.
        host: the issuer's name or address in the tailnet.
        port: its port.

    Yields:
        A Unix socket whose connections are forwarded to the issuer.

    Raises:
        ConfigError: a variable of tailscale's cannot be parsed.
        TailnetError: the node could not join, the tailnet has no such host, or another process uses
            ``state_dir``.
    """
    check_environment()
    with _only_user(settings.state_dir), _joined(settings, host, port) as path:
        yield path


@contextmanager
def _only_user(state_dir: Path | None) -> Iterator[None]:
    """Wait until no other process is this node, such as the agent of a command that has just ended."""
    if state_dir is None:
        yield
        return
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = ProcessLock(state_dir / _LOCK)
    if not lock.acquire(_LOCK_S):
        raise TailnetError(f"another process uses {state_dir}")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _joined(settings: JoinSettings, host: str, port: int) -> Iterator[Path]:
    folder = TemporaryFolder.make(name="join-")
    ready: Future[asyncio.Event] = Future()
    loop = asyncio.new_event_loop()
    path = folder.path / _SOCKET
    state = settings.state_dir or folder.path / "node"

    async def run() -> None:
        node_settings = NodeSettings(
            hostname=settings.hostname,
            dir=state,
            authkey=settings.authkey,
            tags=settings.tags,
            control_url=settings.control_url,
            ephemeral=settings.state_dir is None,
            loopback=is_loopback(urlsplit(settings.control_url).hostname or ""),
        )
        async with Node(node_settings) as node:
            await node.up(_JOIN_S)
            async with await node.forward(f"unix:{path}", f"{host}:{port}"):
                ended = asyncio.Event()
                ready.set_result(ended)
                await ended.wait()

    def serve() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(run())
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        ready.result()
        yield path
    finally:
        if ready.done() and ready.exception() is None:
            loop.call_soon_threadsafe(ready.result().set)
        thread.join()
        folder.remove()
