"""Crash-safe file access: atomic, fsynced writes, bounded reads, and a lock between processes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shlex
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_LOCK_PAUSE_S = 0.01
_CANNOT_FSYNC = (errno.EINVAL, errno.ENOTSUP)


def others_who_can(access: int, mode: int, uid: int) -> str:
    """Return who besides this user and root can use a file or folder: "everybody", "user 1000", "the group".

    Args:
        access: what they could do: ``stat.S_IROTH``, ``stat.S_IWOTH`` or both.
        mode: the permission bits of the file or folder.
        uid: its owner, who can do anything with it.
    """
    if mode & access:
        return "everybody"
    if uid not in (0, os.geteuid()):
        return f"user {uid}"
    return "the group" if mode & access << 3 else ""


def fix_of_denial(path: Path) -> str:
    """Return what lets this process use a file or folder that it may not read or write.

    It names the process's user id, which in a container has no name.
    """
    uid, name = os.geteuid(), shlex.quote(str(path))
    make = "" if os.path.lexists(path) else f"mkdir -p {name} && "
    return f"this process is user {uid}: run  {make}chown -R {uid} {name}"


def read_regular(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """Read a whole regular file. A pipe is refused without waiting for its writer.

    Args:
        path: the file; symbolic links are followed.
        limit: the largest size, in bytes.

    Returns:
        The content, and the status of the same open file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file, or longer than ``limit``; the message completes a sentence that
            begins with the path.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:  # noqa: PTH123 -- opened above, without blocking
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"is longer than {limit} bytes")
    return data, status


class Disk:
    """The file system changes that keys and stores make, one method per system call.

    Tests pass a subclass that kills the process at the n-th call: a reader must then find the old content or
    the new, never part of it.
    """

    def replace(self, path: Path, data: bytes, *, mode: int, owner: int = -1, group: int = -1) -> None:
        """Replace the content of ``path`` atomically.

        Args:
            path: the file; its folder must exist.
            data: the whole new content.
            mode: permission bits of the new file, regardless of the umask.
            owner: its user id; -1 for this process's.
            group: its group id; -1 for this process's.

        Raises:
            OSError: the write failed, and ``path`` is unchanged.
        """
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        fd = self.create(temporary)
        try:
            try:
                if (owner, group) != (-1, -1):
                    os.fchown(fd, owner, group)
                os.fchmod(fd, mode)
                self.write(fd, data)
                self.fsync(fd)
            finally:
                os.close(fd)
            self.rename(temporary, path)
        except BaseException as error:
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)  # write(2) and fsync(2) know only a descriptor
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        self.fsync_folder(path.parent)

    def create(self, path: Path) -> int:
        """Create a file that only its owner can read, and open it for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def write(self, fd: int, data: bytes) -> None:
        """Write all of ``data``; a single write(2) may write only part of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def fsync(self, fd: int) -> None:
        """Wait until the file's content is on disk."""
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file, replacing an existing target."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()

    def mkdir(self, path: Path, *, mode: int) -> None:
        """Make a folder and its parents."""
        path.mkdir(mode=mode, parents=True, exist_ok=True)

    def fsync_folder(self, path: Path) -> None:
        """Wait until the folder's entries are on disk: otherwise a power cut could undo a rename.

        Some file systems (CIFS, vboxsf, several FUSE ones) cannot sync a folder; their refusal is ignored.
        """
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.fsync(fd)
        except OSError as error:
            if error.errno not in _CANNOT_FSYNC:
                raise
        finally:
            os.close(fd)


class ProcessLock:
    """An exclusive lock between processes and within one; the kernel releases it when the process dies.

    flock(2) belongs to the open file, so two locks exclude each other even in one process.
    """

    def __init__(self, path: Path) -> None:
        """Use ``path`` as the lock file: the first lock creates it, and it is never deleted."""
        self._path = path
        self._fd = -1

    def try_acquire(self) -> bool:
        """Acquire the lock without waiting.

        Returns:
            Whether the lock is now held.

        Raises:
            OSError: the lock file cannot be opened, or is a symbolic link, which another user could have
                planted to get a file created elsewhere.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "Its lock file is a symbolic link", str(self._path)) from None
            raise
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # If the file was deleted, another process may hold a lock on a new one.
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
        """Acquire the lock, waiting up to ``timeout_s`` seconds. It blocks, so call it in a thread."""
        end = time.monotonic() + timeout_s
        while not self.try_acquire():
            if time.monotonic() >= end:
                return False
            time.sleep(_LOCK_PAUSE_S)
        return True

    def release(self) -> None:
        """Release the lock; do nothing if it is not held."""
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
