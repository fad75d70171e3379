"""Programs as a user starts them: the real command line in its own process."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TAILBONE = (sys.executable, "-m", "tailbone")

_TERMINATE_S = 8.0
_OURS = ("TB_", "TS_", "TSNET_", "AWS_", "TAILBONE_")


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a fresh machine, without settings of tailbone, tailscale and AWS."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true", **more}


class Program:
    """A process whose output is read continuously.

    Attributes:
        out: lines of standard output so far.
        err: lines of standard error so far.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        new_session: bool = False,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._parsed: dict[int, int] = {}
        self._records: list[dict[str, Any]] = []
        self.command = list(command)
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=new_session,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.put(None)
        self._news.put(None)

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of its JSON log so far."""
        for lines in (self.out, self.err):
            done = self._parsed.get(id(lines), 0)
            new = lines[done:]
            self._parsed[id(lines)] = done + len(new)
            self._records += [json.loads(line) for line in new if line.startswith('{"time"')]
        return self._records

    def event(self, text: str) -> dict[str, Any] | None:
        """Return the first log record with that event."""
        return next((record for record in self.records() if record["event"] == text), None)

    def wait_for(self, text: str, *, timeout_s: float = 20.0) -> str:
        """Wait for a line with ``text`` on either stream, and return it.

        Raises:
            AssertionError: the program ended, or took too long; the message contains its output.
        """
        end = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None
            if ended:
                self._drain()
            for line in (*self.out, *self.err):
                if text in line:
                    return line
            if ended:
                raise AssertionError(f"ended with {self.process.returncode} before {text!r}\n{self.output()}")
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {text!r} within {timeout_s:g} s\n{self.output()}")
            try:
                self._news.get(timeout=min(left, 0.1))
            except queue.Empty:
                continue

    def _drain(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def output(self) -> str:
        """Return all its output, for the message of a failure."""
        return "\n".join(["--- stdout", *self.out, "--- stderr", *self.err])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 15.0) -> int:
        """Wait for its end, and return its exit code as a shell would show it."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s:g} s\n{self.output()}") from None
        self._drain()
        return code if code >= 0 else 128 - code

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_s: float = 15.0) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.send(number)
        return self.wait(timeout_s)

    def end(self) -> None:
        """End it if it still runs, first with SIGTERM so that it can clean up."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TERMINATE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._drain()


def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float = 30.0
) -> Program:
    """Run a program to its end."""
    program = Program(command, env=env, cwd=cwd)
    try:
        program.wait(timeout_s)
    finally:
        program.end()
    return program
