"""The wheel for aarch64 works, as far as QEMU can tell: it issues a token on a private tailnet."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import jwt
import pytest
from harness.programs import clean_environment, run

if TYPE_CHECKING:
    from harness.wheels import Wheels

ROOT = Path(__file__).parents[2] / "build/roots/aarch64"
QEMU = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        QEMU is None or not ROOT.exists(),
        reason="there is no QEMU, or no Python for aarch64: .ci/run takes them from Debian",
    ),
]


def test_it_issues_a_token(wheels: Wheels, uv: str, tmp_path: Path) -> None:
    """Its library and extension, and the dependencies' wheels for aarch64, run on an emulated processor."""
    [python] = ROOT.glob("usr/bin/python3.?*")
    site = tmp_path / "site-packages"
    install = [uv, "pip", "install", "--quiet", "--target", site, "--only-binary=:all:"]
    install += [
        "--python-platform=aarch64-manylinux_2_28",
        f"--python-version={python.name.removeprefix('python')}",
    ]
    subprocess.run([*install, wheels.aarch64], check=True)
    variables = clean_environment(tmp_path, QEMU_LD_PREFIX=str(ROOT), PYTHONPATH=str(site))
    emulated = [str(QEMU), str(python)]
    shown = run([*emulated, "-c", "import platform; print(platform.machine())"], env=variables, cwd=tmp_path)
    assert shown.out == ["aarch64"], shown.output()
    issue = """curl -s -X POST "$TAILBONE_ISSUE_URL" """
    command = [*emulated, "-m", "tailbone", "dev", "--listen", "127.0.0.1:0", "--", "sh", "-c", issue]
    issued = run(command, env=variables, cwd=tmp_path, timeout_s=300)
    assert issued.wait() == 0, issued.output()
    claims = jwt.decode(json.loads(issued.out[-1])["token"], options={"verify_signature": False})
    assert claims["user"] == "dev@example.com"
