"""The version of tailbone, and the commit it was built from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

UNKNOWN = "unknown"
_PACKAGE = Path(__file__).parent


@cache
def version() -> str:
    """Return the installed distribution's version, or pyproject.toml's in a source tree."""
    # This import takes 20 ms, so only commands that show the version pay for it.
    from importlib import metadata

    try:
        return metadata.version("tailbone")
    except metadata.PackageNotFoundError:
        return version_of_source_tree(_PACKAGE.parent / "pyproject.toml")


@cache
def commit() -> str:
    """Return the commit that the build recorded in the package; ``unknown`` if it was built outside git."""
    return commit_of(_PACKAGE)


def version_of_source_tree(pyproject: Path) -> str:
    """Return the version in *pyproject*, or ``unknown`` if that is not tailbone's."""
    import tomllib

    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    except (FileNotFoundError, KeyError):
        return UNKNOWN
    return str(project["version"]) if project.get("name") == "tailbone" else UNKNOWN


def commit_of(package: Path) -> str:
    """Return the commit recorded in the folder *package*, or ``unknown``."""
    try:
        return (package / "_commit.txt").read_text(encoding="ascii").strip() or UNKNOWN
    except FileNotFoundError:
        return UNKNOWN
