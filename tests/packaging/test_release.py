"""The committed licences and bill of materials are those of the modules that are linked."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")
import build
from release import go_modules, licences, sbom, wheels

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def modules() -> Sequence[go_modules.GoModule]:
    """The modules that are linked."""
    return go_modules.linked()


def test_the_licences_are_current(modules: Sequence[go_modules.GoModule]) -> None:
    """They are those of the versions in go.mod."""
    assert licences.FILE.read_text() == licences.text(modules), "run: uv run python -m release.licences"


def test_the_bill_of_materials_is_current(modules: Sequence[go_modules.GoModule]) -> None:
    """It has the versions of pyproject.toml and go.mod, and the schema's form, which writing it checks."""
    assert build.SBOM.read_text() == sbom.text(modules), "run: uv run python -m release.sbom"


def test_the_library_contains_these_modules() -> None:
    """Go recorded in the library what it linked: the bill of materials has the same modules."""
    library = ROOT / "tailbone" / "tsnet" / build.LIBRARY
    if not library.exists():
        pytest.skip("the library is not built in this checkout")
    shown = subprocess.run(
        [build.go_command(), "version", "-m", library], capture_output=True, text=True, check=True
    )
    linked = {tuple(line.split()[1:3]) for line in shown.stdout.splitlines() if line.split()[:1] == ["dep"]}
    document = json.loads(build.SBOM.read_text())
    listed = {
        (component["name"], component["version"])
        for component in document["components"]
        if component.get("purl", "").startswith("pkg:golang/") and component["name"] != "std"
    }
    assert listed == linked


def wheel_with(folder: Path, content: str) -> Path:
    """Return a wheel that contains one file."""
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tailbone/file", content)
    return path


def test_a_path_of_this_machine_in_a_wheel_is_found(tmp_path: Path) -> None:
    """It names file and path."""
    wheel = wheel_with(tmp_path, f"compiled in {ROOT}/tsnet_go")
    assert f"some.whl: tailbone/file contains {ROOT}/" in list(wheels._paths(wheel, "/a/folder"))
    assert list(wheels._paths(wheel_with(tmp_path, "compiled in tsnet_go"), "/a/folder")) == []


def test_other_bytes_of_a_second_build_are_found(tmp_path: Path) -> None:
    """The file is named."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    assert list(wheels._differences(first, second)) == []
    second.write_bytes(b"2")
    assert list(wheels._differences(first, second)) == [
        "a: another build of the same sources has other bytes"
    ]
