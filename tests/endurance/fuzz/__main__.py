"""Fuzz each target for a while; an input that fails goes to the corpus, which a test replays."""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from typing import Final

from tests.bench.toolchain import ROOT, build_tags, go_command
from tests.endurance.fuzz.engine import fuzz
from tests.endurance.fuzz.targets import CORPUS, TARGETS, seeds_of

_GO: Final = {"devnet-requests": "FuzzMachineRequests", "devnet-commands": "FuzzCommands"}
"""Targets of tsnet_go/devnet: ``go test`` fuzzes them, and keeps what fails in testdata/fuzz there."""


def main() -> int:
    """Fuzz, and print how many inputs each target took; fail when one of them failed."""
    names = [*TARGETS, *_GO]
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    asked = parser.parse_args()
    if unknown := set(asked.targets) - set(names):
        parser.error(f"unknown target {', '.join(sorted(unknown))}; allowed: {', '.join(names)}")
    print(f"seed {asked.seed}", flush=True)
    holds = [
        (_fuzz_go if name in _GO else _fuzz)(name, 60 * asked.minutes, asked.seed)
        for name in asked.targets or names
    ]
    return int(not all(holds))


def _fuzz(name: str, seconds: float, seed: int) -> bool:
    with TARGETS[name]() as target:
        result = fuzz(target, seeds_of(name), seconds, seed)
    print(f"{name:16} {result.taken:9} inputs  {'FAILED' if result.error else 'none failed'}", flush=True)
    if result.error:
        print(result.error, flush=True)
    for data in result.failing:
        path = CORPUS / name / f"failed-{hashlib.sha256(data).hexdigest()[:12]}"
        path.write_bytes(data)
        print(f"kept as {path}", flush=True)
    return not result.error


def _fuzz_go(name: str, seconds: float, _: int) -> bool:
    command = [go_command(), "test", "-tags", build_tags(), "-run", "^$", "-fuzz", f"^{_GO[name]}$"]
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    run = subprocess.run(
        [*command, "-fuzztime", f"{seconds:.0f}s", "./devnet"],
        cwd=ROOT / "tsnet_go",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    counts = [line for line in run.stdout.splitlines() if "execs: " in line]
    count = counts[-1].partition("execs: ")[2].split()[0] if counts else "0"
    print(f"{name:16} {count:>9} inputs  {'FAILED' if run.returncode else 'none failed'}", flush=True)
    if run.returncode:
        print(run.stdout, run.stderr, flush=True)
    return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
