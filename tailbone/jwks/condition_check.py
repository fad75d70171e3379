"""Find out whether a store honours the conditions of writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tailbone.errors import (
    StoreConflictError,
    StoreError,
    StoreOutcomeUnknownError,
    UnconditionalStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tailbone.process.log import Logger

NEVER_MATCHES: Final = '"00000000000000000000000000000000"'
"""An ETag that no document has, so that a store that honours conditions refuses the write."""

_IGNORED: Final = (
    "the store ignores If-Match, so that two writers would lose each other's keys: use a store that "
    "honours it, or set keys.conditionalWrites = false if this is the only writer"
)


class ConditionCheck:
    """Writes a document's current content under a condition that is never true, until the store has answered.

    Attributes:
        failure: set once the store has ignored the condition; None before, and if it honours conditions.
    """

    def __init__(self, write: Callable[[bytes, str, float], Awaitable[None]], *, log: Logger) -> None:
        """Check nothing yet.

        Args:
            write: writes bytes if the document has an ETag, until a deadline; raises as ``Store.write`` does.
            log: receives a warning if the store ignores conditions.
        """
        self.failure: UnconditionalStoreError | None = None
        self._write = write
        self._log = log
        self._passed = False

    async def require(self, content: bytes, until: float) -> None:
        """Check the store unless it has passed before; see ``run``."""
        if not self._passed:
            await self.run(content, until)

    async def run(self, content: bytes, until: float) -> None:
        """Check the store. One that has failed is not checked again: that would be an unconditional write.

        Args:
            content: what the document contains now.
            until: the deadline of the write.

        Raises:
            UnconditionalStoreError: the store ignores conditions.
            StoreError: the store would not accept a change either.
        """
        if self.failure:
            raise self.failure
        try:
            await self._write(content, NEVER_MATCHES, until)
        except StoreConflictError:
            self._passed = True
            return
        except StoreOutcomeUnknownError as error:
            # Harmless either way: the write would have stored identical bytes.
            raise StoreError(
                "the trial write before the change failed, and the change was not begun",
                detail=error.detail or error.message,
            ) from error
        self.failure = UnconditionalStoreError(_IGNORED)
        self._log.warning(_IGNORED, code=self.failure.code)
        raise self.failure
