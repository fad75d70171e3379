"""The interface of stores, which keep published documents without knowing their content."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

LARGEST: Final = 1024 * 1024
"""The longest document that is read, in bytes: no JWKS is longer."""


def cache_control(max_age_s: float) -> str:
    """Return the Cache-Control field of a public document: whole seconds, never longer than ``max_age_s``."""
    return f"public, max-age={int(max_age_s)}"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a document.

    Attributes:
        data: its bytes.
        etag: identifies this content in a conditional write; opaque.
        content_type: as it is stored; empty if the store has none.
        date: when the store answered, by its clock (RFC 9110 section 6.6.1); empty if it does not say.
    """

    data: bytes
    etag: str
    content_type: str = ""
    date: str = ""


class Store(Protocol):
    """Documents that are changed by compare-and-swap only.

    Attributes:
        location: identifies the store across restarts. A key confirmed in one store is not confirmed in
            another.
    """

    location: str

    async def read(self, path: str) -> Stored | None:
        """Read a document.

        Args:
            path: relative, with ``/`` between its parts.

        Returns:
            None only if the document certainly does not exist.

        Raises:
            StoreError: the most specific subclass. It is unknown whether the document exists.
        """
        ...

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        etag: str | None,
        conditional: bool = True,
        content_type: str,
        cache_control: str,
    ) -> None:
        """Write a document if its content is still that of the ETag.

        Args:
            path: as in ``read``.
            data: the whole new content.
            etag: of the content to replace; None if there must be no document.
            conditional: False to replace any content, in a store with a single writer.
            content_type: the type with which it is served.
            cache_control: the field with which it is served (RFC 9111 section 5.2).

        Raises:
            StoreConflictError: another writer was first. Nothing was written.
            StoreOutcomeUnknownError: the write was sent. Only a read can show whether it was applied.
            StoreError: nothing was written.
        """
        ...

    async def close(self) -> None:
        """Close connections; idempotent."""
        ...
