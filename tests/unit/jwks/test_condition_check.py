"""ConditionCheck, on a store that honours conditions and on one that ignores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.keys import Careless
from harness.log import Lines

from tailbone.errors import StoreError, StoreOutcomeUnknownError, UnconditionalStoreError
from tailbone.jwks.condition_check import ConditionCheck
from tailbone.jwks.directory import DirectoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from tailbone.jwks.store import Store

CONTENT = b'{"keys":[]}'


class Checked:
    """A check of one store.

    Attributes:
        writes: how many trial writes there were.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.writes = 0
        self.log = Lines()
        self.check = ConditionCheck(self.write, log=self.log)  # type: ignore[arg-type]

    async def write(self, data: bytes, etag: str | None, until: float) -> None:
        self.writes += 1
        await self.store.write("jwks.json", data, etag=etag, content_type="", cache_control="")


@pytest.fixture
async def directory(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path)
    await store.write("jwks.json", CONTENT, etag=None, content_type="", cache_control="")
    return store


async def test_a_store_that_honours_conditions_is_asked_once(directory: DirectoryStore) -> None:
    """Nothing was written, and nothing is logged."""
    checked = Checked(directory)
    await checked.check.require(CONTENT, 0)
    await checked.check.require(CONTENT, 0)
    assert (checked.writes, checked.check.failure, checked.log.lines) == (1, None, [])
    await checked.check.run(CONTENT, 0)
    assert checked.writes == 2


async def test_a_store_that_ignores_conditions_is_written_to_once(directory: DirectoryStore) -> None:
    """The failure stays, and is logged once."""
    checked = Checked(Careless(directory))
    for _ in range(2):
        with pytest.raises(UnconditionalStoreError, match="ignores If-Match"):
            await checked.check.require(CONTENT, 0)
    assert checked.check.failure is not None
    assert (checked.writes, len(checked.log.of("warning"))) == (1, 1)


async def test_an_unknown_outcome_says_that_nothing_was_begun(directory: DirectoryStore) -> None:
    """The next check tries again."""

    async def lose(data: bytes, etag: str | None, until: float) -> None:
        raise StoreOutcomeUnknownError("no answer")

    checked = Checked(directory)
    check = ConditionCheck(lose, log=checked.log)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="the change was not begun") as caught:
        await check.require(CONTENT, 0)
    assert not isinstance(caught.value, StoreOutcomeUnknownError)
    assert (check.failure, caught.value.detail) == (None, "no answer")
