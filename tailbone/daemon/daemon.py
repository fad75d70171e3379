"""The composition root: builds the whole server from a Config, and takes it down in order."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from tailbone.daemon.addresses import check_ports, listen_addresses
from tailbone.daemon.descriptors import check_descriptors
from tailbone.errors import ConfigError, TailboneError
from tailbone.jwks import store_of
from tailbone.process.log import get_logger
from tailbone.process.signals import stop_on_signals
from tailbone.temporary import TemporaryFolder
from tailbone.version import commit, version

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from tailbone.admin.service import AdminServer
    from tailbone.config.model import Config
    from tailbone.daemon.node import TailnetNode
    from tailbone.keys.lifecycle import KeyLifecycle
    from tailbone.keys.plan import Housekeeping
    from tailbone.process.log import Logger
    from tailbone.process.signals import Stop
    from tailbone.server import IssuerServer
    from tailbone.tsnet.node import Listener, NodeStatus

_A = TypeVar("_A")
_B = TypeVar("_B")

_GRACE_S = 5.0
_FLUSH_PART = 0.2
"""Which part of the grace the last answers get for their way through the tailnet, once the servers closed."""

_BACKLOG = 4096
_LONGEST_SOCKET_PATH = 100
"""Unix socket paths end at 107 bytes (unix(7)); the file's own name is part of it."""


def run(config: Config) -> int:
    """Run ``tailbone server start`` until a signal ends it.

    Returns:
        The exit code.

    Raises:
        TailboneError: it could not start.
    """
    return asyncio.run(_serve(config))


def housekeeping(config: Config, *, force: bool, dry_run: bool) -> Housekeeping:
    """Run ``tailbone server housekeeping``; see ``KeyLifecycle.housekeeping``. It needs no node.

    Raises:
        ConfigError: no bucket is set.
        TailboneError: nothing was moved.
    """
    return asyncio.run(_housekeeping(config, force=force, dry_run=dry_run))


async def together(first: Coroutine[Any, Any, _A], second: Coroutine[Any, Any, _B]) -> tuple[_A, _B]:
    """Await two things at once; when one fails, the other is cancelled and awaited first."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(first), group.create_task(second)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()


async def _serve(config: Config) -> int:
    log = get_logger()
    with stop_on_signals() as stop:
        # No token leaves without its line in the log.
        async with Daemon(config, audit=get_logger(strict=True), stop=stop) as daemon:
            if await stop.unless(daemon.start()) is None:
                log.info("stopped before it was up")
                return 0
            failure = await stop.unless(daemon.failure())
            if failure is None:
                log.info("stopping")
                return 0
            log.error("background work failed: stopping", exc_info=failure)
            return 1


async def _housekeeping(config: Config, *, force: bool, dry_run: bool) -> Housekeeping:
    if not config.keys.bucket:
        raise ConfigError(
            "keys.bucket is not set: there is no published JWKS to bring the key folder in line with"
        )
    keys = key_lifecycle(config, get_logger())
    try:
        return await (keys.housekeeping_to_do if dry_run else keys.housekeeping)(force=force)
    finally:
        await keys.close()


def key_lifecycle(config: Config, log: Logger) -> KeyLifecycle:
    """The keys that the settings mean, not started.

    Raises:
        ConfigError: keys.bucket is none.
    """
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.lifecycle import KeyLifecycle, KeySettings

    activate_after_s = config.keys.activate_after_s
    settings = KeySettings(
        prefix=config.key.prefix,
        algorithm=config.keys.algorithm,
        size=config.keys.size,
        expiry_s=config.keys.expiry_s,
        max_age_s=config.keys.max_age_s,
        activate_after_s=config.keys.max_age_s if activate_after_s is None else activate_after_s,
        rotate_every_s=config.keys.rotate_every_s,
        conditional_writes=config.keys.conditional_writes,
    )
    return KeyLifecycle(
        folder=KeyFolder(Path(config.keys.dir)),
        store=store_of(config.keys.bucket),
        path=config.keys.key_path,
        settings=settings,
        log=log,
    )


class Daemon:
    """The issuer, the admin API and their keys, on one node.

    ``async with Daemon(config) as daemon: await daemon.start()``. Leaving it takes everything down, from any
    state, in this order, each step bounded in time: stop listening on the tailnet and drain HTTP and gRPC;
    remove the socket directory; stop the timers; let a change of the keys end, and close their store; close
    the node.
    """

    def __init__(
        self,
        config: Config,
        *,
        isolated: bool = False,
        log: Logger | None = None,
        audit: Logger | None = None,
        on_login_url: Callable[[str], None] | None = None,
        stop: Stop | None = None,
        grace_s: float = _GRACE_S,
    ) -> None:
        """Make a daemon that has not started.

        Args:
            config: all settings.
            isolated: the node takes nothing from tsnet's own TS_ variables.
            log: for everything that happens; by default the process's.
            audit: gets the line of each token, before the token leaves; by default ``log``.
            on_login_url: shows a person where to log in; by default a line on standard error.
            stop: removes the socket directory when a second signal ends the process at once.
            grace_s: how long requests in flight may take at the end, in seconds.
        """
        self._config = config
        self._isolated = isolated
        self._log = log or get_logger()
        self._audit = audit
        self._on_login_url = on_login_url
        self._stop = stop
        self._grace_s = grace_s
        self._stack = AsyncExitStack()
        self._node: TailnetNode | None = None
        self._keys: KeyLifecycle | None = None
        self._issuer: IssuerServer | None = None
        self._servers: list[IssuerServer | AdminServer] = []
        self._listeners: list[Listener] = []
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def start(self) -> NodeStatus:
        """Join the tailnet, bring up keys and servers, and listen. Never waits for the JWKS's store.

        Raises:
            ConfigError: issuer and admin API would share a port, the process may have too few descriptors, or
                a binding is not an address of the node.
            TailnetError: the node could not join.
            KeyFileError: the key folder cannot be used.
        """
        from tailbone.daemon.node import TailnetNode

        check_ports(self._config)
        check_descriptors(self._config)
        self._node = node = await self._stack.enter_async_context(
            TailnetNode(
                self._config,
                log=self._log,
                isolated=self._isolated,
                on_login_url=self._on_login_url,
                on_renamed=self._renamed,
            )
        )
        # The node joins on threads of its own; meanwhile the keys are read and the servers imported.
        status, (keys, classes) = await together(node.join(), self._prepare())
        # Not before: a server that is not let in would leave a public key behind with each try.
        self._background.append(asyncio.ensure_future(keys.run()))
        addresses = listen_addresses(self._config, status.addresses)
        sockets = self._socket_directory()
        self._stack.push_async_callback(self._stop_serving)
        if classes.issuer is not None:
            await self._start_issuer(self._make_issuer(classes.issuer, node, keys, status), sockets)
            await self._listen(node, "issuer", self._config.server.port, sockets, addresses)
        if classes.admin is not None:
            await self._start_admin(self._make_admin(classes.admin, node, keys), sockets)
            await self._listen(node, "admin", self._config.admin.port, sockets, addresses)
        self._background.append(asyncio.ensure_future(node.watch()))
        # What exists now lives as long as the process: no collection has to look at it again.
        gc.collect()
        gc.freeze()
        self._log.info(
            "started",
            node=status.dns_name,
            addresses=list(status.addresses),
            components=list(self._config.components),
            version=version(),
            commit=commit(),
        )
        return status

    async def failure(self) -> BaseException:
        """Wait until background work ends, which it does only by a failure, and give that."""
        done, _ = await asyncio.wait(self._background, return_when=asyncio.FIRST_COMPLETED)
        failures = [task.exception() for task in done if not task.cancelled()]
        return next(filter(None, failures), None) or RuntimeError("background work ended by itself")

    def reasons(self) -> list[str]:
        """Why no token can be issued now; empty when one can."""
        if self._node is None or self._keys is None:
            return ["server: starting"]
        return [*self._node.reasons, *self._keys.reasons()]

    def notes(self) -> list[str]:
        """Problems that do not stop token issuance (shown by ``/_readyz``)."""
        if self._node is None or self._keys is None:
            return []
        return [*self._node.notes, *self._keys.notes()]

    def published_document(self) -> bytes | None:
        """Return the last good copy of the published JWKS; None until one exists."""
        return None if self._keys is None else self._keys.published_document()

    # --- before the node is there

    async def _prepare(self) -> tuple[KeyLifecycle, _Classes]:
        # In a thread, since the S3 SDK takes 0.3 s to import.
        keys = await asyncio.to_thread(key_lifecycle, self._config, self._log)
        self._stack.push_async_callback(self._close_keys, keys)
        await keys.start()
        self._keys = keys
        self._stack.push_async_callback(self._stop_background)
        return keys, await asyncio.to_thread(_import_servers, self._config.components)

    async def _stop_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _close_keys(self, keys: KeyLifecycle) -> None:
        try:
            async with asyncio.timeout(2 * self._grace_s):
                await keys.close(self._grace_s)
        except TimeoutError:
            self._log.warn("the store of the JWKS did not close as it should")

    def _socket_directory(self) -> Path:
        """A fresh directory that only this user can enter: who reaches its sockets passes for a peer."""
        try:
            folder = TemporaryFolder.make()
        except OSError:
            # No temporary directory can be written, as in a read-only container; the node's own can.
            folder = TemporaryFolder.make(parent=Path(self._config.server.tailscale.dir))
        self._stack.callback(folder.remove)
        if self._stop is not None:
            self._stop.before_exit.append(folder.remove)
        if len(str(folder.path)) > _LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"{folder.path} is too long for the path of a socket: "
                "let TMPDIR be a folder with a shorter one"
            )
        return folder.path

    # --- the servers

    def _make_issuer(
        self, server_class: type[IssuerServer], node: TailnetNode, keys: KeyLifecycle, status: NodeStatus
    ) -> IssuerServer:
        from tailbone.token.issuer import Issuer
        from tailbone.token.policy import Rules

        config = self._config
        rules = Rules(
            issuer=config.keys.issuer,
            expiry_s=int(config.keys.expiry_s),
            backdate_s=config.keys.backdate_s,
            audiences=config.issuer.audiences,
            allow_shared=config.issuer.allow_shared,
        )
        return server_class(
            issuer=Issuer(rules, lambda: keys.ring),
            identify=node.node.identify,
            hosts=self._hosts(status.dns_name, status.addresses),
            readiness=self.reasons,
            notes=self.notes,
            jwks=keys.published_document,
            max_age_s=config.keys.max_age_s,
            version=version(),
            commit=commit(),
            log=self._log,
            audit=self._audit,
        )

    def _hosts(self, dns_name: str, addresses: Sequence[str]) -> Sequence[str]:
        """What a client may have meant the issuer by."""
        short = dns_name.partition(".")[0]
        return (*addresses, dns_name, short, *self._config.server.allowed_hosts)

    def _renamed(self, dns_name: str, addresses: Sequence[str]) -> None:
        if self._issuer is not None:
            self._issuer.set_hosts(self._hosts(dns_name, addresses))

    async def _start_issuer(self, issuer: IssuerServer, sockets: Path) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(sockets / "issuer"))
            listening.listen(_BACKLOG)
            listening.setblocking(False)
            await issuer.start(listening)
        except BaseException:
            listening.close()
            raise
        self._issuer = issuer
        self._servers.append(issuer)

    def _make_admin(
        self, server_class: type[AdminServer], node: TailnetNode, keys: KeyLifecycle
    ) -> AdminServer:
        from tailbone.admin.service import AdminSettings

        config = self._config
        return server_class(
            lifecycle=keys,
            identify=node.node.identify,
            access=config.admin.access,
            capability=config.admin.capability,
            settings=AdminSettings(
                version=version(),
                commit=commit(),
                issuer=config.keys.issuer,
                jwks=_published_at(config),
                signing_key_id=lambda: keys.ring.signing.kid if keys.ring.signing else "",
                readiness=self.reasons,
                notes=self.notes,
            ),
            log=self._log,
        )

    async def _start_admin(self, admin: AdminServer, sockets: Path) -> None:
        await admin.start(sockets / "admin")
        self._servers.append(admin)

    async def _listen(
        self, node: TailnetNode, name: str, port: int, sockets: Path, addresses: Mapping[str, Sequence[str]]
    ) -> None:
        listener = await node.node.listen(
            name,
            port,
            sockets / name,
            addresses=addresses[name],
            max_connections=self._config.server.max_connections,
        )
        self._listeners.append(listener)

    async def _stop_serving(self) -> None:
        """Take nothing new, then let what is in flight end; all at once, since none waits for another."""
        async with asyncio.TaskGroup() as group:
            for listener in self._listeners:
                group.create_task(self._close(listener.close(2 * self._grace_s)))
            await asyncio.gather(*(self._close(server.close(self._grace_s)) for server in self._servers))
            # A client that keeps its connections pooled closes none of them: it is not waited for.
            for listener in self._listeners:
                group.create_task(self._close(listener.end(self._grace_s * _FLUSH_PART)))

    async def _close(self, closing: Coroutine[Any, Any, None]) -> None:
        try:
            await closing
        except TailboneError as error:
            self._log.warn("a part did not close as it should", error=error.message, detail=error.detail)


def _published_at(config: Config) -> str:
    """Where the JWKS is, as a URL; empty without a bucket."""
    bucket = config.keys.bucket
    if not bucket:
        return ""
    place = bucket if "://" in bucket else f"s3://{bucket}"
    return f"{place.rstrip('/')}/{config.keys.key_path}"


class _Classes(NamedTuple):
    """The servers of the components that are to run."""

    issuer: type[IssuerServer] | None
    admin: type[AdminServer] | None


def _import_servers(components: Sequence[str]) -> _Classes:
    """Import what the components need: Sanic and gRPC are two thirds of a start."""
    issuer_class: type[IssuerServer] | None = None
    admin_class: type[AdminServer] | None = None
    if "issuer" in components:
        from tailbone.server import IssuerServer as issuer_class  # noqa: N813
    if "admin" in components:
        from tailbone.admin.service import AdminServer as admin_class  # noqa: N813
    return _Classes(issuer_class, admin_class)
