"""Store: where published documents are kept; it knows nothing of their content."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

ANY_CONTENT: Final = "*"
"""In place of an etag: replace whatever is there, for a store that has this one writer only."""

LARGEST: Final = 1024 * 1024
"""The length in bytes above which nothing is read: no JWKS is that long."""


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it was read.

    Attributes:
        data: its bytes.
        etag: names this content to a conditional write; opaque.
    """

    data: bytes
    etag: str


class Store(Protocol):
    """Documents that are changed by compare-and-swap only.

    Attributes:
        place: names the store itself, also after a restart: a key confirmed in one store is not in another.
    """

    place: str

    async def read(self, path: str) -> Stored | None:
        """Read a document.

        Args:
            path: relative, with ``/`` between its parts.

        Returns:
            None only when the store says for certain that there is no such document.

        Raises:
            StoreError: the most specific one; whether there is such a document is unknown.
        """
        ...

    async def write(
        self, path: str, data: bytes, *, etag: str | None, content_type: str, cache_control: str
    ) -> str:
        """Write a document if it still is what was read.

        Args:
            path: as in ``read``.
            data: the whole new content.
            etag: of the content to replace; None: only if there is no such document; or ``ANY_CONTENT``.
            content_type: served with it.
            cache_control: served with it (RFC 9111 section 5.2).

        Returns:
            The new content's etag.

        Raises:
            StoreConflictError: another writer was first; nothing was written.
            StoreOutcomeUnknownError: the write was sent; whether it was taken, only a read can tell.
            StoreError: nothing was written.
        """
        ...

    async def close(self) -> None:
        """Give back connections; idempotent."""
        ...
