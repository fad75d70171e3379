"""When OpenSSL is told to sign with AVX2."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tailbone.keys.processor import avx2_signs_faster

if TYPE_CHECKING:
    from pathlib import Path

ZEN_3 = "vendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 bmi1 bmi2 adx sha_ni vaes\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (ZEN_3, True),
        (ZEN_3.replace("AuthenticAMD", "GenuineIntel"), False),
        (ZEN_3.replace(" vaes", " vaes avx512ifma"), False),
        (ZEN_3.replace(" adx", ""), False),
        (ZEN_3.replace(" avx2", ""), False),
        ("processor : 0\nFeatures : fp asimd\n", False),
        ("", False),
    ],
)
def test_only_where_it_was_measured_to_be_faster(cpuinfo: str, expected: bool) -> None:
    """AMD with AVX2 and ADX, and without IFMA; nothing else."""
    assert avx2_signs_faster(cpuinfo) is expected


PROGRAM = """
import os
from pathlib import Path
from tailbone.keys import processor
cpuinfo = Path({path!r})
processor._CPUINFO = cpuinfo
with processor.fastest_signatures():
    inside = os.environ.get("OPENSSL_ia32cap")
    from cryptography.hazmat.primitives.asymmetric import rsa
with processor.fastest_signatures():
    again = os.environ.get("OPENSSL_ia32cap")
print(inside, again, os.environ.get("OPENSSL_ia32cap"))
"""


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, ":~0x80000 None None"), ({"OPENSSL_ia32cap": ":~0"}, ":~0 :~0 :~0")],
)
def test_the_variable_is_gone_afterwards(tmp_path: Path, own: dict[str, str], expected: str) -> None:
    """It is set while OpenSSL loads, and neither before nor after; a user's own value is left alone."""
    path = tmp_path / "cpuinfo"
    path.write_text(ZEN_3)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(path=str(path))],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "", **own},
    )
    assert told.stdout.strip() == expected
