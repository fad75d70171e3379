"""Another process of the benchmark, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_END_S: Final = 10.0
_LINE_LIMIT: Final = 16 * 1024 * 1024
# A user's settings must not affect the measurement.
_NOT_PASSED_ON: Final = ("TB_", "TS_", "AWS_", "TSNET_", "PYTHONPROFILE", "PYTHONDONTWRITEBYTECODE")


class ProgramError(Exception):
    """A program of the benchmark failed."""


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return this process's environment without settings of tailbone, tsnet and AWS.

    Args:
        home: a home directory without a settings file.
        more: variables to add.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    return {**kept, "HOME": str(home), **more}


class Program:
    """A running program.

    Use it as ``async with Program(command, environment, log) as program``. Leaving the context sends SIGTERM,
    and SIGKILL after 10 s.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, *, speaks: bool = False
    ) -> None:
        """Prepare a program.

        Args:
            command: program and arguments.
            environment: its whole environment.
            log: the file for its errors, and for its output unless it ``speaks``.
            speaks: it answers JSON lines with JSON lines.
        """
        self._command = command
        self._environment = environment
        self._log = log
        self._speaks = speaks
        self._process: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    async def __aenter__(self) -> Self:
        pipe = subprocess.PIPE if self._speaks else None
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=pipe or subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=log,
                limit=_LINE_LIMIT,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._running()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def check(self) -> None:
        """Raise ProgramError if it has ended."""
        process = self._running()
        if process.returncode is not None:
            raise ProgramError(
                f"{self._command[0]} ended with status {process.returncode}:\n{self._last_lines()}"
            )

    async def hear(self) -> dict[str, Any]:
        """Wait for its next line."""
        process = self._running()
        if process.stdout is None:
            raise ProgramError(f"{self._command[0]} does not speak")
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            self.check()
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    async def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Send it a line, and wait for the line that answers it."""
        process = self._running()
        if process.stdin is None:
            raise ProgramError(f"{self._command[0]} takes no orders")
        async with self._asking:
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
            return await self.hear()

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ProgramError(f"{self._command[0]} was not started")
        return self._process

    def _last_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
