"""The version and commit that tailbone reports."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tailbone import version as this

ROOT = Path(__file__).parents[2]


def test_the_version_is_that_of_the_project() -> None:
    """pyproject.toml is the only place that states it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == this.version()


def test_a_source_tree_has_the_version_of_its_pyproject(tmp_path: Path) -> None:
    """Without an installation the version comes from pyproject.toml, unless that is another project's."""
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "tailbone"\nversion = "1.2.3"\n')
    assert this.version_of_source_tree(path) == "1.2.3"
    path.write_text('[project]\nname = "other"\nversion = "1.2.3"\n')
    assert this.version_of_source_tree(path) == "unknown"
    assert this.version_of_source_tree(tmp_path / "absent.toml") == "unknown"


def test_the_commit_is_the_one_that_the_build_recorded(tmp_path: Path) -> None:
    """The commit of a package that was built outside git is unknown."""
    (tmp_path / "_commit.txt").write_text("0123456789ab\n")
    assert this.commit_of(tmp_path) == "0123456789ab"
    (tmp_path / "_commit.txt").write_text("")
    assert this.commit_of(tmp_path) == "unknown"
    assert this.commit_of(tmp_path / "absent") == "unknown"
