"""Which tailbone this is: its version and the commit it was built from."""

from __future__ import annotations

from functools import cache
from pathlib import Path

UNKNOWN = "unknown"
_PACKAGE = Path(__file__).parent


@cache
def version() -> str:
    """The installed distribution's version; in a source tree that was never installed, pyproject.toml's."""
    # Costs 20 ms of imports: only for commands that show it.
    from importlib import metadata

    try:
        return metadata.version("tailbone")
    except metadata.PackageNotFoundError:
        return version_of_source_tree(_PACKAGE.parent / "pyproject.toml")


@cache
def commit() -> str:
    """The commit that the build wrote into the package; ``unknown`` where it was built outside of git."""
    return commit_of(_PACKAGE)


def version_of_source_tree(pyproject: Path) -> str:
    """The version in *pyproject*, if that is tailbone's own."""
    import tomllib

    try:
        project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    except (FileNotFoundError, KeyError):
        return UNKNOWN
    return str(project["version"]) if project.get("name") == "tailbone" else UNKNOWN


def commit_of(package: Path) -> str:
    """The commit in the folder of a package."""
    try:
        return (package / "_commit.txt").read_text(encoding="ascii").strip() or UNKNOWN
    except FileNotFoundError:
        return UNKNOWN
