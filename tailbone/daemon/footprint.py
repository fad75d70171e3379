"""The memory of a process that has started: what only the start needed is given back."""

from __future__ import annotations

import ctypes
import gc
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SMAPS: Final = Path("/proc/self/smaps")
_MADV_DONTNEED: Final = 4
_LEAST_KB: Final = 512
_KEPT: Final = "/libtsnet."
"""Go's timers come back to its code for minutes: given back, it would return bit by bit, as if it leaked."""

_HEAD: Final = re.compile(r"(?P<begin>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<access>\S{4}) .*? (?P<file>/\S.*)?$")
_SIZE: Final = re.compile(r"(?P<name>Rss|Private_Dirty|Shared_Dirty|Anonymous): +(?P<kb>\d+) kB$")


class Mapping(NamedTuple):
    """A part of the address space that is an unchanged file's code.

    Attributes:
        begin: first address.
        end: the address behind the last.
    """

    begin: int
    end: int


def settle() -> None:
    """Call this once when everything has started.

    Python's objects of the start are taken out of all further collections. Code pages of most libraries
    are unmapped: the kernel's cache still has them, and maps those that are used again in microseconds.
    Of a server, 6 of 100 MB are code that ran only while it started.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None, use_errno=True)
    for mapping in code_mappings(_smaps()):
        # A kernel that refuses leaves the page where it was.
        libc.madvise(
            ctypes.c_void_p(mapping.begin), ctypes.c_size_t(mapping.end - mapping.begin), _MADV_DONTNEED
        )


def _smaps() -> str:
    try:
        return _SMAPS.read_text()
    except OSError:
        return ""  # no /proc in this container


def code_mappings(smaps: str) -> Iterator[Mapping]:
    """The mappings that can be dropped and read again from their files.

    Args:
        smaps: the text of ``/proc/PID/smaps`` (proc_pid_smaps(5)).

    Yields:
        Read-only code of files but Go's, at least half a megabyte of it in memory, no page of it changed:
        a changed one has no other copy.
    """
    head: re.Match[str] | None = None
    sizes: dict[str, int] = {}
    for line in [*smaps.splitlines(), "0-0 ---p 0 00:00 0 "]:
        if found := _HEAD.match(line):
            if head is not None and _can_be_read_again(head, sizes):
                yield Mapping(int(head["begin"], 16), int(head["end"], 16))
            head, sizes = found, {}
        elif size := _SIZE.match(line):
            sizes[size["name"]] = int(size["kb"])


def _can_be_read_again(head: re.Match[str], sizes: dict[str, int]) -> bool:
    """Whether a mapping is a file's code, in memory, and as the file has it; where a size is missing, no."""
    changed = sizes.get("Anonymous", 1) + sizes.get("Private_Dirty", 1) + sizes.get("Shared_Dirty", 1)
    file = head["file"] or ""
    is_code = head["access"] == "r-xp" and bool(file) and _KEPT not in file
    return is_code and not changed and sizes.get("Rss", 0) >= _LEAST_KB
