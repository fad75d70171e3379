"""The wheel works as a user gets it: in fresh environments, with the source tree out of reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import build

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.wheels import Wheels

ROOT = Path(__file__).parents[2]
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install ."
GROUP = f"{ROOT / 'pyproject.toml'}:integration"
PYTEST = ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider")
VERSIONS = ("3.11", "3.12", "3.13")
# What fails first if the library or a dependency does not suit a version of Python.
REPRESENTATIVE = [
    f"tests/integration/test_{name}.py" for name in ("first_token", "exec", "keys_of_a_server", "testing")
]
NEWEST = ROOT / "build/roots/python3.14"
IN_ROOT = """
mount --rbind /proc "$1/proc"
mount --rbind /dev "$1/dev"
mount --bind "$2" "$1/mnt"
root=$1
shift 2
exec chroot "$root" env --ignore-environment --chdir=/mnt \
    HOME=/root LANG=C.UTF-8 PATH=/usr/bin:/bin PYTHONPATH=/mnt/site-packages python3.14 "$@"
"""

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
    assert output.stdout == f"tailbone {build.version()} (commit 0123456789ab)\n"


def copy_of_the_tests(folder: Path) -> None:
    """Copy the tests, pytest's settings, and the files that the tests read; of the package, nothing."""
    for name in ("deploy", "docs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_integration_tests_pass_with_the_wheel(
    version: str,
    wheels: Wheels,
    python_of: Callable[[str], str],
    environment_with: Callable[..., Path],
    outside: dict[str, str],
    tmp_path: Path,
) -> None:
    """All of them on each Python; `tailbone` is the one that was installed."""
    bin_ = environment_with(python_of(version), wheels.native, "--group", GROUP)
    copy_of_the_tests(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [bin_ / "python", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True, check=False)

    place = f"{bin_.parent}/lib/python{version}/site-packages/tailbone/__init__.py\n"
    assert run("-c", "import tailbone; print(tailbone.__file__)").stdout == place
    ended = run(*PYTEST, "tests/integration")
    assert ended.returncode == 0, ended.stdout[-5000:]


@pytest.mark.skipif(not NEWEST.exists(), reason="there is no Python 3.14: .ci/run takes it from Debian")
@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can change its root folder to the one of Python 3.14"
)
def test_integration_tests_pass_with_the_wheel_on_3_14(wheels: Wheels, uv: str, tmp_path: Path) -> None:
    """In the root file system of a newer Debian, as this machine may be too old for its Python."""
    site = tmp_path / "site-packages"
    command = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--target",
        site,
        "--only-binary=:all:",
        "--python-version=3.14",
    ]
    subprocess.run([*command, wheels.native, "--group", GROUP], check=True)
    copy_of_the_tests(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "--mount", "sh", "-euc", IN_ROOT, "sh", NEWEST, tmp_path, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    shown = run("-c", "import sys, tailbone; print(sys.version_info[:2], tailbone.__file__)")
    assert shown.stdout == "(3, 14) /mnt/site-packages/tailbone/__init__.py\n", shown.stderr
    ended = run(*PYTEST, *REPRESENTATIVE)
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr
