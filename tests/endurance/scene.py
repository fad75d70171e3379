"""What all long runs share: a private tailnet, and a server and callers on it, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeVar

from harness.programs import TAILBONE, clean_environment
from harness.tailnet import Loop, Tailnet
from harness.waiting import until

from tailbone.tsnet.node import Node, NodeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from concurrent.futures import Future

    from harness.tailnet import Caller

_T = TypeVar("_T")

ISSUER_PORT: Final = 80
ADMIN_PORT: Final = 50051
_LONGEST_S: Final = 24 * 3600.0
_STARTED: Final = '"event":"started"'


class Place(NamedTuple):
    """The loopback ports of one node that lead to the server.

    Attributes:
        issuers: each leads to the issuer, ``(host, port)``: a port takes 1,024 connections.
        admin: leads to the admin API, ``(host, port)``.
        host: the Host field that means the server.
    """

    issuers: tuple[tuple[str, int], tuple[str, int]]
    admin: tuple[str, int]
    host: str

    @property
    def issuer(self) -> tuple[str, int]:
        """The first of ``issuers``."""
        return self.issuers[0]


def place_of(caller: Caller, server: str) -> Place:
    """Open the ways of a node of this process to a server that is up."""

    def leading_to(port: int) -> tuple[str, int]:
        host, _, local = caller.to(server, port).address.rpartition(":")
        return host, int(local)

    issuers = leading_to(ISSUER_PORT), leading_to(ISSUER_PORT)
    return Place(issuers, leading_to(ADMIN_PORT), server)


class ServerProcess:
    """``tailbone server start`` with its JSON log in a file.

    Attributes:
        name: its node's name.
        folder: its keys are in ``keys`` below it.
        log: the file.
    """

    def __init__(
        self, tailnet: Tailnet, root: Path, name: str, *, command: Sequence[str] = TAILBONE, **variables: str
    ) -> None:
        """Prepare a server; ``start`` may be called again after its end.

        Args:
            tailnet: to join.
            root: where its folder is made.
            name: of its node.
            command: what to start in place of ``tailbone``.
            variables: of its environment.
        """
        self.name = name
        self.folder = root / name
        self.folder.mkdir()
        self.log = self.folder / "log"
        self._command = [*command, "server", "start"]
        home = self.folder / "home"
        home.mkdir()
        self._environment = clean_environment(
            home,
            TB_LOG_FORMAT="json",
            TB_KEYS_DIR=str(self.folder / "keys"),
            TB_SERVER_TAILSCALE_DIR=str(self.folder / "node"),
            TB_SERVER_TAILSCALE_HOSTNAME=name,
            TB_SERVER_TAILSCALE_CONTROLURL=tailnet.control_url,
            TB_SERVER_TAILSCALE_AUTHKEY=tailnet.key("tag:tailbone"),
            # One node asks for as many tokens as it can get.
            **({"TB_SERVER_RATELIMIT": "0"} | variables),
        )
        self._process: Popen[bytes] | None = None
        self._log_begins = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self, stdout: int | None = None) -> None:
        """Start it, and return at once.

        Args:
            stdout: where its standard output, and so the log, goes in place of the file.
        """
        with self.log.open("ab") as log:
            self._log_begins = log.tell()
            self._process = Popen(
                self._command,
                env=self._environment,
                cwd=self.folder,
                stdin=DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
            )

    def started(self) -> bool:
        """Report whether it listens.

        Raises:
            AssertionError: it has ended.
        """
        assert self._process is not None
        text = self.text()
        assert self._process.poll() is None, f"the server has ended:\n{text[-4000:]}"
        return _STARTED in text

    def text(self) -> str:
        """Return its log since the last start."""
        with self.log.open("rb") as log:
            log.seek(self._log_begins)
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Send SIGTERM, and wait for the end; SIGKILL after 20 s."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(20)
        finally:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        self.start()
        until(self.started, "the server listens", timeout_s=30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class CallerProcess:
    """A process with one node or several, in which functions run that call the server.

    Its Python and its Go take no time from those of the server or of another caller, but for the processors.
    """

    def __init__(
        self, tailnet: Tailnet, folder: Path, name: str, server: str, *, nodes: int = 1, nice: int = 0
    ) -> None:
        """Join.

        Args:
            tailnet: to join.
            folder: where the nodes' state goes.
            name: what the nodes' names begin with.
            server: the name of the server's node.
            nodes: how many.
            nice: added to the process's niceness.
        """
        settings = [
            NodeSettings(
                hostname=f"{name}-{number}",
                dir=folder / f"{name}-{number}",
                authkey=tailnet.key(f"{name}@example.com"),
                control_url=tailnet.control_url,
                loopback=True,
                ignore_environment=True,
            )
            for number in range(nodes)
        ]
        # Not a fork, which a process with a Go runtime does not survive.
        self._executor = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_join, initargs=(settings, server, nice)
        )

    def submit(self, work: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> Future[_T]:
        """Await ``work(places, *arguments)`` there."""
        return self._executor.submit(_run, work, *arguments)

    def __enter__(self) -> Self:
        try:
            self.submit(_joined).result(60)
        except BaseException:
            self._executor.shutdown(cancel_futures=True)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)


class _Here(NamedTuple):
    """What a caller's process has. One loop for everything that runs there: gRPC keeps to its first one."""

    loop: Loop
    places: list[Place]


_here: list[_Here] = []


def _join(settings: Sequence[NodeSettings], server: str, nice: int) -> None:
    os.nice(nice)
    loop = Loop()
    _here.append(_Here(loop, [loop.run(_placed(Node(node), server)) for node in settings]))


async def _joined(_: Sequence[Place]) -> None:
    """Do nothing: the process has joined before it does anything."""


async def _placed(node: Node, server: str) -> Place:
    await node.__aenter__()
    await node.up(20)

    async def leading_to(port: int) -> tuple[str, int]:
        forward = await node.forward("127.0.0.1:0", f"{server}:{port}")
        host, _, local = forward.local.rpartition(":")
        return host, int(local)

    issuers = await leading_to(ISSUER_PORT), await leading_to(ISSUER_PORT)
    return Place(issuers, await leading_to(ADMIN_PORT), server)


def _run(work: Callable[..., Coroutine[Any, Any, _T]], *arguments: Any) -> _T:
    [here] = _here
    return here.loop.run(work(here.places, *arguments), timeout_s=_LONGEST_S)


@contextmanager
def scene() -> Iterator[tuple[Tailnet, Path, ExitStack]]:
    """Make a private tailnet, a folder, and a stack that is unwound before both go."""
    folder = Path(tempfile.mkdtemp(prefix="tailbone-endurance-"))
    try:
        with Tailnet(folder) as tailnet, ExitStack() as stack:
            yield tailnet, folder, stack
    finally:
        shutil.rmtree(folder, ignore_errors=True)
