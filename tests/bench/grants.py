"""What grants cost a token: three rules beside none, and none beside the code of another commit."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.figure import Bar, Figure
from tests.bench.signing import checked_out, times_of
from tests.bench.toolchain import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.bench.session import Session

_SCRIPT = "grants_path.py"


async def measure(session: Session) -> list[Figure]:
    """Run the script in turns, on this code and on that of ``--before``."""
    before = session.options.before
    tree = await asyncio.to_thread(checked_out, session, before) if before else None
    none, three, earlier = [], [], []
    for _ in range(session.effort.rounds):
        times = await asyncio.to_thread(times_of, _SCRIPT, session, ROOT)
        none += times["none_us"]
        three += times["three_us"]
        if tree is not None:
            earlier += (await asyncio.to_thread(times_of, _SCRIPT, session, tree))["none_us"]
    figures = [_more("three rules, beside no capability", three, none, Bar(most=40))]
    if earlier:
        figures.append(_more(f"no capability, beside {before}", none, earlier, Bar(most=5)))
    return figures


def _more(name: str, ours: Sequence[float], theirs: Sequence[float], bar: Bar) -> Figure:
    """Compare round by round; the value is the difference."""
    differences = [own - other for own, other in zip(ours, theirs, strict=True)]
    spread = f"{len(differences)} rounds: {min(differences):.1f} to {max(differences):.1f} µs more"
    return Figure(
        name=f"a token without its signature: {name}",
        value=median(differences),
        unit="µs",
        bar=bar,
        note=f"{spread}; {median(ours):.1f} µs beside {median(theirs):.1f} µs",
    )
