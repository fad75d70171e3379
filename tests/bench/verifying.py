"""Verification alone: Verifier.verify, compared with a bare RSA verification, and with PyJWT."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figure import Bar, Figure, compared
from tests.bench.signing import times_of
from tests.bench.toolchain import ROOT

if TYPE_CHECKING:
    from tests.bench.session import Session

_SCRIPT = Path(__file__).with_name("verifying_path.py")


async def measure(session: Session) -> list[Figure]:
    """Run the script, and compare its numbers round by round."""
    verify, bare, pyjwt = [], [], []
    for _ in range(session.effort.rounds):
        times = await asyncio.to_thread(times_of, _SCRIPT, session, ROOT)
        verify += times["verify_us"]
        bare += times["bare_us"]
        pyjwt += times["pyjwt_us"]
    bar = Bar(most=1.3, of_ratio=True)
    return [
        compared("Verifier.verify, RS256 (beside a bare verification)", verify, bare, unit="µs", bar=bar),
        compared("Verifier.verify, RS256 (beside PyJWT's decode)", verify, pyjwt, unit="µs"),
    ]
