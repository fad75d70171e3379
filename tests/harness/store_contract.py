"""What every store of published documents does alike; see ``tailbone.jwks.store.Store``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tailbone.errors import StoreConflictError
from tailbone.jwks.store import ANY_CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.jwks.store import Store

PATH = ".well-known/jwks.json"
HOW: dict[str, Any] = {"content_type": "application/json", "cache_control": "public, max-age=300"}


class StoreContract:
    """Tests for a subclass in a file of tests, which has the fixtures ``store`` and ``take_away``."""

    async def test_what_was_written_is_read_with_its_etag(self, store: Store) -> None:
        """The etag that write gave is the one that read gives."""
        etag = await store.write(PATH, b'{"keys":[]}', etag=None, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert (stored.data, stored.etag) == (b'{"keys":[]}', etag)

    async def test_no_such_document_is_none(self, store: Store) -> None:
        """The only thing that is."""
        assert await store.read(PATH) is None

    async def test_a_write_replaces_only_what_was_read(self, store: Store) -> None:
        """A stale etag, or a first write where something is, is a lost race and writes nothing."""
        first = await store.write(PATH, b"one", etag=None, **HOW)
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"two", etag=None, **HOW)
        await store.write(PATH, b"two", etag=first, **HOW)
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"three", etag=first, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert stored.data == b"two"

    async def test_a_write_over_a_document_that_has_gone_is_a_lost_race(
        self, store: Store, take_away: Callable[[], None]
    ) -> None:
        """Whatever its server answers to that."""
        etag = await store.write(PATH, b"one", etag=None, **HOW)
        take_away()
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"two", etag=etag, **HOW)
        assert await store.read(PATH) is None

    async def test_the_only_writer_replaces_anything(self, store: Store) -> None:
        """Without a condition, for servers that know none."""
        await store.write(PATH, b"one", etag=ANY_CONTENT, **HOW)
        await store.write(PATH, b"two", etag=ANY_CONTENT, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert stored.data == b"two"
