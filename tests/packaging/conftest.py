"""What ``.ci/wheels`` built, and fresh environments that it is installed into."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.wheels import Wheels

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def dist() -> Path:
    """The folder that ``.ci/wheels`` fills, if it did so for this commit."""
    folder = ROOT / "dist"
    if not folder.exists():
        pytest.skip("there are no wheels: .ci/wheels builds them")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    built = zipfile.ZipFile(Wheels.of(folder).pure).read("tailbone/_commit.txt").decode()
    if not head.stdout.startswith(built.strip()):
        pytest.skip("dist has the wheels of another commit: .ci/wheels builds those of this one")
    return folder


@pytest.fixture(scope="session")
def wheels(dist: Path) -> Wheels:
    """The wheels of this commit."""
    return Wheels.of(dist)


@pytest.fixture(scope="session")
def uv() -> str:
    """The uv that runs these tests."""
    found = shutil.which("uv")
    if found is None:
        pytest.skip("uv is not on PATH")
    return found


@pytest.fixture(scope="session")
def python_of() -> Callable[[str], str]:
    """Find an interpreter of a version, on PATH or one of pyenv's."""

    def find(version: str) -> str:
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        installed = sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))
        for candidate in filter(None, (shutil.which(f"python{version}"), *installed)):
            # pyenv has shims for inactive versions too, which only print an error.
            output = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
            if output.stdout.startswith(f"Python {version}."):
                return candidate
        pytest.skip(f"there is no Python {version} on this machine")

    return find


@pytest.fixture(scope="session")
def environment_with(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a fresh environment, install into it with ``uv pip``, and return its folder of programs."""

    def make(python: str, *arguments: object) -> Path:
        folder = tmp_path_factory.mktemp("venv")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", python, folder], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", folder / "bin/python"]
        subprocess.run([*install, *map(str, arguments)], check=True)
        return folder / "bin"

    return make


@pytest.fixture(scope="session")
def outside() -> dict[str, str]:
    """An environment in which nothing leads to the source tree or to another environment."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "COV", "COVERAGE", "TAILBONE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
