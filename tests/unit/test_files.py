"""Atomic file replacement, bounded reads, and locks between processes."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tailbone.files import Disk, ProcessLock, fix_of_denial, read_regular

if TYPE_CHECKING:
    from pathlib import Path


class FullDisk(Disk):
    """A disk that runs out of space after three bytes."""

    def write(self, fd: int, data: bytes) -> None:
        os.write(fd, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class RecordingDisk(Disk):
    """Records the order of its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def write(self, fd: int, data: bytes) -> None:
        self.calls.append("write")
        super().write(fd, data)

    def fsync(self, fd: int) -> None:
        self.calls.append("fsync")
        super().fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self.calls.append("rename")
        super().rename(source, target)


def test_a_file_is_synced_before_it_is_renamed(tmp_path: Path) -> None:
    """Write, sync, rename, sync the folder: a power cut leaves the old content or the new."""
    disk = RecordingDisk()
    disk.replace(tmp_path / "file", b"new", mode=0o600)
    assert disk.calls == ["write", "fsync", "rename", "fsync"]


def test_a_full_disk_leaves_only_the_old_content(tmp_path: Path) -> None:
    """The partly written temporary file is deleted, and the error names the file."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left") as failure:
        FullDisk().replace(path, b"new", mode=0o600)
    assert failure.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_independent_of_the_umask(tmp_path: Path, mode: int) -> None:
    """The new file has exactly the requested mode."""
    before = os.umask(0o077)
    try:
        Disk().replace(tmp_path / "file", b"new", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


class UnsyncableFolders(Disk):
    """A file system that refuses to sync folders."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fsync(self, fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(self.number, os.strerror(self.number))
        super().fsync(fd)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_folder_that_cannot_be_synced_is_used_anyway(tmp_path: Path, number: int) -> None:
    """CIFS, vboxsf and FUSE answer with these errors."""
    UnsyncableFolders(number).replace(tmp_path / "file", b"new", mode=0o600)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_whose_sync_fails_is_an_error(tmp_path: Path) -> None:
    """EIO means that the disk lost data."""
    with pytest.raises(OSError, match="Input/output error"):
        UnsyncableFolders(errno.EIO).replace(tmp_path / "file", b"new", mode=0o600)


def test_a_regular_file_is_read_with_its_status(tmp_path: Path) -> None:
    """A file of exactly the limit can be read, also through a symbolic link."""
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    data, status = read_regular(tmp_path / "link", 4)
    assert (data, status.st_ino) == (b"1234", (tmp_path / "file").stat().st_ino)


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    """One byte more than the limit is too much."""
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(ValueError, match="is longer than 4 bytes"):
        read_regular(tmp_path / "file", 4)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """Reading a pipe without a writer would block for ever."""
    if kind == "pipe":
        os.mkfifo(tmp_path / "file")
    else:
        (tmp_path / "file").mkdir()
    with pytest.raises((ValueError, IsADirectoryError), match=r"(?i)is (not a regular file|a directory)"):
        read_regular(tmp_path / "file", 4)


def test_a_lock_file_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """The target of the link is not created."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        ProcessLock(tmp_path / "lock").try_acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_two_locks_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    """flock(2) belongs to the open file, not to the process."""
    one, two = ProcessLock(tmp_path / "lock"), ProcessLock(tmp_path / "lock")
    assert one.try_acquire()
    assert not two.try_acquire()
    assert not two.acquire(0.03)
    one.release()
    assert two.try_acquire()
    two.release()


def test_a_lock_whose_file_was_deleted_can_be_taken_again(tmp_path: Path) -> None:
    """The second lock holds the new file, and excludes a third."""
    path = tmp_path / "lock"
    one, two = ProcessLock(path), ProcessLock(path)
    assert one.try_acquire()
    path.unlink()
    assert two.try_acquire()
    assert not ProcessLock(path).try_acquire()
    one.release()
    two.release()


HOLD = """
import sys, signal
from pathlib import Path
from tailbone.files import ProcessLock
lock = ProcessLock(Path(sys.argv[1]) / "lock")
assert lock.try_acquire()
print("held", flush=True)
signal.pause()
"""


def test_a_kill_frees_the_lock(tmp_path: Path) -> None:
    """The kernel releases the lock of a process that was killed."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock = ProcessLock(tmp_path / "lock")
    assert not lock.try_acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert lock.try_acquire()
    lock.release()


def test_the_fix_of_a_denial_names_the_user_and_the_command(tmp_path: Path) -> None:
    """What does not exist yet is created first."""
    uid = os.geteuid()
    assert fix_of_denial(tmp_path) == f"this process is user {uid}: run  chown -R {uid} {tmp_path}"
    assert fix_of_denial(tmp_path / "a b") == (
        f"this process is user {uid}: run  mkdir -p '{tmp_path}/a b' && chown -R {uid} '{tmp_path}/a b'"
    )
