"""The signing path alone: Issuer.issue, compared with a bare signature and with another commit's."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec

from tests.bench.figure import Bar, Figure, compared
from tests.bench.toolchain import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.session import Session

_SCRIPT = "signing_path.py"
_BATCHES = 5
# Two runs of the same code differ by up to this much.
_NOISE = 0.03


async def measure(session: Session) -> list[Figure]:
    """Run the script alternately on this code and on that of ``--before``."""
    before = session.options.before
    tree = await asyncio.to_thread(checked_out, session, before) if before else None
    issue, sign, earlier = [], [], []
    for _ in range(session.effort.rounds):
        times = await asyncio.to_thread(times_of, _SCRIPT, session, ROOT)
        issue += times["issue_us"]
        sign += times["sign_us"]
        if tree is not None:
            earlier += (await asyncio.to_thread(times_of, _SCRIPT, session, tree))["issue_us"]
    figures = [
        compared("Issuer.issue, RS256 (beside OpenSSL's bare signature)", issue, sign, unit="µs"),
    ]
    if tree is not None:
        bar = Bar(most=1 + _NOISE, of_ratio=True)
        figures.append(compared(f"Issuer.issue, RS256 (beside {before})", issue, earlier, unit="µs", bar=bar))
    return figures


def checked_out(session: Session, commit: str) -> Path:
    """Return a folder with the Python code of a commit, and its own scripts, which know its names."""
    tree = session.place("before")
    archive = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "tailbone", "tests/bench"],
        capture_output=True,
        check=True,
    )
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


def times_of(script: str, session: Session, tree: Path) -> dict[str, list[float]]:
    """Run the script of a tree on its code, and return what it prints."""
    # -P: do not import from the script's own folder.
    done = subprocess.run(
        [sys.executable, "-P", str(tree / "tests/bench" / script), str(_BATCHES)],
        env=session.environment(PYTHONPATH=str(tree)),
        cwd=tree,
        capture_output=True,
        check=True,
    )
    times: dict[str, list[float]] = msgspec.json.decode(done.stdout)
    return times
