"""The release notes of a tag come from CHANGELOG.md, and a tag that is not the version is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "release_notes.py"
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- Not released.

## [1.2.3] - 2026-11-29

### Fixed

- A fault.

## [1.2.2] - 2026-11-28

### Fixed

- Another one.
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The script, in a project of version 1.2.3."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".ci").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / ".ci"))


def notes(script: Path, tag: str) -> subprocess.CompletedProcess[str]:
    """Run the script for a tag."""
    return subprocess.run([sys.executable, script, tag], capture_output=True, text=True, check=False)


def test_the_notes_are_the_section_of_the_version(script: Path) -> None:
    """Neither its heading nor another version's changes."""
    assert notes(script, "v1.2.3").stdout == "### Fixed\n\n- A fault.\n"


@pytest.mark.parametrize("tag", ["v1.2.2", "1.2.3", "v1.2.3rc1", "v1.2.3 ", ""])
def test_a_tag_that_is_not_the_version_is_refused(script: Path, tag: str) -> None:
    """Nothing is released under another name than the packages have."""
    done = notes(script, tag)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"the tag {tag} is not v1.2.3, the version of pyproject.toml\n"


def test_a_version_without_a_section_is_refused(script: Path) -> None:
    """Unreleased changes are not those of a version."""
    script.parents[1].joinpath("CHANGELOG.md").write_text(CHANGELOG.replace("[1.2.3]", "[1.3.0]"))
    done = notes(script, "v1.2.3")
    assert (done.returncode, done.stderr) == (1, "CHANGELOG.md has no section [1.2.3]\n")


def test_this_version_can_be_released() -> None:
    """CHANGELOG.md has its notes, and the examples deploy its image."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    done = subprocess.run(
        [sys.executable, SCRIPT, f"v{version}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("deploy/compose.yaml", "deploy/kubernetes/deployment.yaml", "docs/deploy.md"):
        tags = re.findall(r"\btailbone:(\d[\w.]*)", (ROOT / name).read_text())
        assert set(tags) == {version}, name
