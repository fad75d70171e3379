"""Files replaced as a whole, and locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tailbone import files as durable
from tailbone.files import Disk, Presence, ProcessLock

if TYPE_CHECKING:
    from pathlib import Path


class FullDisk(Disk):
    """No space left, after some bytes."""

    def write(self, fd: int, data: bytes) -> None:
        os.write(fd, data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Watched(Disk):
    """Keeps the order of its calls."""

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


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    """Written, synced, renamed, and the folder synced: a power cut leaves the old content or the new."""
    disk = Watched()
    disk.replace(tmp_path / "file", b"new", mode=0o600)
    assert disk.calls == ["write", "fsync", "rename", "fsync"]


def test_a_full_disk_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    """The part that was written is taken away."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="No space left"):
        FullDisk().replace(path, b"new", mode=0o600)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    """And never wider while the file is written."""
    before = os.umask(0o077)
    try:
        Disk().replace(tmp_path / "file", b"new", mode=mode)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_two_locks_exclude_each_other_in_one_process(tmp_path: Path) -> None:
    """flock belongs to the open file."""
    one, two = ProcessLock(tmp_path / "lock"), ProcessLock(tmp_path / "lock")
    assert one.try_acquire()
    assert not two.try_acquire()
    assert not two.acquire(0.03)
    one.release()
    assert two.try_acquire()
    two.release()


def test_a_lock_whose_file_was_deleted_excludes_nobody_by_accident(tmp_path: Path) -> None:
    """Whoever comes later locks the new file; who had locked the old one cannot lock again."""
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
from tailbone.files import Presence, ProcessLock
lock = ProcessLock(Path(sys.argv[1]) / "lock")
assert lock.try_acquire()
Presence(Path(sys.argv[1]) / "running").enter()
print("held", flush=True)
signal.pause()
"""


def test_a_kill_frees_the_lock_and_ends_the_presence(tmp_path: Path) -> None:
    """Nothing waits for a process that is gone."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock, presence = ProcessLock(tmp_path / "lock"), Presence(tmp_path / "running")
    presence.enter()
    assert not lock.try_acquire()
    assert presence.others()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert lock.try_acquire()
    assert not presence.others()
    lock.release()
    presence.leave()


def test_asking_for_others_does_not_end_ones_own_presence(tmp_path: Path) -> None:
    """A change of the kind of a lock that fails has lost it; it is taken again."""
    one, two = Presence(tmp_path / "running"), Presence(tmp_path / "running")
    one.enter()
    two.enter()
    assert one.others()
    assert two.others()
    one.leave()
    assert not two.others()
    assert Presence(tmp_path / "running").others()
    two.leave()


def test_those_who_ask_at_the_same_time_do_not_miss_each_other(tmp_path: Path) -> None:
    """Asking lets go of the own lock for a moment."""
    present = [Presence(tmp_path / "running") for _ in range(2)]
    for one in present:
        one.enter()
    with ThreadPoolExecutor(len(present)) as askers:
        answers = askers.map(lambda one: [one.others() for _ in range(2000)], present)
        assert {answer for several in answers for answer in several} == {True}


def test_nobody_is_at_work_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    """Asking makes no folder either."""
    assert not Presence(tmp_path / "gone" / "running").others()
    assert not (tmp_path / "gone").exists()


def test_who_has_stopped_in_the_middle_of_asking_holds_nobody_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start ends with an error, and others take it for somebody at work."""
    monkeypatch.setattr(durable, "_ASKING_S", 0.05)
    stopped = os.open(tmp_path / "running", os.O_RDWR | os.O_CREAT)
    fcntl.flock(stopped, fcntl.LOCK_EX)
    asking = ProcessLock(tmp_path / "running.lock")
    assert asking.try_acquire()
    one = Presence(tmp_path / "running")
    with pytest.raises(BlockingIOError):
        one.enter()
    assert one.others()
    os.close(stopped)
    asking.release()
    one.enter()
    assert not one.others()
    one.leave()
