"""The processes that a command started and left behind: they stay within reach, and can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

_PR_SET_CHILD_SUBREAPER: Final = 36
_MOST_ROUNDS: Final = 5
"""A process may start another one while it is being ended."""


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends (prctl(2), PR_SET_CHILD_SUBREAPER).

    A kernel that refuses leaves them to the system's first process, where nobody finds them.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def wait_and_reap(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child's end, and meanwhile take in every orphan that ends: nobody else does.

    Without that, each would stay in the table of processes for as long as the child runs. This process has no
    other children. Nothing else may ask ``process`` for its status meanwhile: orphans would be waited for.

    Returns:
        The child's status, as ``Popen.wait`` gives it.
    """
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)) and ended.si_pid != process.pid:
        os.waitpid(ended.si_pid, 0)
    return process.wait()


def descendants() -> list[int]:
    """The ids of all processes below this one that have not ended yet."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        below = children.pop(parents.pop(), [])
        found += below
        parents += below
    return found


def kill_descendants() -> None:
    """End them all at once, without waiting for it."""
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


async def end_descendants(patience_s: float) -> None:
    """Ask each to end by SIGTERM, and kill what has not done so after ``patience_s`` seconds."""
    number = signal.SIGTERM
    for _ in range(_MOST_ROUNDS):
        found = descendants()
        if not found:
            return
        await asyncio.gather(*(_end(pid, number, patience_s) for pid in found))
        number = signal.SIGKILL


async def _end(pid: int, number: signal.Signals, patience_s: float) -> None:
    # By a descriptor of the process: its number may be another one's when it has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError), descriptor_of(pid) as process:
        signal.pidfd_send_signal(process, number)
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(process, ended.set)
        try:
            async with asyncio.timeout(patience_s):
                await ended.wait()
        except TimeoutError:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            loop.remove_reader(process)


@contextlib.contextmanager
def descriptor_of(pid: int) -> Iterator[int]:
    """A descriptor of a process, for as long as it is needed (pidfd_open(2))."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _processes() -> Iterator[tuple[int, int]]:
    """Each process of this system that has not ended, and its parent (proc_pid_stat(5))."""
    for name in os.listdir("/proc"):  # noqa: PTH208  names are all that is wanted
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended just now, or hidden from this user
        # The second field, the program's name, may hold anything but ends at the last parenthesis.
        state, parent = text.rpartition(")")[2].split()[:2]
        if state not in "ZX":
            yield int(name), int(parent)
