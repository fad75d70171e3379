"""What is in the image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.containers import BASE, inspect, podman

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST = 180_000_000
PACKAGE = Path(__file__).parents[2] / "tailbone"


@pytest.fixture(scope="module")
def files(image: str) -> Iterator[Path]:
    """The image's root file system."""
    yield Path(podman("image", "mount", image).strip())
    podman("image", "unmount", image)


def test_its_size(image: str) -> None:
    """It adds at most 180 MB to its base."""
    assert inspect("image", image)["Size"] - inspect("image", BASE)["Size"] < LARGEST


def test_it_is_built_from_this_source(files: Path) -> None:
    """No cache of the container engine has kept an older version."""
    [installed] = (files / "usr/local/lib").glob("python3*/site-packages/tailbone")
    modules = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert {path.relative_to(installed) for path in installed.rglob("*.py")} == modules
    changed = [name for name in modules if (installed / name).read_bytes() != (PACKAGE / name).read_bytes()]
    assert changed == []


def test_it_contains_only_what_runs(files: Path) -> None:
    """No compiler, no Go, no cache of pip, no source and no file that another user can change."""
    programs = {path.name for folder in ("usr/bin", "usr/local/bin") for path in (files / folder).iterdir()}
    assert "tailbone" in programs
    assert programs & {"gcc", "cc", "x86_64-linux-gnu-gcc", "ld", "go", "gofmt", "git"} == set()
    assert [path for path in (files / "root/.cache").rglob("*") if path.is_file()] == []
    assert not (files / "src").exists()
    [package] = (files / "usr/local/lib").glob("python3*/site-packages/tailbone")
    assert list(package.rglob("*.go")) == []
    assert [path for path in package.rglob("*") if path.stat().st_uid or path.stat().st_mode & 0o022] == []


def test_its_settings(image: str) -> None:
    """It runs as a user that is not root, without a shell, and its health check needs no shell either."""
    config = inspect("image", image)["Config"]
    assert (config["User"], config["Entrypoint"], config["Cmd"]) == (
        "10001:10001",
        ["tailbone"],
        ["server", "start"],
    )
    assert inspect("image", image)["Healthcheck"]["Test"] == ["CMD", "tailbone", "health"]
