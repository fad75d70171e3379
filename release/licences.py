"""Write tsnet_go/LICENSES.txt, which wheels contain: ``python -m release.licences``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import build
from release import go_modules

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = build.GO_MODULE / "LICENSES.txt"
_HEAD = """\
libtsnet.so contains the following modules. `python -m release.licences` writes this file.
"""


def text(modules: Iterable[go_modules.GoModule]) -> str:
    """Return the licences of modules, as one text."""
    parts = [_HEAD]
    for module in modules:
        name = "Go and its standard library" if module.path == "std" else module.path
        parts.append(f"{'=' * 80}\n{name} {module.version}\n")
        parts += [f"{'-' * 80}\n{file}\n\n{content.strip()}\n" for file, content in module.files.items()]
    return "\n".join(parts)


if __name__ == "__main__":
    FILE.write_text(text(go_modules.linked()))
