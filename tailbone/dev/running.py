"""A running dev: a private tailnet, the real server, callers and loopback ports, all in this process."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec

from tailbone.daemon.daemon import Daemon
from tailbone.dev.flags import LOOPBACK_NAMES, Endpoint, node_name
from tailbone.errors import (
    AddressInUseError,
    ConfigError,
    NodeClosedError,
    TailboneError,
    TailnetError,
    UnknownCallerError,
)
from tailbone.jwks.discovery import DISCOVERY_PATH, JWKS_PATH
from tailbone.jwks.serving import serve_documents
from tailbone.process.cancellation import gather_or_cancel
from tailbone.process.log import get_logger
from tailbone.temporary import TemporaryFolder
from tailbone.tsnet.devnet import Devnet
from tailbone.tsnet.node import Node, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tailbone.config.model import Config
    from tailbone.dev.flags import DevSettings
    from tailbone.process.log import Logger
    from tailbone.process.signals import Stop

_FOLDER = "tailbone-dev"
_SERVER_IDENTITY = "tag:tailbone"
_GRACE_S = 1.0
_JOIN_S = 20.0
_READY_S = 10.0
_READY_PAUSE_S = 0.005
_GRANTS_PAUSE_S = 0.005
_GRANTS_CAPABILITY = "tailbone.dev/cap/dev-grants"
"""Has the number of the last ``set_grants``, so that the server's node shows when it has these grants."""


class DevInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a program needs to use a running ``tailbone dev``.

    Attributes:
        tailnet: its name.
        control_url: the control server, which nodes of other processes can join too.
        auth_keys: a reusable auth key for each identity.
        callers: by identity, the URL at which the issuer sees that caller, in the order of the flags.
        jwks_url: the published JWKS.
        admin: ``host:port`` of the admin API.
    """

    tailnet: str
    control_url: str
    auth_keys: dict[str, str]
    callers: dict[str, str]
    jwks_url: str
    admin: str

    def environment(self) -> dict[str, str]:
        """Return the variables for a command that uses it."""
        host, _, port = self.admin.rpartition(":")
        first = next(iter(self.callers.values()))
        return {
            "TAILBONE_ISSUE_URL": f"{first}/issue",
            "TAILBONE_JWKS_URL": self.jwks_url,
            "TAILBONE_ADMIN": self.admin,
            "TB_ADMIN_CLIENT_HOST": host.strip("[]"),
            "TB_ADMIN_CLIENT_PORT": port,
        }


class QuietLog:
    """A log that drops info lines while ``quiet`` is true.

    A user who tries tailbone should see the table first, and then a line for each token.
    """

    def __init__(self, log: Logger, *, quiet: bool) -> None:
        self._log = log
        self.quiet = quiet

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of normal operation, unless quiet."""
        if not self.quiet:
            self._log.info(event, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Dev:
    """A running ``tailbone dev``.

    ``async with Dev(config, settings, stop) as dev: info = await dev.start()``. Leaving it closes callers,
    server and tailnet, and removes the temporary folder; so does a second signal.
    """

    def __init__(self, config: Config, settings: DevSettings, stop: Stop) -> None:
        self._config = config
        self._settings = settings
        self._stop = stop
        self._stack = AsyncExitStack()
        self._daemon: Daemon | None = None
        self._devnet: Devnet | None = None
        self._callers: Sequence[Node] = ()
        self._grants_set = 0
        # With an explicit level, the user wants to see every line.
        self._log = QuietLog(get_logger(), quiet=not config.is_set("log.level"))

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def start(self) -> DevInfo:
        """Start everything.

        Raises:
            AddressInUseError: a port is in use; the message names it.
        """
        settings = self._settings
        self._check_ports()
        folder = self._folder()
        self._devnet = devnet = await self._stack.enter_async_context(Devnet(state_dir=folder / "tailnet"))
        await self.set_grants([])
        keys = {identity: await devnet.add_key(identity) for identity in settings.identities}
        jwks = self._serve_documents()
        config = await self._server_config(devnet, folder, jwks)
        self._daemon = daemon = await self._stack.enter_async_context(
            Daemon(config, isolated=True, log=cast("Logger", self._log), stop=self._stop, grace_s=_GRACE_S)
        )
        callers = [self._caller(devnet, folder, identity, keys[identity]) for identity in settings.identities]
        _, self._callers = await gather_or_cancel(daemon.start(), gather_or_cancel(*callers))
        info = await self._open_ports(devnet, jwks, config, self._callers, keys)
        await self._until_ready(daemon)
        self._log.quiet = False
        return info

    async def set_grants(self, grants: Sequence[dict[str, Any]]) -> None:
        """Replace the tailnet's grants, but for the one that lets all nodes connect to each other.

        Returns when they count, if the server has started.

        Args:
            grants: see ``Devnet.set_grants``.
        """
        if self._devnet is None:
            raise NodeClosedError("not started")
        self._grants_set += 1
        own = _grant(
            {self._config.admin.capability: {"roles": ["admin"]}, _GRANTS_CAPABILITY: self._grants_set}
        )
        await self._devnet.set_grants([own, *grants])
        if self._daemon is not None and self._callers:
            source = f"{(await self._callers[0].status()).addresses[0]}:1"
            while not _has_grants(self._daemon, source, self._grants_set):  # noqa: ASYNC110 -- has no event
                await asyncio.sleep(_GRANTS_PAUSE_S)

    async def failure(self) -> BaseException:
        """Wait until the server's background work fails, and return the error."""
        if self._daemon is None:
            raise NodeClosedError("not started")
        return await self._daemon.failure()

    async def _until_ready(self, daemon: Daemon) -> None:
        """Wait until a key can sign. Continue without, with a warning, if the store is unavailable."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _READY_S
        while daemon.reasons() and loop.time() < end:  # noqa: ASYNC110 -- the start of signing has no event
            await asyncio.sleep(_READY_PAUSE_S)
        if reasons := daemon.reasons():
            self._log.warning("no token can be issued yet", reasons=[problem.text for problem in reasons])

    def _check_ports(self) -> None:
        """Refuse a port that is in use, or requested twice, before anything starts."""
        wanted = [self._settings.listen.next(i) for i in range(len(self._settings.identities))]
        wanted += [self._settings.jwks_listen, self._settings.admin_listen]
        seen: set[Endpoint] = set()
        for endpoint in wanted:
            if endpoint.port == 0:
                continue
            if endpoint.port > 65535:
                raise ConfigError(f"flag --listen: port {endpoint.port} for the last caller is above 65535")
            if endpoint in seen:
                raise AddressInUseError(
                    f"{endpoint} is requested twice; choose another port, or 0 for a free one"
                )
            seen.add(endpoint)
            _check_free(endpoint)

    def _folder(self) -> Path:
        """Create the folder of all files of this dev.

        Raises:
            ConfigError: the folder of ``--state-dir`` cannot be used.
            TailnetError: a temporary folder cannot be created.
        """
        named = self._settings.state_dir
        try:
            if named is None:
                temporary = TemporaryFolder.make(name="dev-")
                self._stack.callback(temporary.remove)
                # It contains auth keys and private keys.
                self._stop.before_exit.append(temporary.remove)
                folder = temporary.path
            else:
                # A subfolder, since the named folder may be a server's, with that server's keys in it.
                folder = named / _FOLDER
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "tailnet").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if named is None:
                raise TailnetError(
                    f"cannot create a temporary folder ({error.strerror}): set TMPDIR, or use --state-dir"
                ) from None
            raise ConfigError(f"flag --state-dir: {named} cannot be used: {error.strerror}") from None
        return folder.resolve()

    async def _server_config(self, devnet: Devnet, folder: Path, jwks: Endpoint) -> Config:
        """Return the server's settings: the user's, with dev's own folders, addresses and tailnet.

        The issuer is the JWKS port unless the user has set one. The bucket may outlive that port, so it gets
        no discovery document then.
        """
        replace = msgspec.structs.replace
        config = self._config
        tailscale = replace(
            config.server.tailscale,
            authkey=await devnet.add_key(_SERVER_IDENTITY),
            authkey_file="",
            tags=(),
            control_url=devnet.info.control_url,
            dir=str(folder / "server"),
            hostname="tailbone",
            join_timeout_s=_JOIN_S,
            loopback="on",
            ephemeral=False,
        )
        listens = (self._settings.listen, self._settings.jwks_listen, self._settings.admin_listen)
        hosts = (*config.server.allowed_hosts, *LOOPBACK_NAMES, *(endpoint.host for endpoint in listens))
        admin = replace(config.admin, binding="auto")
        if not config.is_set("admin.access"):
            # Every node here has every role (see _grant), which avoids the warning of acl.
            admin = replace(admin, access="grant")
        keys = replace(
            config.keys,
            dir=str(folder / "keys"),
            bucket=self._settings.bucket or (folder / "bucket").as_uri(),
        )
        if not config.is_set("keys.outsideCheck"):
            # An issuer that the user has set for dev's tokens need not exist.
            keys = replace(keys, outside_check="off")
        if not config.is_set("keys.issuer"):
            keys = replace(keys, issuer=f"http://{jwks}", discovery_path="none")
        return replace(
            config,
            components=("issuer", "admin"),  # dev shows the addresses of both
            keys=keys,
            server=replace(config.server, binding="auto", tailscale=tailscale, allowed_hosts=hosts),
            admin=admin,
        )

    async def _caller(self, devnet: Devnet, folder: Path, identity: str, key: str) -> Node:
        hostname = node_name(identity)
        digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
        settings = NodeSettings(
            hostname=hostname,
            dir=folder / "callers" / f"{hostname}-{digest}",
            authkey=key,
            control_url=devnet.info.control_url,
            loopback=True,
            ignore_environment=True,
        )
        node = await self._stack.enter_async_context(Node(settings))
        await node.up(_JOIN_S)
        return node

    async def _open_ports(
        self, devnet: Devnet, jwks: Endpoint, config: Config, callers: Sequence[Node], keys: dict[str, str]
    ) -> DevInfo:
        settings = self._settings
        issuer, admin = f"tailbone:{config.server.port}", f"tailbone:{config.admin.port}"
        urls: dict[str, str] = {}
        for number, (identity, node) in enumerate(zip(settings.identities, callers, strict=True)):
            forward = await node.forward(str(settings.listen.next(number)), issuer)
            urls[identity] = f"http://{forward.local}"
        opened = await callers[0].forward(str(settings.admin_listen), admin)
        return DevInfo(
            tailnet=devnet.info.tailnet,
            control_url=devnet.info.control_url,
            auth_keys=keys,
            callers=urls,
            jwks_url=f"http://{jwks}{JWKS_PATH}",
            admin=opened.local,
        )

    def _serve_documents(self) -> Endpoint:
        """Serve the public documents of the server, which starts later: its issuer may be this endpoint."""
        endpoint = self._settings.jwks_listen

        def jwks() -> bytes | None:
            return self._daemon.published_document() if self._daemon else None

        def discovery() -> bytes | None:
            return self._daemon.discovery_document() if self._daemon else None

        documents = {JWKS_PATH: jwks, DISCOVERY_PATH: discovery}
        serving = serve_documents(endpoint, documents, max_age_s=self._config.keys.max_age_s)
        try:
            return endpoint._replace(port=self._stack.enter_context(serving))
        except OSError as error:
            raise _cannot_listen(endpoint, error) from None


def _check_free(endpoint: Endpoint) -> None:
    """Check that ``endpoint`` can be listened on.

    Raises:
        AddressInUseError: it is in use; the message names the port.
        ConfigError: it cannot be listened on at all.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(endpoint)
        except OSError as error:
            raise _cannot_listen(endpoint, error) from None


def _cannot_listen(endpoint: Endpoint, error: OSError) -> TailboneError:
    if error.errno != errno.EADDRINUSE:
        return ConfigError(f"{endpoint} cannot be listened on: {error.strerror}")
    return AddressInUseError(
        f"{endpoint} is in use; choose another port, or 0 for a free one", detail=str(error)
    )


def _has_grants(daemon: Daemon, source: str, number: int) -> bool:
    """Return whether the server's node has the grants of that number, or later ones."""
    try:
        values = daemon.whois(source).capabilities.get(_GRANTS_CAPABILITY, ())
    except UnknownCallerError:  # the node has not heard of that caller yet
        return False
    return any(int(value) >= number for value in values)


def _grant(capabilities: dict[str, Any]) -> dict[str, Any]:
    """Return a grant of all connections, and of these capabilities, to all nodes."""
    app = {name: [value] for name, value in capabilities.items()}
    return {"src": ["*"], "dst": ["*"], "ip": ["*"], "app": app}
