"""The health socket: by it ``tailbone health`` asks a server on this machine whether it can issue tokens.

It is in the node's folder, which a command with the server's settings knows. One server at a time uses the
folder, since its node locks it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import Problem, TailboneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tailbone.process.log import Logger

_NAME: Final = "health.sock"
_TIMEOUT_S: Final = 5.0


class Health(msgspec.Struct, frozen=True):
    """What the socket answers, as JSON.

    Attributes:
        reasons: why no token can be issued now; empty if one can.
        notes: problems that do not stop token issuance.
    """

    reasons: tuple[Problem, ...]
    notes: tuple[Problem, ...]


@asynccontextmanager
async def health_socket(folder: Path, read: Callable[[], Health], log: Logger) -> AsyncIterator[None]:
    """Answer every connection with the current health, until the end.

    Only this user and root can connect, so the answer has the problems' texts.

    Args:
        folder: the node's folder.
        read: returns the current health; called on the event loop.
        log: receives a warning if the folder's file system has no sockets.
    """

    def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode(read()))
        writer.close()

    with socket.socket(socket.AF_UNIX) as listening:
        try:
            _bind(listening, folder)
        except OSError as error:
            log.warning("tailbone health cannot ask this server", folder=str(folder), error=error.strerror)
            yield
            return
        async with await asyncio.start_unix_server(answer, sock=listening):
            try:
                yield
            finally:
                (folder / _NAME).unlink(missing_ok=True)


def ask(folder: Path) -> Health:
    """Return the health of the server whose node's folder this is.

    Raises:
        TailboneError: no server uses the folder, or it does not answer within 5 s.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            with _short_path(folder) as path:
                connection.connect(path)
            with connection.makefile("rb") as stream:
                return msgspec.json.decode(stream.read(), type=Health)
        except TimeoutError:
            raise TailboneError(f"the server does not answer within {_TIMEOUT_S:g} s") from None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
                raise TailboneError(f"no server runs with the folder {folder} (--ts-dir)") from None
            raise TailboneError(f"the server of {folder} cannot be asked: {error.strerror}") from None
        except msgspec.DecodeError:
            raise TailboneError("the server has closed the connection without an answer") from None


def _bind(listening: socket.socket, folder: Path) -> None:
    (folder / _NAME).unlink(missing_ok=True)  # a killed server has left it
    with _short_path(folder) as path:
        listening.bind(path)
    # Before it listens: nobody can connect yet.
    (folder / _NAME).chmod(0o600)


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """Give a path of the socket that is short enough for any folder; the limit is 107 bytes (unix(7))."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
