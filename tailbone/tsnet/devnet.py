"""A private tailnet on loopback (control server, DERP, STUN), as an async context manager."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tailbone.errors import NodeClosedError
from tailbone.process.cancellation import Closing
from tailbone.tsnet.library import Library, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STOP_TIMEOUT_S = 5.0


class DevnetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The address and name of the private tailnet.

    Attributes:
        control_url: ``http://127.0.0.1:PORT`` of its control server.
        tailnet: its name, also the suffix of every node's DNS name.
    """

    control_url: str
    tailnet: str


class Devnet:
    """A private tailnet in this process, on loopback only: no packet leaves the machine.

    Use it as ``async with Devnet() as devnet``. Leaving the context stops it and everything it started.
    """

    def __init__(self, *, domain: str = "dev.tailnet.test", state_dir: Path | None = None) -> None:
        self._config = {"domain": domain, "state_dir": str(state_dir) if state_dir else ""}
        self._library: Library | None = None
        self._handle = 0
        self._info: DevnetInfo | None = None
        self._stopping = Closing()

    @property
    def info(self) -> DevnetInfo:
        """Its address and name."""
        if self._info is None:
            raise NodeClosedError("the private tailnet was not entered: use it in `async with`")
        return self._info

    async def __aenter__(self) -> Self:
        self._library = await asyncio.to_thread(load)
        opened = await self._library.devnet_start(msgspec.json.encode(self._config))
        self._handle = opened.handle
        self._info = msgspec.json.decode(opened.answer, type=DevnetInfo)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def do(self, op: str, **arguments: Any) -> Any:
        """Run one command of tsnet_go/devnet/commands.go.

        Raises:
            TailnetError: the command, or something it names, is unknown.
        """
        if self._library is None or self._stopping.begun:
            raise NodeClosedError("the private tailnet is stopped")
        command = msgspec.json.encode({"op": op, **arguments})
        return msgspec.json.decode(await self._library.devnet_do(self._handle, command))

    async def add_key(self, identity: str, **options: Any) -> str:
        """Create a reusable auth key for an identity: a login (``dev@example.com``) or a tag (``tag:ci``).

        Args:
            identity: the identity of the nodes that join with the key.
            options: ``login``, ``display_name``, ``tags``, ``reusable``, ``ephemeral``, ``expires_in_s``,
                ``needs_approval``, ``shared``.
        """
        answer: dict[str, str] = await self.do("add_key", identity=identity, **options)
        return answer["key"]

    async def set_grants(self, grants: Sequence[dict[str, Any]]) -> None:
        """Replace the grants.

        Args:
            grants: each with ``src`` and ``dst`` (lists of ``*``, logins, tags, addresses or names),
                ``ip`` and ``app``.
        """
        await self.do("set_grants", grants=list(grants))

    async def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that the control server knows."""
        answer = await self.do("nodes")
        return list(answer["nodes"] if isinstance(answer, dict) else answer)

    async def stop(self, timeout_s: float = _STOP_TIMEOUT_S) -> None:
        """Stop the tailnet within ``timeout_s`` seconds; idempotent."""
        library = self._library
        if library is not None and self._handle != 0:
            await self._stopping.once(lambda: self._stop(library, timeout_s))

    async def _stop(self, library: Library, timeout_s: float) -> None:
        await library.devnet_stop(self._handle, timeout_s)
