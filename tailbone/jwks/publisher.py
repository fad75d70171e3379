"""Publisher: the JWKS in its store, changed by compare-and-swap and read back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from tailbone.errors import (
    ForeignDocumentError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks.condition_check import ConditionCheck
from tailbone.jwks.document import CONTENT_TYPE, Document
from tailbone.jwks.store import cache_control

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tailbone.jwks.store import Store, Stored
    from tailbone.process.log import Logger

_OPERATION_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_LAST_READ_S: Final = 2.0
_LAST_READ_SHARE: Final = 0.2
_REPLACED_S: Final = 5.0
"""How long after an unconditional creation another server's may still replace it."""

_TORN_READS: Final = 3
_REFUSALS: Final = 2
# Retrying does not help with these.
_LASTING: Final = (StoreDeniedError, StoreSettingsError, UnconditionalStoreError)
# After these, only a read shows whether a write was applied. A proxy that sends a write twice conflicts with
# itself.
_OPEN: Final = (StoreOutcomeUnknownError, StoreConflictError)

_NOT_READ_BACK: Final = "the JWKS was written and could not be read back in time; a later read will show"
_NOT_SHOWN: Final = (
    "others changed the JWKS at the same time, and it could not be read again; a later read will show"
)
_CONFLICTS: Final = "gave up after repeated conflicting writes; the JWKS was not changed: try again"
_REFUSED: Final = (
    "the store refuses the ETag that it gave, so that nothing can be written under a condition: use another "
    "store, or set keys.conditionalWrites = false if this is the only writer"
)

_T = TypeVar("_T")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a change.

    Attributes:
        before: the document that the last write replaced; None if there was none.
        after: the document as it was read back; None if there is none and none was needed.
        wrote: whether anything had to be written.
    """

    before: Document | None
    after: Document | None
    wrote: bool


class _Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One write of a change. Only the next read shows whether it was applied.

    Attributes:
        number: 1 for the first write of the change.
        stored: the content that it was to replace.
        before: the document in that content.
        failure: the error if the next read fails, or shows that the write was not applied.
        refusals: how often in a row the store has refused this content's own ETag.
    """

    number: int
    stored: Stored | None
    before: Document | None
    failure: StoreError
    refusals: int

    @property
    def pauses(self) -> bool:
        """Whether to pause before the next read: not after a first write that has probably been applied."""
        return self.number > 1 or not isinstance(self.failure, StoreOutcomeUnknownError)

    def refusals_of(self, stored: Stored | None) -> int:
        """Return how often in a row the store has refused the ETag of ``stored``, which did not change."""
        before = self.stored
        unchanged = stored and before and (stored.etag, stored.data) == (before.etag, before.data)
        return self.refusals + 1 if unchanged and isinstance(self.failure, StoreConflictError) else 0


class Publisher:
    """One document in one store.

    Attributes:
        location: names store and path.
    """

    def __init__(
        self,
        store: Store,
        path: str,
        *,
        max_age_s: float,
        conditional: bool,
        log: Logger,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Publish at this path. Nothing is sent yet.

        Args:
            store: contains the document. The publisher closes it.
            path: the document's path in the store.
            max_age_s: how long caches may keep the document, in seconds.
            conditional: False if this is the only writer to a store that ignores conditions.
            log: receives a warning if the store ignores conditions.
            monotonic: seconds, for deadlines.
            sleep: waits this many seconds between attempts.
        """
        self.location = f"{store.location}/{path}"
        self._store = store
        self._path = path
        self._cache_control = cache_control(max_age_s)
        self._conditional = conditional
        self._condition_check = ConditionCheck(self._write, log=log) if conditional else None
        self._monotonic = monotonic
        self._sleep = sleep
        self._known: tuple[bytes, Document] | None = None

    @property
    def note(self) -> StoreError | None:
        """A problem of the store that does not stop reads; None if there is none."""
        return self._condition_check.failure if self._condition_check else None

    async def read(self, *, until: float | None = None) -> Document | None:
        """Read the document.

        Args:
            until: when to stop retrying transient failures, on the monotonic clock; None tries once.

        Returns:
            None if there certainly is no document.

        Raises:
            StoreError: the document could not be read.
            ForeignDocumentError: the document is not a JWKS.
        """
        if until is None:
            return self._parse(await self._read_stored(self._monotonic() + _OPERATION_S))
        _, document = await self._read_until(until)
        return document

    async def change(self, edit: Callable[[Document | None], Document | None], *, deadline: float) -> Outcome:
        """Change the document until a read shows what ``edit`` returns.

        The read after each write shows whether the write was applied. Writes end early enough for that read.

        Args:
            edit: returns the new document; applied to its own result, it changes nothing. It is called for
                each attempt, and an exception ends the change.
            deadline: when the change ends in any case, on the monotonic clock.

        Raises:
            StoreOutcomeUnknownError: the last write may have been applied.
            StoreError: nothing was changed.
        """
        outcome = await self._change(edit, deadline)
        if outcome.after and outcome.wrote and not outcome.before:
            await self._check_after_creation(outcome.after, deadline)
            if self.note:
                # Another server's creation may have replaced this one since.
                await self._sleep(_REPLACED_S)
                await self._change(edit, deadline)
        return outcome

    async def _change(self, edit: Callable[[Document | None], Document | None], deadline: float) -> Outcome:
        write_until = deadline - min(_LAST_READ_S, _LAST_READ_SHARE * max(deadline - self._monotonic(), 0.0))
        last: _Attempt | None = None
        while True:
            try:
                stored, current = await self._read_until(deadline)
            except StoreError as error:
                raise _unknown_outcome(last, error) from error
            wanted = edit(current)
            if wanted is None or wanted == current:
                return Outcome(before=last.before if last else current, after=current, wrote=last is not None)
            if last and self._monotonic() >= write_until:
                raise _not_applied(last.failure)
            refusals = last.refusals_of(stored) if last else 0
            if refusals > _REFUSALS:
                raise UnconditionalStoreError(_REFUSED)
            etag = _etag_of(stored, unquoted=refusals == _REFUSALS)
            last = _Attempt(
                number=last.number + 1 if last else 1,
                stored=stored,
                before=current,
                failure=await self._compare_and_swap(stored, wanted.to_publish(), etag, write_until),
                refusals=refusals,
            )
            if last.pauses:
                await self._sleep(min(_pause_s(last.number), max(write_until - self._monotonic(), 0.0)))

    async def check_writable(self, *, until: float) -> Document | None:
        """Read the document, and check that the store would accept a change.

        Args:
            until: when to stop retrying transient failures, on the monotonic clock.

        Raises:
            StoreError: it would not. Nothing was changed.
        """

        async def read_and_check() -> Document | None:
            stored = await self._read_stored(until)
            document = self._parse(stored)
            if stored and self._condition_check:
                await self._condition_check.run(stored.data, until)
            return document

        return await self._retry(read_and_check, until)

    async def close(self) -> None:
        """Close the store; idempotent."""
        await self._store.close()

    async def _read_until(self, until: float) -> tuple[Stored | None, Document | None]:
        async def read() -> tuple[Stored | None, Document | None]:
            stored = await self._read_stored(until)
            return stored, self._parse(stored)

        return await self._retry(read, until)

    async def _retry(self, call: Callable[[], Awaitable[_T]], until: float) -> _T:
        """Retry a call after transient failures, until the given time."""
        tries = 0
        while True:
            tries += 1
            try:
                return await call()
            except StoreError as error:
                # Some stores return the old content with the new length during a write.
                is_final = isinstance(error, ForeignDocumentError) and tries > _TORN_READS
                is_late = self._monotonic() + _pause_s(tries) >= until
                if is_final or is_late or isinstance(error, _LASTING):
                    raise
            await self._sleep(_pause_s(tries))

    def _parse(self, stored: Stored | None) -> Document | None:
        if stored is None:
            return None
        if self._known is None or stored.data != self._known[0]:
            self._known = (stored.data, Document.parse(stored.data))
        return self._known[1]

    async def _compare_and_swap(
        self, stored: Stored | None, data: bytes, etag: str | None, until: float
    ) -> StoreError:
        """Write if the document is still ``stored``.

        Returns:
            The error to raise unless the next read shows the change: only a read proves a write.

        Raises:
            StoreError: nothing was written, and retrying would not help.
        """
        try:
            # Without a document there is no check: a store that ignores conditions would create one, and a
            # later read would take it for a revocation of all keys.
            if stored and self._condition_check:
                await self._condition_check.require(stored.data, until)
            await self._write(data, etag, until)
        except StoreError as error:
            if isinstance(error, _LASTING):
                raise
            return error
        return StoreOutcomeUnknownError(_NOT_READ_BACK)

    async def _check_after_creation(self, created: Document, until: float) -> None:
        """Find out whether the store honours conditions. If that fails, the next change finds out."""
        if self._condition_check:
            # The change is complete in any case: without its key no token could be signed.
            with contextlib.suppress(StoreError):
                await self._condition_check.require(created.to_publish(), until)

    async def _read_stored(self, deadline: float) -> Stored | None:
        timed_out = StoreError("the store did not answer in time: check whether it can be reached")
        return await self._in_time(self._store.read(self._path), deadline, timed_out)

    async def _write(self, data: bytes, etag: str | None, deadline: float) -> None:
        timed_out = StoreOutcomeUnknownError("the store did not answer in time; a later read will show")
        write = self._store.write(
            self._path,
            data,
            etag=etag,
            conditional=self._conditional,
            content_type=CONTENT_TYPE,
            cache_control=self._cache_control,
        )
        await self._in_time(write, deadline, timed_out)

    async def _in_time(self, call: Awaitable[_T], deadline: float, timed_out: StoreError) -> _T:
        try:
            async with asyncio.timeout(min(_OPERATION_S, max(deadline - self._monotonic(), 0.001))):
                return await call
        except TimeoutError:
            raise timed_out from None


def _etag_of(stored: Stored | None, *, unquoted: bool) -> str | None:
    """Return the ETag for replacing ``stored``; some stores compare it without its quotes."""
    etag = stored.etag if stored else None
    return etag.strip('"') if etag and unquoted else etag


def _pause_s(tries: int) -> float:
    """Return the pause after this many attempts, in seconds; random, so that servers get out of step."""
    longest_s: float = min(_FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_S)
    return longest_s * random.uniform(0.5, 1.0)


def _not_applied(failure: StoreError) -> StoreError:
    """Return the error for a write that a read shows was not applied."""
    return StoreConflictError(_CONFLICTS, detail=failure.message) if isinstance(failure, _OPEN) else failure


def _unknown_outcome(last: _Attempt | None, error: StoreError) -> StoreError:
    """Return the error for a change whose last write, if there was one, could not be read back."""
    failure = last.failure if last else None
    if not isinstance(failure, _OPEN):
        return error
    detail = f"{failure.detail or failure.message}; then: {error.detail or error.message}"
    message = failure.message if isinstance(failure, StoreOutcomeUnknownError) else _NOT_SHOWN
    return StoreOutcomeUnknownError(message, detail=detail)
