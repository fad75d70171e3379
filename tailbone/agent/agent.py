"""The agent: token files that stay fresh, and the endpoint for local programs."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from typing import TYPE_CHECKING, NamedTuple

from tailbone.agent.files import Keeper, TokenFile
from tailbone.agent.socket import Endpoint
from tailbone.client.source import AsyncTokenSource
from tailbone.errors import ConfigError
from tailbone.files import read_regular
from tailbone.process import systemd
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tailbone.client.issuer import Tokens
    from tailbone.client.token import Token

_COMMAND_S = 30.0
_PID_FILE_LIMIT = 64
_RESERVE_S = 15 * 60.0
"""What a file's token has left when it is renewed: azure-identity keeps what it has read for 10 min, and the
other 5 min are for the issuer to come back."""
_MOST_SOURCES = 256
"""Of tokens that no file has; each keeps a token in memory, and a program can ask for any audience."""


class Reload(NamedTuple):
    """How readers learn that files have new tokens.

    Attributes:
        signal: a signal's name, such as ``HUP``, for the process of ``pid_file``.
        pid_file: contains that process's id.
        command: a command line, run without a shell.
    """

    signal: str = ""
    pid_file: Path | None = None
    command: str = ""

    def check(self) -> None:
        """Raise ConfigError if the settings are incomplete or malformed, or the signal does not exist."""
        if bool(self.signal) != (self.pid_file is not None):
            raise ConfigError("--signal and --pid-file need each other")
        if self.signal and f"SIG{self.signal}" not in signal.Signals.__members__:
            raise ConfigError(f"unknown signal {self.signal!r}; write it as HUP or USR1")
        try:
            empty = bool(self.command) and not shlex.split(self.command)
        except ValueError as error:
            raise ConfigError(f"--command: {str(error).lower()}") from None
        if empty:
            raise ConfigError("--command is empty")

    async def run(self) -> None:
        """Send the signal and run the command. A failure is only logged, since the files are right."""
        if self.signal and self.pid_file is not None:
            await self._send(self.pid_file)
        if self.command:
            await self._run_command()

    async def _send(self, pid_file: Path) -> None:
        try:
            text, _ = await asyncio.to_thread(read_regular, pid_file, _PID_FILE_LIMIT)
            pid = int(text)
            if pid <= 0:
                raise ValueError("not the id of one process")  # noqa: TRY301 -- as int() does
            os.kill(pid, signal.Signals[f"SIG{self.signal}"])
        except (OSError, ValueError, OverflowError) as error:
            get_logger().warning("a reader could not be signalled", pid_file=str(pid_file), error=str(error))

    async def _run_command(self) -> None:
        quiet = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *shlex.split(self.command), stdin=quiet, stdout=quiet, stderr=quiet
            )
        except OSError as error:
            get_logger().warning("the command after a renewal cannot be run", error=str(error))
            return
        try:
            async with asyncio.timeout(_COMMAND_S):
                status = await process.wait()
        except TimeoutError:
            status = None
        finally:
            if process.returncode is None:
                process.kill()
        if status != 0:
            get_logger().warning("the command after a renewal failed", status=status or f"> {_COMMAND_S:g} s")


class Agent:
    """Keeps files fresh, and answers local programs."""

    def __init__(self, issuer: Tokens, files: Sequence[TokenFile], *, reload: Reload | None = None) -> None:
        """Describe the agent; nothing is requested yet.

        Args:
            issuer: whom to ask for tokens.
            files: the files to keep fresh.
            reload: what to do after a renewal.

        Raises:
            ConfigError: two of the files have one path.
        """
        paths = [file.path.absolute() for file in files]
        if doubled := next((path for path in paths if paths.count(path) > 1), None):
            raise ConfigError(f"{doubled}: two tokens cannot be in one file")
        self._issuer = issuer
        self._of_files: dict[tuple[str, float | None], AsyncTokenSource] = {}
        self._of_programs: dict[tuple[str, float | None], AsyncTokenSource] = {}
        self._reload = reload or Reload()
        self._renewed = asyncio.Event()
        self._keepers = [
            Keeper(file, self._source_of_file(file), on_renewal=self._renewed.set) for file in files
        ]
        self._endpoint = Endpoint(self._get, self.metrics)

    def _source_of_file(self, file: TokenFile) -> AsyncTokenSource:
        key = file.audience, file.ttl
        if key not in self._of_files:
            self._of_files[key] = AsyncTokenSource(*key, reserve=_RESERVE_S, issuer=self._issuer)
        return self._of_files[key]

    def _source_of_program(self, audience: str, ttl: float | None) -> AsyncTokenSource:
        """Return the source of a local program's tokens, which it shares with files and other programs."""
        key = audience, ttl
        source = self._of_files.get(key) or self._of_programs.pop(key, None)
        source = source or AsyncTokenSource(*key, issuer=self._issuer)
        if key not in self._of_files:
            self._of_programs[key] = source  # at the end: the first one is the least recently used
            if len(self._of_programs) > _MOST_SOURCES:
                del self._of_programs[next(iter(self._of_programs))]
        return source

    async def _get(self, audience: str, ttl: float | None) -> tuple[Token, float]:
        source = self._source_of_program(audience, ttl)
        token = await source.token()
        return token, source.left_s

    async def write(self) -> None:
        """Write each file once, and notify readers.

        Raises:
            TailboneError: there is no token for one.
            OSError: one cannot be written.
        """
        for keeper in self._keepers:
            await keeper.write()
        await self._reload.run()
        self._renewed.clear()

    def listen(self, path: Path) -> AbstractAsyncContextManager[None]:
        """Answer local programs on a Unix socket; see ``Endpoint.on_socket``."""
        return self._endpoint.on_socket(path)

    def listen_on_loopback(self, host: str, port: int, bearer: bytes) -> AbstractAsyncContextManager[int]:
        """Answer local programs with a bearer token; see ``Endpoint.on_loopback``."""
        return self._endpoint.on_loopback(host, port, bearer)

    def renew(self) -> None:
        """Renew all tokens now."""
        for source in (*self._of_files.values(), *self._of_programs.values()):
            source.expedite()

    async def keep(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Keep the files fresh, until cancelled.

        Args:
            on_ready: called when each file is written, or its first token could not be had.
        """
        async with asyncio.TaskGroup() as tasks:
            for keeper in self._keepers:
                tasks.create_task(keeper.keep())
            tasks.create_task(self._notify_readers())
            for keeper in self._keepers:
                await keeper.tried.wait()
            on_ready()
            tasks.create_task(systemd.watchdog())
            await asyncio.Event().wait()

    async def _notify_readers(self) -> None:
        """Notify readers once for all files that are renewed meanwhile; a slow reader delays no file."""
        while True:
            await self._renewed.wait()
            self._renewed.clear()
            await self._reload.run()

    def metrics(self) -> str:
        """Return the counters as Prometheus text."""
        lines = []
        for name, kind, value in (
            ("renewals_total", "counter", lambda keeper: keeper.renewals),
            ("restored_total", "counter", lambda keeper: keeper.restored),
            ("stale", "gauge", lambda keeper: int(keeper.stale)),
        ):
            lines.append(f"# TYPE tailbone_agent_{name} {kind}")
            lines += [
                f"tailbone_agent_{name}{{path={_label(str(keeper.file.path))},"
                f"audience={_label(keeper.file.audience)}}} {value(keeper)}"
                for keeper in self._keepers
            ]
        lines += [
            "# TYPE tailbone_agent_requests_total counter",
            f'tailbone_agent_requests_total{{result="answered"}} {self._endpoint.answered}',
            f'tailbone_agent_requests_total{{result="refused"}} {self._endpoint.refused}',
        ]
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
