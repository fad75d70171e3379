"""Print a tag's release notes: ``.ci/release_notes.py v1.2.3``.

The tag must be the version of pyproject.toml, and CHANGELOG.md must have a section for it.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print the section of CHANGELOG.md, or exit with the reason."""
    [tag] = sys.argv[1:]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise SystemExit(f"the tag {tag} is not v{version}, the version of pyproject.toml")
    sections = re.split(r"^## \[(.+?)\].*\n", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    notes = dict(zip(sections[1::2], sections[2::2], strict=True)).get(version, "").strip()
    if not notes:
        raise SystemExit(f"CHANGELOG.md has no section [{version}]")
    print(notes)


main()
