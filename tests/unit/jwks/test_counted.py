"""CountedStore: each call is counted, and passed on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from harness.store_contract import HOW, PATH, StoreContract

from tailbone.counting import StoreCounts
from tailbone.errors import StoreConflictError
from tailbone.jwks.counted import CountedStore
from tailbone.jwks.directory import DirectoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailbone.jwks.store import Stored


@pytest.fixture
def counts() -> StoreCounts:
    return StoreCounts()


@pytest.fixture
def store(tmp_path: Path, counts: StoreCounts) -> CountedStore:
    return CountedStore(DirectoryStore(tmp_path / "bucket"), counts)


@pytest.fixture
def take_away(tmp_path: Path) -> Callable[[], None]:
    """Delete the document as another program would."""
    return (tmp_path / "bucket" / PATH).unlink


class TestAsAnyStore(StoreContract):
    """A counted store fulfils the contract of stores."""


async def test_calls_are_counted_by_outcome(store: CountedStore, counts: StoreCounts) -> None:
    """A read of a document that does not exist succeeds; a conflict is a failure."""
    await store.read(PATH)
    await store.write(PATH, b"one", etag=None, **HOW)
    with pytest.raises(StoreConflictError):
        await store.write(PATH, b"two", etag=None, **HOW)
    assert counts.calls == {("read", "ok"): 1, ("write", "ok"): 1, ("write", "store_conflict"): 1}
    assert sum(counts.took_s.counts) == 3


async def test_a_call_that_is_cut_off_is_counted(counts: StoreCounts) -> None:
    """The publisher limits the time of each call."""

    class Hanging(DirectoryStore):
        async def read(self, path: str) -> Stored | None:
            await asyncio.Event().wait()
            return None

    from pathlib import Path

    store = CountedStore(Hanging(Path("/nowhere")), counts)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.read(PATH), 0.001)
    assert counts.calls == {("read", "timeout"): 1}
    assert 0.001 <= counts.took_s.total < 5
