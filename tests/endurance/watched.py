"""``tailbone`` with a clock that can be set, and its native library's counters in a file.

``python -m tests.endurance.watched server start``. ``time.time`` is the wall clock plus the seconds (a
double) in the file ENDURANCE_CLOCK; the monotonic clock stays as it is, as when a machine's clock is set. Go
and the AWS SDK keep the machine's clock: Go does not ask the C library for the time, so that no preloaded
library could change it. Each second a line of JSON goes to the file ENDURANCE_STATS.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec

CLOCK: Final = "ENDURANCE_CLOCK"
STATS: Final = "ENDURANCE_STATS"
_SHIFT: Final = struct.Struct("d")
_EACH_S: Final = 1.0


def set_clock(path: Path, seconds: float) -> None:
    """Let the wall clock be so many seconds ahead of the machine's."""
    with path.open("r+b") as file:
        file.write(_SHIFT.pack(seconds))


def make_clock(path: Path) -> None:
    """Make the file."""
    path.write_bytes(_SHIFT.pack(0.0))


def _shift_clock(path: Path) -> None:
    with path.open("rb") as file:
        shift = mmap.mmap(file.fileno(), _SHIFT.size, access=mmap.ACCESS_READ)
    machine_time = time.time
    time.time = lambda: machine_time() + _SHIFT.unpack_from(shift)[0]


def _count(path: Path) -> None:
    # Loaded by the server itself, which prepares the process for it.
    while "tailbone.tsnet._ffi" not in sys.modules:
        time.sleep(_EACH_S)
    from tailbone.tsnet.library import stats

    with path.open("ab", buffering=0) as file:
        while True:
            file.write(msgspec.json.encode(stats()) + b"\n")
            time.sleep(_EACH_S)


def main() -> None:
    """Be ``tailbone``."""
    _shift_clock(Path(os.environ[CLOCK]))
    threading.Thread(target=_count, args=(Path(os.environ[STATS]),), daemon=True).start()

    from tailbone.__main__ import main as tailbone

    tailbone()


if __name__ == "__main__":
    main()
