"""The composition root: builds the whole server from a Config, and takes it down in order."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from tailbone.errors import ConfigError, LoginNeededError, TailboneError, TailnetError
from tailbone.log import get_logger
from tailbone.signals import stop_on_signals
from tailbone.version import commit, version

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from tailbone.admin.service import AdminServer
    from tailbone.config import Config
    from tailbone.jwks.store import Store
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.server import IssuerServer
    from tailbone.tsnet.events import Event
    from tailbone.tsnet.node import Listener, Node, NodeStatus

_A = TypeVar("_A")
_B = TypeVar("_B")

_log = get_logger()

_GRACE_S = 5.0
_LOGIN_S = 300.0
"""A person needs some minutes for a login URL, whatever joinTimeout says."""

_BACKLOG = 4096
_EVERY_ADDRESS = frozenset({"", "auto", "0.0.0.0", "::"})  # noqa: S104  the node's own, never the host's
_STATE_FILE = "tailscaled.state"


def run(config: Config) -> int:
    """Run ``tailbone server start`` until a signal ends it.

    Returns:
        The exit code.

    Raises:
        TailboneError: it could not start.
    """
    return run_on_uvloop(_serve(config))


def run_on_uvloop(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on a fresh uvloop event loop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def together(first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B]) -> tuple[_A, _B]:
    """Await two things at once; when one fails, the other is cancelled and awaited first."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def _serve(config: Config) -> int:
    with stop_on_signals() as stop:
        async with Daemon(config) as daemon:
            if await stop.unless(daemon.start()) is None:
                return 0
            failed = asyncio.ensure_future(daemon.until_failure())
            asked = asyncio.ensure_future(stop.asked.wait())
            try:
                await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                failed.cancel()
            if failed.done() and not failed.cancelled():
                failed.result()
            _log.info("stopping")
    return 0


def housekeeping(config: Config, *, force: bool, dry_run: bool) -> int:
    """Run ``tailbone server housekeeping``; see ``KeyLifecycle.housekeeping``."""
    return run_on_uvloop(_housekeeping(config, force=force, dry_run=dry_run))


async def _housekeeping(config: Config, *, force: bool, dry_run: bool) -> int:
    raise NotImplementedError


class Daemon:
    """The issuer, the admin API and their keys, on one node.

    ``async with Daemon(config) as daemon: await daemon.start()``. Leaving it takes everything down, from any
    state, in this order, each step bounded in time: stop listening on the tailnet and drain HTTP and gRPC;
    stop the keys' timers; close the store; close the node; remove the socket directory.
    """

    def __init__(
        self,
        config: Config,
        *,
        isolated: bool = False,
        on_login_url: Callable[[str], None] | None = None,
        grace_s: float = _GRACE_S,
    ) -> None:
        """Make a daemon that has not started.

        Args:
            config: all settings.
            isolated: the node takes nothing from tsnet's own TS_ variables.
            on_login_url: shows a person where to log in; by default a line on standard error.
            grace_s: how long requests in flight may take at the end, in seconds.
        """
        self._config = config
        self._isolated = isolated
        self._show_login = on_login_url or _print_login_url
        self._grace_s = grace_s
        self._stack = AsyncExitStack()
        self._node: Node | None = None
        self._keys: KeyLifecycle | None = None
        self._issuer: IssuerServer | None = None
        self._admin: AdminServer | None = None
        self._listeners: list[Listener] = []
        self._background: asyncio.Task[None] | None = None
        self._login_url = ""

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def start(self) -> NodeStatus:
        """Join the tailnet, bring up keys and servers, and listen.

        Raises:
            ConfigError: a binding is none of the node's addresses.
            TailnetError: the node could not join.
            SigningError: the key folder cannot be used.
        """
        # The node joins on threads of its own; meanwhile the keys are read and the servers imported.
        status, (issuer_class, admin_class) = await together(self._join(), self._prepare())
        addresses = _bindings(self._config, status.addresses)
        sockets = self._socket_directory()
        self._stack.push_async_callback(self._stop_serving)
        if issuer_class is not None:
            await self._start_issuer(issuer_class, sockets / "issuer", status, addresses["issuer"])
        if admin_class is not None:
            await self._start_admin(admin_class, sockets / "admin", addresses["admin"])
        # What lives until the end need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        _log.info(
            "started",
            node=status.dns_name,
            addresses=list(status.addresses),
            components=list(self._config.components),
            version=version(),
            commit=commit(),
        )
        return status

    async def _prepare(self) -> tuple[type[IssuerServer] | None, type[AdminServer] | None]:
        await self._start_keys()
        return await asyncio.to_thread(_import_servers, self._config.components)

    async def until_failure(self) -> None:
        """Wait until the background work fails; it ends for no other reason."""
        if self._background is not None:
            await self._background

    # --- the node

    async def _join(self) -> NodeStatus:
        from tailbone.tsnet.node import Node, NodeSettings

        tailscale = self._config.server.tailscale
        loopback = _wants_loopback(self._config)
        settings = NodeSettings(
            hostname=tailscale.hostname,
            dir=Path(tailscale.dir),
            authkey=tailscale.authkey,
            control_url=tailscale.control_url,
            ephemeral=tailscale.ephemeral,
            join_retry_s=tailscale.join_retry_s,
            loopback=loopback,
            ignore_environment=self._isolated,
            verbose=self._config.log.level == "trace",
        )
        node = Node(settings, on_event=self._node_event)
        self._node = await self._stack.enter_async_context(node)
        if loopback:
            _log.warn(
                "loopback settings are on for this whole process: a real network misses what they switch off",
                switched_off=list(node.switched_off),
            )
        status = await self._up(node)
        expected = f"{tailscale.hostname.lower()}."
        if not status.dns_name.startswith(expected):
            _log.warn(
                "the control server gave the node another name than asked for",
                asked=tailscale.hostname,
                given=status.dns_name,
            )
        return status

    async def _up(self, node: Node) -> NodeStatus:
        loop = asyncio.get_running_loop()
        timeout_s = self._config.server.tailscale.join_timeout_s
        if not self._config.server.tailscale.authkey and not self._has_state():
            timeout_s = max(timeout_s, _LOGIN_S)
        began = loop.time()
        try:
            return await node.up(timeout_s)
        except LoginNeededError:
            # A state that counts no more: a person gets as long as for a first login.
            left_s = _LOGIN_S - (loop.time() - began)
            if left_s <= 0:
                raise
            return await node.up(left_s)

    def _has_state(self) -> bool:
        state = Path(self._config.server.tailscale.dir) / _STATE_FILE
        return state.exists() and state.stat().st_size > 2

    def _node_event(self, event: Event) -> None:
        match event.type:
            case "log":
                _log.trace("tsnet", line=event.line)
            case "auth_url" if event.url != self._login_url:
                self._login_url = event.url
                self._show_login(event.url)
            case "control_unreachable":
                _log.warn("the control server does not answer; trying again", url=event.url)
            case "fault":
                _log.error("a fault in the native library ended a connection", fault=event.line)
            case "state":
                _log.info("node", state=event.state)

    # --- keys

    async def _start_keys(self) -> None:
        from tailbone.keys.folder import KeyFolder
        from tailbone.keys.lifecycle import KeyLifecycle

        config = self._config
        keys = KeyLifecycle(
            folder=KeyFolder(Path(config.keys.dir)),
            store=await self._store(),
            path=config.keys.key_path,
            settings=_key_settings(config),
            log=_log,
        )
        self._keys = await self._stack.enter_async_context(keys)
        self._background = asyncio.ensure_future(keys.run())
        self._stack.push_async_callback(_cancel, self._background)

    async def _store(self) -> Store | None:
        bucket = self._config.keys.bucket
        if not bucket:
            return None
        if bucket.startswith("file://"):
            from tailbone.jwks.directory import DirectoryStore

            return DirectoryStore(directory_of(bucket))
        from tailbone.jwks.s3 import S3Store

        return await self._stack.enter_async_context(S3Store(bucket))

    # --- the servers

    def _socket_directory(self) -> Path:
        """A fresh directory that only this user can enter: who reaches its sockets passes for a peer."""
        try:
            path = Path(tempfile.mkdtemp(prefix="tailbone-"))
        except OSError:
            # No temporary directory can be written, as in a read-only container; the node's own can.
            path = Path(tempfile.mkdtemp(prefix="run-", dir=self._config.server.tailscale.dir))
        self._stack.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    async def _start_issuer(
        self, server_class: type[IssuerServer], path: Path, status: NodeStatus, addresses: Sequence[str]
    ) -> None:
        from tailbone.issuer import Issuer
        from tailbone.policy import Rules

        config, node, keys = self._config, self._running_node(), self._open_keys()
        rules = Rules(
            issuer=config.keys.issuer,
            expiry_s=int(config.keys.expiry_s),
            backdate_s=config.keys.backdate_s,
            audiences=config.issuer.audiences,
            allow_shared=config.issuer.allow_shared,
        )
        self._issuer = server_class(
            issuer=Issuer(rules, lambda: keys.ring),
            identify=node.identify,
            hosts=_hosts(status, config.server.allowed_hosts),
            readiness=self.reasons,
            notes=keys.notes,
            jwks=keys.published_document,
            max_age_s=config.keys.max_age_s,
            version=version(),
            commit=commit(),
            log=_log,
        )
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        await self._issuer.start(listening)
        self._listeners.append(await self._listen("issuer", config.server.port, path, addresses))

    async def _start_admin(
        self, server_class: type[AdminServer], path: Path, addresses: Sequence[str]
    ) -> None:
        from tailbone.admin.service import AdminSettings

        config, node, keys = self._config, self._running_node(), self._open_keys()
        self._admin = server_class(
            lifecycle=keys,
            identify=node.identify,
            access=config.admin.access,
            capability=config.admin.capability,
            settings=AdminSettings(
                version=version(),
                commit=commit(),
                issuer=config.keys.issuer,
                jwks=f"{config.keys.bucket}/{config.keys.key_path}" if config.keys.bucket else "",
                signing_key_id=lambda: keys.ring.signing.kid if keys.ring.signing else "",
                readiness=self.reasons,
                notes=keys.notes,
            ),
            log=_log,
        )
        await self._admin.start(path)
        self._listeners.append(await self._listen("admin", config.admin.port, path, addresses))

    async def _listen(self, name: str, port: int, path: Path, addresses: Sequence[str]) -> Listener:
        return await self._running_node().listen(
            name, port, path, addresses=addresses, max_connections=self._config.server.max_connections
        )

    async def _stop_serving(self) -> None:
        """Take nothing new, then let what is in flight end; all at once, since none waits for another."""
        closing: list[Coroutine[Any, Any, None]] = [part.close(self._grace_s + 1) for part in self._listeners]
        if self._issuer is not None:
            closing.append(self._issuer.close(self._grace_s))
        if self._admin is not None:
            closing.append(self._admin.close(self._grace_s))
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, TailboneError):
                _log.warn("a part did not close as it should", error=outcome.message)
            elif isinstance(outcome, BaseException):
                raise outcome

    def _running_node(self) -> Node:
        if self._node is None:
            raise TailnetError("the node was not started")
        return self._node

    def _open_keys(self) -> KeyLifecycle:
        if self._keys is None:
            raise TailnetError("the keys were not started")
        return self._keys

    def reasons(self) -> list[str]:
        """Why no token can be issued now; empty when one can."""
        node = self._running_node()
        reasons = [] if node.running else [f"node: {node.state}"]
        return [*reasons, *self._open_keys().reasons()]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the background work had failed", error=str(error))


def _import_servers(components: Sequence[str]) -> tuple[type[IssuerServer] | None, type[AdminServer] | None]:
    """Import what the components need: Sanic and gRPC are two thirds of a start."""
    issuer_class: type[IssuerServer] | None = None
    admin_class: type[AdminServer] | None = None
    if "issuer" in components:
        from tailbone.server import IssuerServer as issuer_class  # noqa: N813
    if "admin" in components:
        from tailbone.admin.service import AdminServer as admin_class  # noqa: N813
    return issuer_class, admin_class


def _key_settings(config: Config) -> Any:
    from tailbone.keys.plan import KeySettings

    activate_after_s = config.keys.activate_after_s
    return KeySettings(
        prefix=config.key.prefix,
        algorithm=config.keys.algorithm,
        size=config.keys.size,
        expiry_s=config.keys.expiry_s,
        max_age_s=config.keys.max_age_s,
        activate_after_s=config.keys.max_age_s if activate_after_s is None else activate_after_s,
        rotate_every_s=config.keys.rotate_every_s,
        conditional_writes=config.keys.conditional_writes,
    )


def directory_of(bucket: str) -> Path:
    """The directory of a ``file://`` bucket.

    Raises:
        ConfigError: the URL names another host, or no absolute path.
    """
    url = urlsplit(bucket)
    if url.netloc not in {"", "localhost"} or not url.path.startswith("/"):
        raise ConfigError(f"keys.bucket: {bucket!r} is no directory; allowed: file:///some/dir")
    from urllib.parse import unquote

    return Path(unquote(url.path))


def _hosts(status: NodeStatus, allowed: Sequence[str]) -> tuple[str, ...]:
    """The Host fields that mean this server."""
    short = status.dns_name.partition(".")[0]
    return (*status.addresses, *filter(None, (status.dns_name, short)), *allowed)


def _bindings(config: Config, own: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The addresses of each component: () for all of the node's own.

    Raises:
        ConfigError: a binding is none of them.
    """
    found: dict[str, tuple[str, ...]] = {}
    for component, path, binding in (
        ("issuer", "server.binding", config.server.binding),
        ("admin", "admin.binding", config.admin.binding),
    ):
        if binding in _EVERY_ADDRESS:
            found[component] = ()
        elif binding in own:
            found[component] = (binding,)
        else:
            raise ConfigError(
                f"{path} ({config.origin(path)}): {binding!r} is no address of this node; "
                f"allowed: auto, {', '.join(own)}"
            )
    return found


def _wants_loopback(config: Config) -> bool:
    tailscale = config.server.tailscale
    if tailscale.loopback != "auto":
        return tailscale.loopback == "on"
    from ipaddress import ip_address

    host = urlsplit(tailscale.control_url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _print_login_url(url: str) -> None:
    """Show a person where to log in, whatever the log level and format are."""
    print(f"To join the tailnet, open: {url}", file=sys.stderr, flush=True)
