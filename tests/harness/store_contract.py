"""The contract of every store of published documents; see ``tailbone.jwks.store.Store``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tailbone.errors import StoreConflictError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.jwks.store import Store

PATH = ".well-known/jwks.json"
HOW: dict[str, Any] = {"content_type": "application/json", "cache_control": "public, max-age=300"}


async def etag_of(store: Store) -> str:
    """Return the ETag of the document's content."""
    stored = await store.read(PATH)
    assert stored is not None
    return stored.etag


class StoreContract:
    """Tests for a subclass in a file of tests, which has the fixtures ``store`` and ``take_away``."""

    async def test_what_was_written_is_read(self, store: Store) -> None:
        """Two reads return the same bytes and the same ETag."""
        await store.write(PATH, b'{"keys":[]}', etag=None, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert stored.data == b'{"keys":[]}'
        assert await store.read(PATH) == stored

    async def test_a_missing_document_is_none(self, store: Store) -> None:
        """A read returns None only if there is no document."""
        assert await store.read(PATH) is None

    async def test_a_write_replaces_only_what_was_read(self, store: Store) -> None:
        """A write with a stale ETag, or a first write over a document, is a lost race and changes nothing."""
        await store.write(PATH, b"one", etag=None, **HOW)
        first = await etag_of(store)
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"two", etag=None, **HOW)
        await store.write(PATH, b"two", etag=first, **HOW)
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"three", etag=first, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert stored.data == b"two"

    async def test_a_write_over_a_deleted_document_is_a_lost_race(
        self, store: Store, take_away: Callable[[], None]
    ) -> None:
        """This holds whatever the server's own answer is."""
        await store.write(PATH, b"one", etag=None, **HOW)
        etag = await etag_of(store)
        take_away()
        with pytest.raises(StoreConflictError):
            await store.write(PATH, b"two", etag=etag, **HOW)
        assert await store.read(PATH) is None

    async def test_the_only_writer_replaces_anything(self, store: Store) -> None:
        """It writes without a condition, for servers that do not support conditions."""
        await store.write(PATH, b"one", etag=None, conditional=False, **HOW)
        await store.write(PATH, b"two", etag=None, conditional=False, **HOW)
        stored = await store.read(PATH)
        assert stored is not None
        assert stored.data == b"two"
