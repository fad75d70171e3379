"""``tailbone dev``: a private tailnet, the real server, callers and loopback ports, all on this machine.

Everything but the control server is what production runs. It must never touch production: it keeps keys and
nodes in a folder of its own, and no variable tells it where production keeps its things.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast
from urllib.parse import urlsplit

import msgspec

from tailbone.daemon import Daemon, run_on_uvloop, together
from tailbone.errors import AddressInUseError, CommandError, ConfigError, NodeClosedError
from tailbone.log import get_logger
from tailbone.membership import is_loopback
from tailbone.signals import Stop, interrupt_ends, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from tailbone.config import Config
    from tailbone.log import Logger
    from tailbone.tsnet.devnet import Devnet
    from tailbone.tsnet.node import Node

DEFAULT_IDENTITIES = ("dev@example.com", "tag:ci")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")

_SERVER_IDENTITY = "tag:tailbone"
_GRACE_S = 1.0
_JOIN_S = 20.0
_READY_S = 10.0
_READY_PAUSE_S = 0.005
# Ctrl-C ends everything within 2 s: what a command does not use of that is left for the rest.
_COMMAND_END_S = 0.8
_COMMAND_TERMINATE_S = 0.3
_IGNORE_ENDPOINTS = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
_LOGIN = re.compile(r"[^@\s/:*,]+@[^@\s/:*,]+")
_TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]*")
_LONGEST_NAME = 40


class Endpoint(NamedTuple):
    """A loopback address to listen on; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def next(self, steps: int) -> Endpoint:
        """The endpoint ``steps`` ports further; a free one stays a free one."""
        return self._replace(port=self.port + steps) if self.port else self


class DevSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What ``tailbone dev`` is asked for.

    Attributes:
        identities: whom the callers are: logins (``dev@example.com``) or tags (``tag:ci``).
        listen: where the first caller listens; each next one gets the next port.
        jwks_listen: where the JWKS is served.
        admin_listen: where the admin API is.
        state_dir: keeps tailnet, nodes and keys between runs; None: a temporary folder that is removed.
        bucket: an S3 bucket for the JWKS, on a loopback ``AWS_ENDPOINT_URL``; empty: a folder.
    """

    identities: tuple[str, ...] = DEFAULT_IDENTITIES
    listen: Endpoint = Endpoint("127.0.0.1", 8080)
    jwks_listen: Endpoint = Endpoint("127.0.0.1", 8090)
    admin_listen: Endpoint = Endpoint("127.0.0.1", 50051)
    state_dir: Path | None = None
    bucket: str = ""


class DevFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a program needs to use a running ``tailbone dev``.

    Attributes:
        tailnet: its name.
        control_url: where further nodes join, also from other processes.
        auth_keys: a reusable auth key for each identity.
        callers: the URL of each identity's way to the issuer, in the order asked for.
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
        """The variables for a command that runs against it."""
        host, _, port = self.admin.rpartition(":")
        first = next(iter(self.callers.values()))
        return {
            "TAILBONE_ISSUE_URL": f"{first}/issue",
            "TAILBONE_JWKS_URL": self.jwks_url,
            "TAILBONE_ADMIN": self.admin,
            "TB_ADMIN_CLIENT_HOST": host.strip("[]"),
            "TB_ADMIN_CLIENT_PORT": port,
        }


def parse_endpoint(text: str, flag: str) -> Endpoint:
    """Read ``HOST:PORT`` of a flag.

    Raises:
        ConfigError: it is not of that form, or no loopback address.
    """
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"flag {flag}: {text!r} is not HOST:PORT; allowed: 127.0.0.1:0 to 127.0.0.1:65535")
    if not is_loopback(host):
        raise ConfigError(
            f"flag {flag}: {host!r} is no loopback address; allowed: {', '.join(LOOPBACK_NAMES)}"
        )
    return Endpoint(host, int(port))


def check_identities(texts: Sequence[str]) -> tuple[str, ...]:
    """Give the callers' identities; the default ones where none is asked for.

    Raises:
        ConfigError: one is neither a login nor a tag, or is there twice.
    """
    for number, text in enumerate(texts):
        if not text.isprintable() or not (_LOGIN.fullmatch(text) or _TAG.fullmatch(text)):
            raise ConfigError(
                f"flag --as: {text!r} is no identity; allowed: a login (dev@example.com) or a tag (tag:ci)"
            )
        if text in texts[:number]:
            raise ConfigError(f"flag --as: {text!r} is given twice; allowed: each identity once")
    return tuple(texts) or DEFAULT_IDENTITIES


def node_name(identity: str) -> str:
    """The hostname of an identity's node: ``dev-example-com``. Two identities may have the same."""
    name = re.sub(r"[^a-z0-9]+", "-", identity.lower())[:_LONGEST_NAME].strip("-")
    return name or "caller"


def check_bucket(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Give the name of the S3 bucket on this machine that dev may use; empty where none is asked for.

    Raises:
        ConfigError: it is no name, or AWS' variables do not all lead to this machine: the bucket may be a
            real one.
    """
    bucket, origin = config.keys.bucket, config.origin("keys.bucket")
    if not bucket:
        return ""
    if "://" in bucket:
        raise ConfigError(
            f"keys.bucket ({origin}): {bucket!r} is no bucket's name; without one, a folder is used"
        )
    endpoints = {name: environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")}
    for name, url in endpoints.items():
        if (url or name == "AWS_ENDPOINT_URL") and not is_loopback(urlsplit(url).hostname or ""):
            raise ConfigError(
                f"keys.bucket ({origin}): dev only uses a bucket on this machine; "
                f"{name} must lead to a loopback address, such as http://127.0.0.1:7070"
            )
    if environ.get(_IGNORE_ENDPOINTS, "").lower() not in ("", "false"):
        raise ConfigError(
            f"variable {_IGNORE_ENDPOINTS}: it makes AWS_ENDPOINT_URL count for nothing; unset it"
        )
    return bucket


def check_command(command: Sequence[str]) -> None:
    """Find out before anything starts that a command cannot be run.

    Raises:
        CommandError: there is no such command, or it may not be run.
    """
    if command and shutil.which(command[0]) is None:
        found = shutil.which(command[0], mode=os.F_OK)
        raise _cannot_run(
            command[0], "it may not be executed" if found else "it was not found", 126 if found else 127
        )


def _cannot_run(name: str, why: str, status: int) -> CommandError:
    return CommandError(f"the command {name!r} cannot be run: {why}", status=status)


class Hushed:
    """A log that is quiet until everything is ready: warnings and errors only.

    Somebody who tries tailbone wants to read the table, and then a line for each token.
    """

    def __init__(self, log: Logger, *, hushed: bool) -> None:
        """Wrap ``log``; quiet until ``hushed`` is made false."""
        self._log = log
        self.hushed = hushed

    def info(self, event: str, **fields: Any) -> None:
        """What happens in normal life."""
        if not self.hushed:
            self._log.info(event, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


class Dev:
    """A running ``tailbone dev``.

    ``async with Dev(config, settings) as dev: facts = await dev.start()``. Leaving it closes callers,
    server and tailnet, and removes the temporary folder.
    """

    def __init__(self, config: Config, settings: DevSettings) -> None:
        self._config = config
        self._settings = settings
        self._stack = AsyncExitStack()
        self._daemon: Daemon | None = None
        # Who asks for a level wants to see it all.
        self._log = Hushed(get_logger(), hushed=not config.is_set("log.level"))

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def start(self) -> DevFacts:
        """Bring everything up.

        Raises:
            AddressInUseError: a port is taken; the message names it.
        """
        from tailbone.tsnet.devnet import Devnet

        settings = self._settings
        self._check_ports()
        folder = self._folder()
        devnet = await self._stack.enter_async_context(Devnet(state_dir=folder / "tailnet"))
        await devnet.set_grants([_grant(self._config.admin.capability)])
        keys = {identity: await devnet.add_key(identity) for identity in settings.identities}
        config = await self._server_config(devnet, folder)
        self._daemon = daemon = await self._stack.enter_async_context(
            Daemon(config, isolated=True, log=cast("Logger", self._log), grace_s=_GRACE_S)
        )
        callers = [self._caller(devnet, folder, identity, keys[identity]) for identity in settings.identities]
        _, nodes = await together(daemon.start(), _all(callers))
        facts = await self._open_ports(devnet, config, nodes, keys)
        await self._until_ready(daemon)
        self._log.hushed = False
        return facts

    async def failure(self) -> BaseException | None:
        """Wait until the server's background work ends, which it does only by a failure, and give that."""
        if self._daemon is None:
            raise NodeClosedError("not started")
        return await self._daemon.failure()

    async def _until_ready(self, daemon: Daemon) -> None:
        """Wait for the first key to sign; what goes on without is a store that is away, which is logged."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _READY_S
        while daemon.reasons() and loop.time() < end:  # noqa: ASYNC110  nothing tells when a key signs
            await asyncio.sleep(_READY_PAUSE_S)
        if reasons := daemon.reasons():
            self._log.warn("no token can be issued yet", reasons=reasons)

    def _check_ports(self) -> None:
        """Find a port that is taken, or asked for twice, before anything starts."""
        import socket

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
                    f"{endpoint} is asked for twice; give another port, or 0 for a free one"
                )
            seen.add(endpoint)
            family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(endpoint)
                except OSError as error:
                    raise AddressInUseError(
                        f"{endpoint} is in use; give another port, or 0 for a free one", detail=str(error)
                    ) from None

    def _folder(self) -> Path:
        """The folder of everything that is kept on disk.

        Raises:
            ConfigError: the one that was asked for cannot be used.
        """
        folder = self._settings.state_dir
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="tailbone-dev-"))
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / "tailnet").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"flag --state-dir: {folder} cannot be used: {error.strerror}") from None
        return folder.resolve()

    async def _server_config(self, devnet: Devnet, folder: Path) -> Config:
        """The settings of the server in here: the user's, but for where it keeps and finds things."""
        replace = msgspec.structs.replace
        config = self._config
        tailscale = replace(
            config.server.tailscale,
            authkey=await devnet.add_key(_SERVER_IDENTITY),
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
            # Every node here has every role (see _grant): no need for the warning that acl comes with.
            admin = replace(admin, access="grant")
        return replace(
            config,
            keys=replace(
                config.keys,
                dir=str(folder / "keys"),
                bucket=self._settings.bucket or (folder / "bucket").as_uri(),
            ),
            server=replace(config.server, binding="auto", tailscale=tailscale, allowed_hosts=hosts),
            admin=admin,
        )

    async def _caller(self, devnet: Devnet, folder: Path, identity: str, key: str) -> Node:
        from tailbone.tsnet.node import Node, NodeSettings

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
        self, devnet: Devnet, config: Config, callers: Sequence[Node], keys: dict[str, str]
    ) -> DevFacts:
        settings = self._settings
        issuer, admin = f"tailbone:{config.server.port}", f"tailbone:{config.admin.port}"
        urls: dict[str, str] = {}
        for number, (identity, node) in enumerate(zip(settings.identities, callers, strict=True)):
            forward = await node.forward(str(settings.listen.next(number)), issuer)
            urls[identity] = f"http://{forward.local}"
        jwks = await callers[0].forward(str(settings.jwks_listen), issuer)
        opened = await callers[0].forward(str(settings.admin_listen), admin)
        return DevFacts(
            tailnet=devnet.info.tailnet,
            control_url=devnet.info.control_url,
            auth_keys=keys,
            callers=urls,
            jwks_url=f"http://{jwks.local}/.well-known/jwks.json",
            admin=opened.local,
        )


async def _all(work: Sequence[Coroutine[Any, Any, Node]]) -> list[Node]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
    return [task.result() for task in tasks]


def _grant(capability: str) -> dict[str, Any]:
    """Everybody reaches everything, and may do everything in the admin API."""
    return {"src": ["*"], "dst": ["*"], "ip": ["*"], "app": {capability: [{"roles": ["admin"]}]}}


def run(
    config: Config,
    settings: DevSettings,
    *,
    on_ready: Callable[[DevFacts], None],
    command: Sequence[str] = (),
) -> int:
    """Run ``tailbone dev`` until a signal ends it, or until ``command`` has ended.

    Returns:
        The exit code: that of ``command`` where one was given.

    Raises:
        CommandError: the command cannot be run.
        TailboneError: it could not start.
    """
    check_command(command)
    environment = dict(os.environ)
    # A profile may say so, too; the variable wins over it.
    os.environ[_IGNORE_ENDPOINTS] = "false"
    with interrupt_ends():
        return run_on_uvloop(_run(config, settings, on_ready, command, environment))


async def _run(
    config: Config,
    settings: DevSettings,
    on_ready: Callable[[DevFacts], None],
    command: Sequence[str],
    environment: Mapping[str, str],
) -> int:
    with stop_on_signals() as stop:
        async with Dev(config, settings) as dev:
            facts = await stop.unless(dev.start())
            if facts is None:
                return 0
            on_ready(facts)
            if command:
                return await _run_command(command, {**environment, **facts.environment()}, stop)
            failure = await stop.unless(dev.failure())
            if failure is None:
                return 0
            get_logger().error("background work failed: stopping", exc_info=failure)
            return 1


async def _run_command(command: Sequence[str], environment: Mapping[str, str], stop: Stop) -> int:
    """Run the user's command beside the tailnet, and give its status as a shell would.

    Not by asyncio: uvloop forks, on which gRPC remarks and for which Go's runtime is not made;
    ``subprocess`` does not (it uses vfork).
    """
    try:
        process = subprocess.Popen(command, env=environment)  # noqa: ASYNC220, S603  what the user asked for
    except OSError as error:
        raise _cannot_run(command[0], error.strerror or "unknown error", 126) from None
    stop.before_exit = process.kill
    ended = asyncio.ensure_future(asyncio.to_thread(process.wait))
    try:
        if await stop.unless(_outcome(ended)) is None:
            await _end_command(process, ended, stop.signal)
    finally:
        if process.poll() is None:
            process.kill()
        status = await ended
    return status if status >= 0 else 128 - status


async def _outcome(ended: asyncio.Future[int]) -> bool:
    await asyncio.wait([ended])
    return True


async def _end_command(
    process: subprocess.Popen[bytes], ended: asyncio.Future[int], number: signal.Signals | None
) -> None:
    """Let a command end by itself, and make it end when it does not."""
    from_terminal = number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
    if number is not None and not from_terminal:
        # A terminal's Ctrl-C went to the command as well; any other signal came to us alone.
        process.send_signal(number)
    for patience_s, insist in ((_COMMAND_END_S, process.terminate), (_COMMAND_TERMINATE_S, process.kill)):
        done, _ = await asyncio.wait([ended], timeout=patience_s)
        if done:
            return
        insist()
