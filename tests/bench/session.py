"""The session that all figures share: the private tailnet, a folder, the programs, how much to measure."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from tailbone.tsnet.devnet import Devnet
from tests.bench.program import clean_environment
from tests.bench.toolchain import build_peer

if TYPE_CHECKING:
    from collections.abc import Sequence

CAPABILITY: Final = "tailbone.dev/cap/admin"


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        rounds: how often two servers take turns.
        turn_s: how long a turn is, in seconds.
        tokens: for the memory.
        fresh_connections: for each way of making them.
        starts: of a server.
        commands: how often a command is timed.
        changes: key changes, each way.
    """

    rounds: int = 9
    turn_s: float = 4.0
    tokens: int = 100_000
    fresh_connections: int = 3000
    starts: int = 7
    commands: int = 21
    changes: int = 10

    def replacing(self, **changed: float) -> Effort:
        """Return a copy with some members replaced."""
        return msgspec.structs.replace(self, **changed)


QUICK: Final = Effort(
    rounds=2, turn_s=1.0, tokens=4000, fresh_connections=200, starts=2, commands=5, changes=2
)
"""A quick run, to show that everything works; its numbers mean little."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line decides.

    Attributes:
        effort: how much to measure.
        server: the command in place of ``tailbone``.
        against: another such command, to compare with in place of the Go baseline.
        before: a commit to compare the signing path with.
        connections: at once, for tokens: one row of figures for each number.
        algorithm: of the signing key, for tokens.
    """

    effort: Effort = Effort()
    server: Sequence[str] = ()
    against: Sequence[str] = ()
    before: str = ""
    connections: Sequence[int] = (16, 1)
    algorithm: str = "RS256"


def own_command() -> str:
    """Return the ``tailbone`` of this Python's environment.

    Raises:
        SystemExit: it is not installed there.
    """
    path = Path(sys.executable).parent / "tailbone"
    if not path.exists():
        raise SystemExit(f"bench: there is no {path}; install tailbone into this environment first")
    return str(path)


class Session:
    """An async context manager; leaving it ends the tailnet and removes the folder.

    Attributes:
        options: what the command line decided.
        devnet: the private tailnet.
        folder: everything that programs write.
        peer: the bench's Go program.
    """

    def __init__(self, options: Options) -> None:
        """Take the options."""
        self.options = options
        self.devnet = Devnet()
        self.folder = Path()
        self.peer = Path()
        self._stack = AsyncExitStack()
        self._numbers = 0

    @property
    def effort(self) -> Effort:
        """How much to measure."""
        return self.options.effort

    @property
    def server(self) -> list[str]:
        """The command that is measured, before its subcommand."""
        return list(self.options.server) or [own_command()]

    async def __aenter__(self) -> Self:
        self.peer = build_peer()
        async with AsyncExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(prefix="tailbone-bench-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            await stack.enter_async_context(self.devnet)
            grant = {"src": ["*"], "dst": ["*"], "ip": ["*"], "app": {CAPABILITY: [{"roles": ["admin"]}]}}
            await self.devnet.set_grants([grant])
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def place(self, name: str) -> Path:
        """Make a fresh folder."""
        self._numbers += 1
        path = self.folder / f"{name}-{self._numbers}"
        path.mkdir(mode=0o700)
        return path

    def name(self, what: str) -> str:
        """Return a host name that no other node of this tailnet has."""
        self._numbers += 1
        return f"{what}-{self._numbers}"

    def environment(self, **more: str) -> dict[str, str]:
        """Return a program's environment, without settings of tailbone, tsnet and AWS except ``more``."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return clean_environment(home, **more)
