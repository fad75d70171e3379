"""The corpus of the fuzzing, once, and the fuzzing for a moment."""

from __future__ import annotations

import pytest

from tests.endurance.fuzz.engine import fuzz
from tests.endurance.fuzz.targets import TARGETS, WhoisAnswers, seeds_of


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds(name: str) -> None:
    """Each input that is kept gets an answer that its interface promises."""
    with TARGETS[name]() as target:
        seeds = seeds_of(name)
        for first in range(0, len(seeds), target.at_once):
            target.check(seeds[first : first + target.at_once])


def test_fuzzing_finds_what_is_wrong() -> None:
    """A target that fails for some inputs is found out, and the smallest such input is given."""

    class Wrong(WhoisAnswers):
        def one(self, data: bytes) -> None:
            assert b"tag:" not in data

    with Wrong() as target:
        result = fuzz(target, [b"tag:a", b"{}"], 10.0, 1)
    assert "AssertionError" in result.error
    assert b"tag:" in result.failing[0]
