"""No token without its line: ``python -m tests.endurance.lines [--tokens 1000]``.

For each kind of standard output, a server is asked for tokens: half of them before something happens to the
output, and half after. The log must then have one line for each token that arrived, and no others.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import resource
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import jwt
import msgspec
from harness.waiting import until

from tests.endurance.honest import Connection, RefusedError
from tests.endurance.scene import ServerProcess, scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harness.tailnet import Route

_CONNECTIONS: Final = 8
_REFUSED: Final = "503 log_unavailable"
_ROOM: Final = 50_000
"""How much the full disk still takes, in bytes: the lines of some hundred tokens."""


class Output:
    """A file as standard output, to which nothing happens.

    Attributes:
        fd: what the server gets; closed when it has started.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "standard-output"
        self.fd = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def begin(self, pid: int) -> None:
        """Do what is to be so for the first half; the server has just begun to serve."""

    def change(self, pid: int) -> None:
        """Do what is to be so for the second half."""

    def read(self) -> bytes:
        """Return all that the server has written; it has ended."""
        return self.path.read_bytes()


class Rotated(Output):
    """A file that is renamed, as logrotate does."""

    def change(self, pid: int) -> None:
        """Rename it."""
        self.path = self.path.rename(self.path.with_suffix(".1"))


class FullDevice(Output):
    """A device that takes nothing."""

    def _open(self) -> int:
        self.path = Path(os.devnull)
        return os.open("/dev/full", os.O_WRONLY)


class FullForAWhile(Output):
    """A file that cannot grow at first."""

    def begin(self, pid: int) -> None:
        """Leave it little room."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.path.stat().st_size + _ROOM, hard))

    def change(self, pid: int) -> None:
        """Let it grow."""
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


class ClosedPipe(Output):
    """A pipe that is read, and then closed by its reader."""

    def _open(self) -> int:
        self._reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        self._log = b""
        return writing

    def change(self, pid: int) -> None:
        """Read what there is, and close it."""
        self._log = os.read(self._reading, 1 << 20)
        os.close(self._reading)

    def read(self) -> bytes:
        """Return what was read."""
        return self._log


class UnreadPipe(Output):
    """A pipe that nobody reads at first."""

    blocking = True

    def _open(self) -> int:
        reading, writing = os.pipe()
        os.set_blocking(writing, self.blocking)
        self._parts: list[bytes] = []
        self._reader = threading.Thread(target=self._read, args=(reading,))
        return writing

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe:
            self._parts += pipe

    def change(self, pid: int) -> None:
        """Read it from now on."""
        self._reader.start()

    def read(self) -> bytes:
        """Return what was read."""
        self._reader.join()
        return b"".join(self._parts)


class UnreadNonBlockingPipe(UnreadPipe):
    """The same, non-blocking."""

    blocking = False


KINDS: Final = (Output, Rotated, FullDevice, FullForAWhile, ClosedPipe, UnreadPipe, UnreadNonBlockingPipe)


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one output.

    Attributes:
        kind: of the output.
        unbuffered: whether PYTHONUNBUFFERED was set.
        tokens: the ``jti`` of each token that arrived.
        refused: requests that were answered with log_unavailable.
        lines: the ``jti`` of each line.
        other: what else happened.
    """

    kind: str
    unbuffered: bool
    tokens: list[str]
    refused: int
    lines: list[str]
    other: list[str]

    @property
    def holds(self) -> bool:
        """Whether lines equal tokens."""
        return sorted(self.tokens) == sorted(self.lines) and not self.other


def measure(cases: Iterable[tuple[type[Output], bool]], tokens: int) -> Iterator[Count]:
    """Ask a server with each output (and with PYTHONUNBUFFERED or not) for so many tokens."""
    with scene() as (tailnet, folder, stack):
        caller = stack.enter_context(tailnet.caller())
        for number, (kind, unbuffered) in enumerate(cases):
            variables = {"TB_KEYS_ALGORITHM": "ES256"} | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {})
            server = ServerProcess(tailnet, folder, f"server-{number}", **variables)
            output = kind(server.folder)
            with ExitStack() as running:
                server.start(output.fd)
                running.callback(server.stop)
                os.close(output.fd)
                route = caller.to(server.name)
                until(lambda: _serves(route), "the server answers", timeout_s=30)  # noqa: B023 -- called at once
                output.begin(server.pid)
                answers = asyncio.run(_ask(route, tokens // 2))
                output.change(server.pid)
                answers += asyncio.run(_ask(route, tokens // 2))
            yield _count(kind, unbuffered, answers, output.read())


def _serves(route: Route) -> bool:
    try:
        return route.get("/_healthz").status == 200
    except OSError:
        return False


async def _ask(route: Route, tokens: int) -> list[str]:
    """Return the ``jti`` of each token, and what came in place of the others."""
    answers: list[str] = []
    host, _, port = route.address.rpartition(":")

    async def ask(count: int) -> None:
        connection: Connection | None = None
        for _ in range(count):
            connection = connection or await Connection.open((host, int(port)), route.host)
            try:
                answers.append(_jti(await connection.issue()))
            except (RefusedError, OSError, EOFError) as error:
                answers.append(f"{type(error).__name__} {error}" if error.args[0] != _REFUSED else _REFUSED)
                connection.close()
                connection = None
        if connection:
            connection.close()

    async with asyncio.TaskGroup() as group:
        for number in range(_CONNECTIONS):
            group.create_task(ask(len(range(number, tokens, _CONNECTIONS))))
    return answers


def _jti(token: str) -> str:
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return f"jti {claims['jti']}"


def _count(kind: type[Output], unbuffered: bool, answers: Sequence[str], log: bytes) -> Count:
    tokens = [answer for answer in answers if answer.startswith("jti ")]
    # A line that a failure cut short is ended before the next one.
    records = [json.loads(line) for line in log.splitlines() if line.endswith(b"}") and line.startswith(b"{")]
    return Count(
        kind=kind.__name__,
        unbuffered=unbuffered,
        tokens=tokens,
        refused=answers.count(_REFUSED),
        lines=[f"jti {record['jti']}" for record in records if record["event"] == "token issued"],
        other=[answer for answer in answers if answer not in tokens and answer != _REFUSED],
    )


def main() -> int:
    """Ask with all outputs, and print a table; fail when lines and tokens differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.lines", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1000, help="for each output")
    asked = parser.parse_args()
    print("standard output        unbuffered  tokens  lines  refused  other  equal", flush=True)
    broken = 0
    for count in measure(
        [(kind, unbuffered) for kind in KINDS for unbuffered in (False, True)], asked.tokens
    ):
        print(
            f"{count.kind:22} {'yes' if count.unbuffered else 'no':>10} {len(count.tokens):7} "
            f"{len(count.lines):6} {count.refused:8} {len(count.other):6}  {'yes' if count.holds else 'NO'}",
            *dict.fromkeys(count.other),
            flush=True,
        )
        broken += not count.holds
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
