"""fuzz: give a target changed inputs until the time is up or one fails."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Final, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.endurance.fuzz.targets import Target

_BATCH: Final = 200


class Result(NamedTuple):
    """What came of it.

    Attributes:
        taken: how many inputs the target took.
        failing: the inputs that failed, as few and as small as could be found.
        error: what went wrong; empty when nothing did.
    """

    taken: int
    failing: list[bytes]
    error: str


def fuzz(target: Target, seeds: Sequence[bytes], seconds: float, first: int) -> Result:
    """Fuzz one target.

    Args:
        target: that has been entered.
        seeds: its corpus.
        seconds: for how long.
        first: the first seed of the random choices.
    """
    end, count = time.monotonic() + seconds, 0
    failing: list[bytes] = []

    def check(inputs: list[bytes]) -> None:
        nonlocal count
        count += len(inputs)
        try:
            target.check(inputs)
        except Exception:
            failing[:] = inputs
            raise

    batch = settings(
        max_examples=_BATCH,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )(given(st.lists(target.inputs(seeds), min_size=1, max_size=target.at_once))(check))
    try:
        while time.monotonic() < end:
            seed(first)(batch)()
            first += 1
    except Exception:  # noqa: BLE001 -- a target's answer, and hypothesis' own words about it
        return Result(count, failing, traceback.format_exc())
    return Result(count, [], "")
