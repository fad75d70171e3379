"""One wheel with the library works on every Python: it is built from the source distribution and used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install ."
PROGRAM = "import sys, tailbone.tsnet.library as l; print(l.load().version().decode())"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def find_python(version: str) -> str | None:
    """Return an interpreter of that version, on PATH or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
    for candidate in filter(None, candidates):
        # pyenv has shims for inactive versions too, which only print an error.
        output = subprocess.run([candidate, "--version"], capture_output=True, text=True, check=False)
        if output.stdout.startswith(f"Python {version}."):
            return candidate
    return None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files that git tracks, as they are now: no built library, no environment."""
    folder = tmp_path_factory.mktemp("source") / "tailbone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def uv() -> str:
    """The uv that runs these tests."""
    found = shutil.which("uv")
    if found is None:
        pytest.skip("uv is not on PATH")
    return found


@pytest.fixture(scope="module")
def wheel(source: Path, uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `uv build` builds from the source distribution."""
    target = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [uv, "build", "--python", sys.executable, "--out-dir", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TAILBONE_COMMIT": "0123456789ab"},
    )
    assert built.returncode == 0, built.stderr
    [made] = target.glob("*.whl")
    return made


def test_the_readme_installs_with_pip_alone(source: Path, tmp_path: Path) -> None:
    """The README's pip command, run in a checkout, ends with a working `tailbone`."""
    assert INSTALL in (ROOT / "README.md").read_text()
    folder = tmp_path / "checkout"
    shutil.copytree(source, folder)
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


def test_the_wheel_contains_the_library_and_supports_all_pythons(wheel: Path) -> None:
    """Its tag is the stable ABI of 3.11, and it contains the library, the extension, types and commit."""
    assert "-cp311-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("tsnet/libtsnet.so", "tsnet/_ffi.abi3.so", "py.typed", "_commit.txt"):
        assert f"tailbone/{name}" in names
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_works(wheel: Path, uv: str, version: str, tmp_path: Path) -> None:
    """In a fresh environment it has all its dependencies, and issues a token."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no Python {version} on this machine")
    environment = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", python, environment], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--python", environment / "bin/python", wheel], check=True
    )
    bin_ = environment / "bin"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    versions = subprocess.run(
        [bin_ / "python", "-c", PROGRAM], capture_output=True, check=True, cwd=tmp_path, env=clean
    )
    assert msgspec.json.decode(versions.stdout, type=dict[str, str])["tailscale"] == "1.102.5"
    version_line = subprocess.run(
        [bin_ / "tailbone", "version"], capture_output=True, text=True, check=True, env=clean
    )
    assert "0123456789ab" in version_line.stdout
    output = subprocess.run(
        [
            bin_ / "tailbone",
            "dev",
            "--listen",
            "127.0.0.1:0",
            "--",
            "sh",
            "-c",
            'curl -s -X POST "$TAILBONE_ISSUE_URL"',
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=clean,
    )
    assert '{"token":"' in output.stdout
