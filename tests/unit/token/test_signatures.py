"""SignatureQueue: a bounded number of signatures in threads, and of one caller's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tailbone.errors import SigningBusyError
from tailbone.token.signatures import PLACES, SHARE, SignatureQueue


def test_one_caller_has_only_its_share() -> None:
    """Others are still served."""
    queue = SignatureQueue()
    with ExitStack() as taken:
        for _ in range(SHARE):
            taken.enter_context(queue.place("a"))
        with pytest.raises(SigningBusyError), queue.place("a"):
            pass
        taken.enter_context(queue.place("b"))


def test_all_places_are_taken() -> None:
    """Another caller is refused, too."""
    queue = SignatureQueue()
    with ExitStack() as taken:
        for number in range(PLACES):
            taken.enter_context(queue.place(f"node-{number}"))
        with pytest.raises(SigningBusyError), queue.place("other"):
            pass


def test_a_place_becomes_free() -> None:
    """After a signature, and after a failure."""
    queue = SignatureQueue()
    for _ in range(2 * PLACES):
        with pytest.raises(ZeroDivisionError), queue.place("a"):
            raise ZeroDivisionError
    assert queue._by_caller == {}
