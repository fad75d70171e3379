"""An issuer on loopback, and a clock that tests move."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time())


@pytest.fixture
def issuer(clock: Clock) -> Iterator[FakeIssuer]:
    with FakeIssuer(clock=clock) as running:
        yield running
