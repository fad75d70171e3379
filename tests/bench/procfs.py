"""The kernel's figures of a process: processor time, memory, context switches (man 5 proc)."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_LOOK_EVERY_S: Final = 0.25
_QUIET_LOOKS: Final = 4


def cpu_s(pid: int) -> float:
    """Return the processor time of all threads so far, user and system, in seconds; in steps of 10 ms."""
    # The name, in brackets, may contain anything; numbers follow it, and utime is field 14 of the line.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def rss_mb(pid: int) -> float:
    """Return the resident memory in MB (10**6 bytes)."""
    return _status(Path(f"/proc/{pid}/status"), "VmRSS") * 1024 / 1e6


def peak_rss_mb(pid: int) -> float:
    """Return the largest resident memory since ``reset_peak_rss``, or ever, in MB (10**6 bytes)."""
    return _status(Path(f"/proc/{pid}/status"), "VmHWM") * 1024 / 1e6


def reset_peak_rss(pid: int) -> None:
    """Reset the kernel's record of the largest resident memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def voluntary_switches(pid: int) -> int:
    """Return how often the current threads have waited for something so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
            total += _status(task / "status", "voluntary_ctxt_switches")
    return total


async def until_idle(pid: int, limit_s: float = 20.0) -> None:
    """Wait until a process has used (nearly) no processor time for a second, or ``limit_s`` have passed."""
    quiet, before = 0, cpu_s(pid)
    for _ in range(int(limit_s / _LOOK_EVERY_S)):
        await asyncio.sleep(_LOOK_EVERY_S)
        now = cpu_s(pid)
        quiet = quiet + 1 if now - before <= 1 / _TICKS_A_SECOND else 0
        if quiet >= _QUIET_LOOKS:
            return
        before = now


def _status(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise ValueError(f"{path} has no {name}")
