"""AuditFile: a file that gets a line of JSON for each token, admin call and key change."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from typing import TYPE_CHECKING, Any, Final

from tailbone.files import others_who_can
from tailbone.process.log import LEVELS, Logger, Output
from tailbone.process.render import render_json
from tailbone.process.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LONGEST: Final = 1 << 20
_TAIL: Final = 64 * 1024
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class AuditFile:
    """An open audit file. Rename it and call ``reopen`` to rotate it.

    Attributes:
        required: raises OSError if a line cannot be written, for actions that must not happen without one.
        log: counts lines that cannot be written, and reports their number in a later line.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or create it with mode 0600.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is not a regular file, or everybody can read or write it; the message completes a
                sentence that begins with the path.
        """
        self._path = path
        self._fd = _open(path)
        # A line is appended as a whole, so that those of several processes do not mix.
        self._sink = Sink(self, at_once=_LONGEST)
        self._sink.begin(torn=_is_torn(self._fd))
        output = Output(LEVELS["info"], _render, self._sink)
        self.required = Logger(strict=True, output=output)
        self.log = Logger(strict=False, output=output)

    def fileno(self) -> int:
        """Return the descriptor, which stays the same when the file is opened again."""
        return self._fd

    def reopen(self) -> None:
        """Open the path again, after the file was renamed. If that fails, lines go to the old file.

        Raises:
            OSError, ValueError: as when it was made.
        """
        fd = _open(self._path)
        try:
            torn = _is_torn(fd)
            os.dup2(fd, self._fd, inheritable=False)
        finally:
            os.close(fd)
        self._sink.begin(torn=torn)

    def last(self, most: int) -> list[str]:
        """Return the last lines, the newest first: at most ``most``, and 64 KiB."""
        size = os.fstat(self._fd).st_size
        start = max(0, size - _TAIL)
        whole = os.pread(self._fd, _TAIL, start).split(b"\n")[1 if start else 0 : -1]
        return [line.decode(errors="replace") for line in reversed(whole[-most:])]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _open(path: Path) -> int:
    try:
        fd = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ValueError("is a symbolic link") from None
        raise
    try:
        _check(path, os.fstat(fd))
    except ValueError:
        os.close(fd)
        raise
    return fd


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("is not a regular file")
    if others_who_can(stat.S_IROTH | stat.S_IWOTH, status.st_mode, status.st_uid) == "everybody":
        can = "read" if status.st_mode & stat.S_IROTH else "write"
        raise ValueError(f"is refused: everybody can {can} it; run  chmod 600 {shlex.quote(str(path))}")


def _is_torn(fd: int) -> bool:
    """Return whether the last line has no newline, as after a full disk."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def _render(level: str, event: str, fields: Mapping[str, Any]) -> bytes:
    return render_json(level, event, {"outcome": "ok"} | dict(fields))
