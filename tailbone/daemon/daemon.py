"""The composition root: opens the whole server in order, and closes it in the reverse order."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections import Counter
from contextlib import AsyncExitStack
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tailbone.counting import Histogram, IssuerCounts, StoreCounts
from tailbone.daemon.addresses import check_ports, listen_addresses
from tailbone.daemon.audit import open_audit_file, reopen
from tailbone.daemon.descriptors import check_descriptors
from tailbone.daemon.health import Health, health_socket
from tailbone.daemon.keys import key_lifecycle
from tailbone.daemon.node import TailnetNode
from tailbone.daemon.node_folder import check_folders
from tailbone.daemon.servers import (
    Dependencies,
    Server,
    discovery_document,
    import_servers,
    make_server,
    probes,
)
from tailbone.daemon.sockets import socket_directory
from tailbone.errors import Problem, TailboneError, UnknownCallerError
from tailbone.process.audit_log import AuditLog
from tailbone.process.cancellation import gather_or_cancel
from tailbone.process.log import get_logger, set_level
from tailbone.process.signals import stop_on_signals
from tailbone.process.systemd import notify, watchdog
from tailbone.token.void_rules import VoidRules
from tailbone.tsnet import library
from tailbone.version import commit, version

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from tailbone.config.model import Config
    from tailbone.daemon.metrics import State
    from tailbone.daemon.public_check import PublicCheck
    from tailbone.daemon.reload import Reloader
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.process.log import Logger
    from tailbone.process.signals import Stop
    from tailbone.server.probes import Page
    from tailbone.token.identity import Identity
    from tailbone.tsnet.node import Listener, NodeStatus

_GRACE_S = 5.0
_FLUSH_PART = 0.2
"""The part of the grace that the last answers have to cross the tailnet after the servers have closed."""

_SHUTDOWN_S = 25.0
"""How long the whole shutdown may take after a signal, in seconds; Kubernetes kills after 30 s."""

_MAX_BYTES_PER_S = {"admin": 16 * 1024}
"""How many bytes per second one address may send to a component, after a burst.

gRPC allocates memory for frames that it then ignores, and each call has a line in the log. A call has some
hundred bytes.
"""


def run(config: Config, reloader: Reloader) -> int:
    """Run ``tailbone server start`` until a signal ends it.

    Args:
        config: all settings.
        reloader: is asked by SIGHUP.

    Returns:
        The exit code.

    Raises:
        TailboneError: the server could not start.
    """
    return asyncio.run(_run(config, reloader))


async def _run(config: Config, reloader: Reloader) -> int:
    log = get_logger()
    audit_file = open_audit_file(config)

    def hung_up() -> None:
        if audit_file is not None:
            reopen(audit_file, log)
        reloader.asked.set()

    with stop_on_signals(within_s=_SHUTDOWN_S) as stop:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)
        async with Daemon(
            config,
            # No token or answer of the admin API leaves without its line.
            audit=audit_file.required if audit_file else get_logger(strict=True),
            trail=audit_file.log if audit_file else None,
            audit_last=audit_file.last if audit_file else None,
            stop=stop,
            reloader=reloader,
        ) as daemon:
            if await stop.run_until_stopped(daemon.start()) is None:
                log.info("stopped before it was up")
                return 0
            notify("READY=1")
            failure = await stop.run_until_stopped(_until_failure(daemon))
            notify("STOPPING=1")
            if failure is None:
                log.info("stopping")
                return 0
            log.error("background work failed: stopping", exc_info=failure)
            return 1


async def _until_failure(daemon: Daemon) -> BaseException:
    """Feed systemd's watchdog until a background task of the daemon fails, and return its exception."""
    async with asyncio.TaskGroup() as group:
        feeding = group.create_task(watchdog())
        failure = await daemon.failure()
        feeding.cancel()
    return failure


class Daemon:
    """The issuer, the admin API and their keys, on one node.

    ``async with Daemon(config) as daemon: await daemon.start()``. ``start`` opens the parts in order; leaving
    the daemon closes them in the reverse order, however far ``start`` got. Each step of the close is bounded
    in time: stop serving; remove the sockets; stop the background tasks; let a change of the keys end, and
    close their store; close the node.
    """

    def __init__(
        self,
        config: Config,
        *,
        isolated: bool = False,
        log: Logger | None = None,
        audit: Logger | None = None,
        trail: Logger | None = None,
        audit_last: Callable[[int], Sequence[str]] | None = None,
        on_login_url: Callable[[str], None] | None = None,
        stop: Stop | None = None,
        reloader: Reloader | None = None,
        grace_s: float = _GRACE_S,
    ) -> None:
        """Make a daemon that has not started.

        Args:
            config: all settings.
            isolated: the node takes nothing from tsnet's own TS_ variables.
            log: for everything that happens; by default the process's.
            audit: gets the line of each token and admin call, before the token or answer leaves; by default
                ``log``.
            trail: gets the lines of refused tokens, failed calls and changes of keys, too.
            audit_last: returns that many last lines of the audit file, the newest first.
            on_login_url: shows a person where to log in; by default a line on standard error.
            stop: removes the socket directory when a second signal ends the process at once.
            reloader: rereads the settings once the server has started; by default they stay as they are.
            grace_s: how long requests in flight may take at the end, in seconds.
        """
        self._config = config
        self._isolated = isolated
        self._log = log or get_logger()
        self._audit = AuditLog(audit or self._log, trail, audit_last)
        self._on_login_url = on_login_url
        self._stop = stop
        self._reloader = reloader
        self._on_reload: list[Callable[[Config], None]] = []
        self._grace_s = grace_s
        self._stack = AsyncExitStack()
        self._node: TailnetNode | None = None
        self._keys: KeyLifecycle | None = None
        self._public_check: PublicCheck | None = None
        self._metrics: Callable[[str], Page] | None = None
        self._counts = IssuerCounts()
        self._store_counts = StoreCounts()
        # Zeros, so that a rate sees the first call.
        self._admin_calls = Counter({"ok": 0, "forbidden": 0})
        self._background: list[asyncio.Task[None]] = []
        self._servers: list[Server] = []
        self._listeners: list[Listener] = []

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def start(self) -> NodeStatus:
        """Join the tailnet, start keys and servers, and listen. This never waits for the JWKS's store.

        Raises:
            ConfigError: issuer and admin API would share a port, the limit of descriptors is too low, or a
                binding is not an address of the node.
            TailnetError: the node could not join, or every user of this machine can change its state.
            KeyFileError: the key folder cannot be used.
        """
        config, stack = self._config, self._stack
        check_ports(config)
        check_descriptors(config)
        if not self._isolated:
            await asyncio.to_thread(check_folders, config, self._log)

        if config.server.metrics_binding or config.server.probe_binding:
            await self._watch(stack)

        # The parts in the order in which they are opened. What closes a part is pushed before it is opened:
        # a start that fails half-way is closed, too.
        self._node = node = await stack.enter_async_context(
            TailnetNode(config, log=self._log, isolated=self._isolated, on_login_url=self._on_login_url)
        )
        if not self._isolated:
            await stack.enter_async_context(
                health_socket(Path(config.server.tailscale.dir), self._health, self._log)
            )
        stack.push_async_callback(self._close_keys)
        # The node joins on its own threads; meanwhile the keys are read and the servers imported.
        status, keys = await gather_or_cancel(node.join(), self._prepare())
        addresses = listen_addresses(config, status.addresses)
        stack.push_async_callback(self._stop_background)
        # Only after the join: a server that is not admitted would publish another key with each try.
        self._background += [asyncio.create_task(keys.run()), asyncio.create_task(node.watch())]
        # Not above: its imports are slow, and by now the keys have made them.
        from tailbone.daemon.public_check import public_check

        self._public_check = public_check(config, lambda: keys.ring, self._log)
        if self._public_check is not None:
            self._background.append(asyncio.create_task(self._public_check.run()))
        sockets = stack.enter_context(socket_directory(Path(config.server.tailscale.dir), self._stop))
        stack.push_async_callback(self._stop_serving)
        await self._start_serving(node, keys, sockets, addresses)
        if self._reloader is not None:
            self._background.append(asyncio.create_task(self._reloader.run(self._apply)))

        # What exists now lives as long as the process: the garbage collector need not look at it again.
        gc.collect()
        gc.freeze()
        self._log.info(
            "started",
            node=status.dns_name,
            addresses=list(status.addresses),
            components=list(config.components),
            version=version(),
            commit=commit(),
        )
        return status

    async def failure(self) -> BaseException:
        """Wait until a background task fails, and return its exception; they do not end otherwise."""
        done, _ = await asyncio.wait(self._background, return_when=asyncio.FIRST_COMPLETED)
        failures = [task.exception() for task in done if not task.cancelled()]
        return next(filter(None, failures), None) or RuntimeError("a background task ended without a failure")

    def reasons(self) -> list[Problem]:
        """Return why no token can be issued now; empty when one can."""
        if self._node is None or self._keys is None:
            return [Problem("starting", "server: starting")]
        return [*self._node.reasons, *self._keys.reasons(), *self._audit.reasons()]

    def notes(self) -> list[Problem]:
        """Return the problems that do not stop token issuance (shown by ``/_readyz``)."""
        if self._node is None or self._keys is None:
            return []
        public = [self._public_check.note] if self._public_check and self._public_check.note else []
        return [*self._node.notes, *self._keys.notes(), *public]

    def whois(self, source: str) -> Identity:
        """Return who is at a tailnet address; see ``Node.whois``.

        Raises:
            UnknownCallerError: nobody, or the node is not in the tailnet.
        """
        if self._node is None:
            raise UnknownCallerError("the node is not in the tailnet")
        return self._node.node.whois(source)

    def _health(self) -> Health:
        return Health(tuple(self.reasons()), tuple(self.notes()))

    def published_document(self) -> bytes | None:
        """Return the last good copy of the published JWKS; None until one exists."""
        return None if self._keys is None else self._keys.published_document()

    def discovery_document(self) -> bytes | None:
        """Return the discovery document for that JWKS; None without one, or if the issuer is not a URL."""
        jwks = self.published_document()
        render = discovery_document(self._config)
        return None if jwks is None or render is None else render(jwks)

    def _apply(self, config: Config) -> None:
        """Apply new settings. All parts change before the event loop goes on to another request."""
        set_level(config.log.level)
        for apply in self._on_reload:
            apply(config)

    # --- opening

    async def _watch(self, stack: AsyncExitStack) -> None:
        """Serve probes and metrics from now on, where the settings say so."""
        await asyncio.to_thread(import_module, "tailbone.daemon.metrics")
        from tailbone.daemon.metrics import LAG_BOUNDS_S, Metrics, measured_lag
        from tailbone.daemon.outside import serve_outside

        lag_s = Histogram(LAG_BOUNDS_S)
        await stack.enter_async_context(measured_lag(lag_s))
        self._metrics = Metrics(lambda: self._state(lag_s)).page
        outside = probes(self.reasons, self.notes, self._metrics)
        await stack.enter_async_context(serve_outside(self._config, outside, self._log, self._on_reload))

    def _state(self, lag_s: Histogram) -> State:
        """Return what the metrics show now."""
        from tailbone.daemon.metrics import State

        node, keys = self._node, self._keys
        note = self._public_check.note if self._public_check else None
        return State(
            version=version(),
            commit=commit(),
            counts=self._counts,
            lag_s=lag_s,
            store=self._store_counts,
            admin_calls=self._admin_calls,
            reasons=self.reasons(),
            notes=self.notes(),
            keys=keys.known_keys() if keys else (),
            jwks_read_at=keys.jwks_read_at if keys else None,
            outside_ok=note.code == "outside_ok" if note else None,
            node_state=node.node.state if node else "",
            node_key_expiry=node.key_expiry if node else None,
            native=library.stats() if node else None,
        )

    async def _prepare(self) -> KeyLifecycle:
        """Read the keys and import the servers; imports are slow, so threads make them."""
        self._keys = keys = await asyncio.to_thread(
            key_lifecycle, self._config, self._log, self._store_counts, self._audit.trail
        )
        await keys.start()
        await asyncio.to_thread(import_servers, self._config.components)
        return keys

    async def _start_serving(
        self,
        node: TailnetNode,
        keys: KeyLifecycle,
        sockets: Path,
        addresses: Mapping[str, Sequence[str]],
    ) -> None:
        """Start each component's server on a Unix socket, and let the node listen for it."""
        config = self._config
        ports = {"issuer": config.server.port, "admin": config.admin.port}
        self._on_reload.append(lambda config: keys.set_expiry(config.keys.expiry_s))
        needs = Dependencies(
            config=config,
            node=node,
            keys=keys,
            readiness=self.reasons,
            notes=self.notes,
            metrics=self._metrics,
            counts=self._counts,
            admin_calls=self._admin_calls,
            void_rules=VoidRules(self._log),
            log=self._log,
            audit=self._audit,
            on_reload=self._on_reload,
        )
        for component in config.components:
            server = make_server(component, needs)
            self._servers.append(server)
            await server.start(sockets / component)
            listener = await node.node.listen(
                component,
                ports[component],
                sockets / component,
                addresses=addresses[component],
                max_connections=config.server.max_connections,
                max_bytes_per_s=_MAX_BYTES_PER_S.get(component, 0),
            )
            self._listeners.append(listener)

    # --- closing, in the order in which it happens

    async def _stop_serving(self) -> None:
        """Accept nothing new, and let requests in flight end; all parts at once."""
        async with asyncio.TaskGroup() as group:
            for listener in self._listeners:
                group.create_task(self._close_part(listener.close(2 * self._grace_s)))
            await asyncio.gather(*(self._close_part(server.close(self._grace_s)) for server in self._servers))
            # The servers have answered. A client that pools its connections would never close them.
            for listener in self._listeners:
                group.create_task(self._close_part(listener.end(self._grace_s * _FLUSH_PART)))

    async def _close_part(self, closing: Coroutine[Any, Any, None]) -> None:
        try:
            await closing
        except TailboneError as error:
            self._log.warning("a part did not close cleanly", error=error.message, detail=error.detail)

    async def _stop_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _close_keys(self) -> None:
        """Let a change of the keys end, then close their store."""
        if self._keys is None:
            return
        try:
            async with asyncio.timeout(2 * self._grace_s):
                await self._keys.close(self._grace_s)
        except TimeoutError:
            self._log.warning("the store of the JWKS did not close in time")
