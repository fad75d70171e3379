"""CountedStore: a store whose calls are counted."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from tailbone.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailbone.counting import StoreCounts
    from tailbone.jwks.store import Store, Stored

SUCCESS: Final = "ok"
TIMEOUT: Final = "timeout"


class CountedStore:
    """Passes each call on, and counts it by operation and outcome: ``ok``, ``timeout`` or an error's code."""

    def __init__(self, store: Store, counts: StoreCounts) -> None:
        """Count the calls of ``store`` in ``counts``."""
        self.location = store.location
        self._store = store
        self._counts = counts

    async def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""
        with self._counting("read"):
            return await self._store.read(path)

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
        """See ``Store.write``."""
        with self._counting("write"):
            await self._store.write(
                path,
                data,
                etag=etag,
                conditional=conditional,
                content_type=content_type,
                cache_control=cache_control,
            )

    async def close(self) -> None:
        """See ``Store.close``."""
        await self._store.close()

    @contextmanager
    def _counting(self, operation: str) -> Iterator[None]:
        began = time.monotonic()
        outcome = SUCCESS
        try:
            yield
        except StoreError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            # Its callers cancel a call that takes too long.
            outcome = TIMEOUT
            raise
        finally:
            self._counts.called(operation, outcome, time.monotonic() - began)
