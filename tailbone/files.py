"""Files that survive a kill: atomic, fsynced changes of a folder, and a lock between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_LOCK_PAUSE_S = 0.01


class Disk:
    """Every change of the file system that keys and stores make, one method a system call.

    A test passes a subclass that ends the process at the n-th call: what a reader then finds must be
    the old content or the new, never a part of it.
    """

    def replace(self, path: Path, data: bytes, *, mode: int) -> None:
        """Give ``path`` this content as a whole, or leave it as it was.

        Args:
            path: the file; its folder must exist.
            data: the whole new content.
            mode: permission bits of the new file, whatever the umask.

        Raises:
            OSError: nothing was changed.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        fd = self.create(temporary)
        try:
            try:
                os.fchmod(fd, mode)
                self.write(fd, data)
                self.fsync(fd)
            finally:
                os.close(fd)
            self.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        self.fsync_folder(path.parent)

    def create(self, path: Path) -> int:
        """Open a new file for writing; nobody but the owner can read it."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of ``data``: one call may take only a part of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def fsync(self, fd: int) -> None:
        """Wait until the file's content is on the disk."""
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what bore it."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def mkdir(self, path: Path, *, mode: int) -> None:
        """Make a folder, and those above it."""
        path.mkdir(mode=mode, parents=True, exist_ok=True)

    def fsync_folder(self, path: Path) -> None:
        """Wait until the folder's names are on the disk: without it a rename may be undone by a power cut."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        finally:
            os.close(fd)


class ProcessLock:
    """An exclusive lock between processes, and between the users of one process; freed by a kill.

    flock(2) belongs to the open file, so that two of these exclude each other even in one process.
    """

    def __init__(self, path: Path) -> None:
        """``path`` is the lock's own file; it is made when first locked, and stays."""
        self._path = path
        self._fd = -1

    def try_acquire(self) -> bool:
        """Lock without waiting.

        Returns:
            Whether the lock is now held.

        Raises:
            OSError: the lock's file cannot be opened.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever deletes the file makes room for a second lock beside ours: then ours counts for nothing.
            if not self._is_current(fd):
                os.close(fd)
                return False
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def acquire(self, timeout_s: float) -> bool:
        """Lock, waiting up to ``timeout_s`` seconds; blocks, so call it in a thread."""
        end = time.monotonic() + timeout_s
        while not self.try_acquire():
            if time.monotonic() >= end:
                return False
            time.sleep(_LOCK_PAUSE_S)
        return True

    def release(self) -> None:
        """Unlock; without effect when not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_current(self, fd: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(fd)
        return (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)
