"""What is given back after the start, and what must not be."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tailbone.daemon.footprint import Mapping, code_mappings

CODE = """\
7f0000000000-7f0000200000 r-xp 00001000 fe:00 1234    /usr/lib/libexample.so
Size:               2048 kB
Rss:                1024 kB
Shared_Clean:       1024 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         0 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
"""


def test_unchanged_code_of_a_file_can_be_read_again() -> None:
    """Read-only code of a library, no page of it changed, is what is dropped."""
    assert list(code_mappings(CODE)) == [Mapping(0x7F0000000000, 0x7F0000200000)]


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        ("r-xp", "r--p"),
        ("r-xp", "rw-p"),
        ("r-xp", "rwxp"),
        ("/usr/lib/libexample.so", "/usr/lib/libtsnet.so"),
        ("/usr/lib/libexample.so", "[vdso]"),
        ("/usr/lib/libexample.so", ""),
        ("Private_Dirty:         0", "Private_Dirty:         4"),
        ("Shared_Dirty:          0", "Shared_Dirty:          4"),
        ("Anonymous:             0", "Anonymous:             4"),
        ("Rss:                1024", "Rss:                 508"),
        ("Private_Dirty:         0 kB\n", ""),
    ],
)
def test_nothing_else_is_dropped(part: str, instead: str) -> None:
    """Data, Go's code, the kernel's own pages, changed code, and what is not worth a call stay."""
    assert part in CODE
    assert list(code_mappings(CODE.replace(part, instead))) == []


def test_the_last_mapping_counts_too_and_no_smaps_is_no_error() -> None:
    """Each of several mappings is judged by its own sizes; a container without /proc has none."""
    assert len(list(code_mappings(CODE.replace("r-xp", "r--p") + CODE + CODE))) == 2
    assert list(code_mappings("")) == []


PROGRAM = """
import gc, sqlite3, ssl
from tailbone.daemon.daemon import footprint
found = list(footprint.code_mappings(footprint._smaps()))
footprint.settle()
left = list(footprint.code_mappings(footprint._smaps()))
print(len(found) > len(left), gc.get_freeze_count() > 0, ssl.create_default_context() is not None)
"""


def test_a_process_goes_on_after_it() -> None:
    """Code was dropped, and runs again when it is called."""
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "True", "True"]
