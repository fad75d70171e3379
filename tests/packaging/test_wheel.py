"""The wheel works as a user gets it: in fresh environments, with the source tree out of reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install ."
# What fails first if the library or a dependency does not suit a version of Python.
REPRESENTATIVE = ("test_first_token.py", "test_shutdown.py", "test_exec.py", "test_testing.py")

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def copy_of_the_source(folder: Path) -> Path:
    """Copy the files that git tracks, as they are now: no built library, no environment."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def test_the_readme_installs_with_pip_alone(tmp_path: Path) -> None:
    """The README's pip command, run in a checkout, ends with a working `tailbone`."""
    assert INSTALL in (ROOT / "README.md").read_text()
    folder = copy_of_the_source(tmp_path / "checkout")
    (tmp_path / "python3").symlink_to(sys.executable)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "TAILBONE_COMMIT": "0123456789ab",
    }
    installed = subprocess.run(
        ["sh", "-c", INSTALL], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    output = subprocess.run(
        [folder / ".venv/bin/tailbone", "version"], capture_output=True, text=True, check=True
    )
    assert output.stdout == "tailbone 0.1.0 (commit 0123456789ab)\n"


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_the_integration_tests_pass_with_the_wheel(
    version: str,
    native_wheel: Path,
    python_of: Callable[[str], str],
    environment_with: Callable[..., Path],
    outside: dict[str, str],
    tmp_path: Path,
) -> None:
    """All of them on the oldest Python, some on the others; `tailbone` is the one that was installed."""
    bin_ = environment_with(
        python_of(version), native_wheel, "--group", f"{ROOT / 'pyproject.toml'}:integration"
    )
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    place = subprocess.run(
        [bin_ / "python", "-c", "import tailbone; print(tailbone.__file__)"],
        cwd=tmp_path, env=outside, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert place == f"{bin_.parent}/lib/python{version}/site-packages/tailbone/__init__.py\n"
    chosen = (
        ["tests/integration"]
        if version == "3.11"
        else [f"tests/integration/{name}" for name in REPRESENTATIVE]
    )
    ended = subprocess.run(
        [bin_ / "python", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *chosen],
        cwd=tmp_path, env=outside, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-5000:]
