"""The sink of the log: it writes whole lines, masks secrets, and counts lost lines."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from typing import Final, Protocol, TextIO, cast

from tailbone.text import MARKS, MASK, redact

_SHORTEST_SECRET: Final = 8
_STALL_TIMEOUT_MS: Final = 250
"""How long a line waits for a stalled reader. This blocks the event loop, so it happens once per stall."""


class HasDescriptor(Protocol):
    """A stream, or anything else with a file descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


class Sink:
    """Writes lines to a stream, without a buffer: a line is written when ``write`` returns, or never.

    Attributes:
        lost: how many lines could not be written since the last one that could.
    """

    def __init__(self, stream: HasDescriptor | None = None, *, at_once: int = select.PIPE_BUF) -> None:
        """Write to ``stream``; by default, to what ``sys.stderr`` is at each write.

        Args:
            stream: where lines go; its file descriptor is used if it has one.
            at_once: how many bytes are written at once. A pipe that has room takes PIPE_BUF without blocking
                (pipe(7)).
        """
        self._stream = stream
        self._at_once = at_once
        self._secrets: list[str] = []
        self._marks = [mark.encode() for mark in MARKS]
        self._lock = threading.Lock()
        self._torn = False
        self._stalled = False
        self.lost = 0

    def add_secret(self, secret: str) -> None:
        """Mask a value in later lines, unless it is so short that this would garble other words."""
        if len(secret) >= _SHORTEST_SECRET:
            self._secrets.append(secret)
            self._marks.append(secret.encode())

    def begin(self, *, torn: bool) -> None:
        """Continue a file that may end with a part of a line.

        Args:
            torn: whether it does; the next line then begins with a newline.
        """
        with self._lock:
            self._torn = torn

    def write(self, line: bytes) -> None:
        """Write one line, which ends with a newline.

        Raises:
            OSError: the line could not be written; TimeoutError if nobody reads the stream.
        """
        # Plain searches take 0.2 µs for a line without a mark, a regular expression 3 µs.
        for mark in self._marks:
            if mark in line:
                line = self._masked(line)
                break
        stream = self._stream or sys.stderr
        try:
            fd = stream.fileno()
        except (io.UnsupportedOperation, AttributeError):
            # A stream in memory, with which tests and embedding programs replace a standard stream.
            memory = cast("TextIO", stream)
            memory.write(line.decode("utf-8", "replace"))
            memory.flush()
            return
        with self._lock:
            self._write(fd, line)

    def _write(self, fd: int, line: bytes) -> None:
        # Python's own buffer would keep the rest of a failed line, and write it with a later one.
        data = b"\n" + line if self._torn else line
        done = 0
        try:
            while done < len(data):
                self._wait(fd)
                done += os.write(fd, data[done : done + self._at_once])
        except OSError:
            if done:
                self._torn = data[done - 1] != ord("\n")
            # If only the newline is missing, the line counts as written; the next write adds it.
            if done < len(data) - 1:
                raise
        else:
            self._torn = False

    def _wait(self, fd: int) -> None:
        """Wait until the descriptor is writable; wait for a stalled reader only once."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        if not poll.poll(0) and (self._stalled or not poll.poll(_STALL_TIMEOUT_MS)):
            self._stalled = True
            raise TimeoutError("nobody reads the log")
        self._stalled = False

    def write_or_count(self, line: bytes, gap: bytes) -> None:
        """Write one line, or count it as lost: a full disk must not end the process.

        Args:
            line: the line.
            gap: the line to write before it if lines were lost; it says how many.
        """
        try:
            if self.lost:
                self.write(gap)
                self.lost = 0
            self.write(line)
        except OSError:
            self.lost += 1

    def _masked(self, line: bytes) -> bytes:
        text = redact(line.decode("utf-8", "replace"))
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text.encode()
