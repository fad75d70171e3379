"""TailnetNode: the server's node; it joins the tailnet, and follows its state and name afterwards."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tailbone.config.checks import is_loopback
from tailbone.daemon.node_health import NodeHealth
from tailbone.errors import LoginNeededError, Problem, TailnetError
from tailbone.tsnet.node import CLOSED, Node, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from tailbone.config.model import Config
    from tailbone.process.log import Logger
    from tailbone.tsnet.events import Event
    from tailbone.tsnet.node import NodeStatus

_LOGIN_S = 300.0
"""How long a person has to open a login URL, however short joinTimeout is."""

_POLL_S = 20.0


class TailnetNode:
    """The server's node: ``async with TailnetNode(…) as node: await node.join()``; leaving it closes it.

    Attributes:
        node: the node itself.
        known_as: its DNS name and addresses; empty before the join.
        on_renamed: called with the node's new DNS name and addresses when they change after the join.
    """

    def __init__(
        self,
        config: Config,
        *,
        log: Logger,
        isolated: bool = False,
        on_login_url: Callable[[str], None] | None = None,
    ) -> None:
        """Make a node that has not joined.

        Args:
            config: all settings.
            log: for what happens to the node.
            isolated: ignore tsnet's own TS_ variables, and do not warn about loopback settings.
            on_login_url: shows a person where to log in; by default a line on standard error.
        """
        tailscale = config.server.tailscale
        self._config = config
        self._log = log
        self._isolated = isolated
        self._show_login = on_login_url or _print_login_url
        self.on_renamed: Callable[[str, Sequence[str]], None] = lambda _dns_name, _addresses: None
        self._login_url = ""
        self._unreachable = False
        self._was_running = False
        self._changed = asyncio.Event()
        self.known_as: tuple[str, tuple[str, ...]] = ("", ())
        self._health = NodeHealth(log)
        self._loopback = _wants_loopback(config)
        self._settings = NodeSettings(
            hostname=tailscale.hostname,
            dir=Path(tailscale.dir),
            authkey=tailscale.authkey,
            tags=tailscale.tags,
            control_url=tailscale.control_url,
            ephemeral=tailscale.ephemeral,
            join_retry_s=tailscale.join_retry_s,
            loopback=self._loopback,
            ignore_environment=isolated,
            verbose=config.log.level == "trace",
        )
        self.node = Node(self._settings, on_event=self._handle)

    async def __aenter__(self) -> Self:
        await self.node.__aenter__()
        if self._loopback and not self._isolated:
            self._log.warning(
                "loopback settings hold for this whole process: a real network needs what they switch off",
                switched_off=list(self.node.switched_off),
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.node.close()
        except TailnetError as failure:
            # The process is about to end, and with it what is left of the node.
            self._log.warning("the node did not close cleanly", error=failure.message)

    @property
    def reasons(self) -> list[Problem]:
        """Why callers cannot be served now; empty when they can."""
        return [] if self.node.running else [Problem("node_not_running", f"node: {self.node.state}")]

    @property
    def notes(self) -> list[Problem]:
        """Problems that do not stop token issuance (shown by ``/_readyz``)."""
        return self._health.notes

    @property
    def key_expiry(self) -> float | None:
        """When the node must log in again, in Unix seconds; None for never, and before the join."""
        return self._health.key_expiry

    async def join(self) -> NodeStatus:
        """Join the tailnet.

        Raises:
            TailnetError: the most specific one; see ``Node.up``.
        """
        status = await self._up()
        requested = self._settings.hostname
        if status.dns_name.partition(".")[0] != requested.lower():
            self._log.warning(
                "the control server gave the node another name than requested",
                requested=requested,
                given=status.dns_name,
            )
        self.known_as = status.dns_name, status.addresses
        self._health.check(status)
        return status

    async def _up(self) -> NodeStatus:
        loop = asyncio.get_running_loop()
        timeout_s = self._config.server.tailscale.join_timeout_s
        began = loop.time()
        try:
            return await self.node.up(timeout_s)
        except LoginNeededError:
            # A login URL waits for a person, who gets more time than an unreachable control server.
            left_s = _LOGIN_S - (loop.time() - began)
            if left_s <= 0:
                raise
            return await self.node.up(left_s)

    async def watch(self) -> None:
        """Check the node when its state changes, and every 20 s: not all changes have an event."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                status = await self.node.status()
            except TailnetError as error:
                self._log.warning("the node's state cannot be read", error=error.message, detail=error.detail)
                continue
            self._check_name(status.dns_name, status.addresses)
            self._health.check(status)

    def _handle(self, event: Event) -> None:
        match event.type:
            case "log":
                self._log.trace("tsnet", line=event.line)
            case "auth_url" if event.url != self._login_url:
                self._login_url = event.url
                self._show_login(event.url)
            case "control_unreachable" if not self._unreachable:
                # The event comes with every attempt.
                self._unreachable = True
                self._log.warning(
                    "the control server does not answer; trying again", url=event.url, reason=event.line
                )
            case "node_deleted":
                self._health.note_deletion()
            case "warning":
                self._log.warning("tailnet", warning=event.line)
            case "fault":
                self._log.error("a fault in the native library ended a connection", fault=event.line)
            case "state":
                self._state_changed(event.state)
            case "self":
                self._check_name(event.dns_name, event.addresses)

    def _check_name(self, dns_name: str, addresses: tuple[str, ...]) -> None:
        """Pass on a name or address that has changed since the join."""
        before, now = self.known_as, (dns_name, addresses)
        if "" in (before[0], dns_name) or before == now:
            return
        self.known_as = now
        self._log.info(
            "the node has another name or address", before=before[0], now=dns_name, addresses=list(addresses)
        )
        self.on_renamed(dns_name, addresses)

    def _state_changed(self, state: str) -> None:
        if self.node.state == CLOSED:
            return
        self._changed.set()
        if self._was_running and not self.node.running:
            self._log.warning(
                "the node is no longer in its tailnet: no caller is served until it is admitted again, "
                "or logs in at the next start",
                state=state,
            )
        else:
            self._log.info("node", state=state)
        self._was_running = self.node.running


def _wants_loopback(config: Config) -> bool:
    """Return whether loopback settings are on, or "auto" and the control server is on this machine."""
    tailscale = config.server.tailscale
    if tailscale.loopback != "auto":
        return tailscale.loopback == "on"
    return is_loopback(urlsplit(tailscale.control_url).hostname or "")


def _print_login_url(url: str) -> None:
    """Show a person where to log in, at every log level and in plain text."""
    print(f"To join the tailnet, open: {url}", file=sys.stderr, flush=True)
