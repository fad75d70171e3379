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
    StoreMissingError,
    StoreOutcomeUnknownError,
    UnconditionalStoreError,
)
from tailbone.jwks.document import CONTENT_TYPE, Document
from tailbone.jwks.store import ANY_CONTENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tailbone.jwks.store import Store, Stored
    from tailbone.process.log import Logger

NEVER_MATCHES: Final = '"00000000000000000000000000000000"'
"""The etag of a write that a store which honours conditions refuses."""

_OPERATION_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_LAST_READ_S: Final = 2.0
_LAST_READ_SHARE: Final = 0.2
_REPLACED_S: Final = 5.0
"""How long after an unguarded creation another server's could still replace it."""

_TORN_READS: Final = 3
_REFUSALS: Final = 2
# Trying again helps with none of these.
_LASTING: Final = (StoreDeniedError, StoreMissingError, UnconditionalStoreError)
# After these only a read shows what became of a write: a proxy that sends it twice loses to itself.
_OPEN: Final = (StoreOutcomeUnknownError, StoreConflictError)

_NOT_READ_BACK: Final = "the JWKS was written and could not be read back in time; a later read will show"
_NOT_SHOWN: Final = (
    "others changed the JWKS at the same time, and it could not be read again; a later read will show"
)
_OTHERS: Final = "others changed the JWKS all the time, and this change is not in it: try again"
_UNGUARDED: Final = (
    "the store ignores If-Match, so that two writers would lose each other's keys: use a store that "
    "honours it, or set keys.conditionalWrites = false if this is the only writer"
)
_REFUSED: Final = (
    "the store refuses the ETag that it gave, so that nothing can be written under a condition: use another "
    "store, or set keys.conditionalWrites = false if this is the only writer"
)

_T = TypeVar("_T")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A change that is done.

    Attributes:
        before: the document that the last write replaced; None when there was none.
        after: the document as it was read back; None when there is none and none was needed.
        wrote: whether anything had to be written.
    """

    before: Document | None
    after: Document | None
    wrote: bool


class Publisher:
    """One document in one store.

    Attributes:
        place: names store and path.
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
        """Take the document's place.

        Args:
            store: where it is kept.
            path: its path in the store.
            max_age_s: how long caches may keep it, in seconds.
            conditional: False says that this is the only writer, to a store that ignores conditions.
            log: for what is wrong with the store.
            monotonic: seconds, for deadlines.
            sleep: how to pause between tries.
        """
        self.place = f"{store.place}/{path}"
        self._store = store
        self._path = path
        self._cache_control = f"public, max-age={max_age_s:.0f}"
        self._conditional = conditional
        self._probe_due = conditional
        self._unguarded: UnconditionalStoreError | None = None
        self._log = log
        self._monotonic = monotonic
        self._sleep = sleep
        self._known: tuple[bytes, Document] | None = None

    @property
    def note(self) -> StoreError | None:
        """What is wrong with the store though it can be read."""
        return self._unguarded

    async def read(self, *, until: float | None = None) -> Document | None:
        """Read the document.

        Args:
            until: when to stop trying again what may pass by itself, on the monotonic clock; None tries once.

        Returns:
            None when there is certainly none.

        Raises:
            StoreError: it could not be read.
            ForeignDocumentError: it is not a JWKS.
        """
        if until is None:
            return self._parse(await self._read_stored(self._monotonic() + _OPERATION_S))
        _, document = await self._read_until(until)
        return document

    async def change(self, edit: Callable[[Document | None], Document | None], *, deadline: float) -> Outcome:
        """Change the document until a read shows it as ``edit`` wants it.

        The read that follows a write shows whether it was taken; a write ends early enough for that read.

        Args:
            edit: gives the document that should be there; what it gives back it must leave unchanged. It is
                called for each try, and what it raises ends the change.
            deadline: on the monotonic clock; the change is over then, either way.

        Raises:
            StoreOutcomeUnknownError: the last write may have been taken.
            StoreError: nothing was changed.
        """
        outcome = await self._change(edit, deadline)
        if outcome.after and outcome.wrote and not outcome.before:
            await self._probe_creation(outcome.after, deadline)
            if self._unguarded:
                # Another server's creation may have replaced this one since.
                await self._sleep(_REPLACED_S)
                await self._change(edit, deadline)
        return outcome

    async def _change(self, edit: Callable[[Document | None], Document | None], deadline: float) -> Outcome:
        write_until = deadline - min(_LAST_READ_S, _LAST_READ_SHARE * max(deadline - self._monotonic(), 0.0))
        tries = refusals = 0
        failure: StoreError | None = None
        before: Document | None = None
        written_over: Stored | None = None
        while True:
            try:
                stored, current = await self._read_until(deadline)
            except StoreError as error:
                raise _left_open(failure, error) from error
            wanted = edit(current)
            if wanted is None or wanted == current:
                return Outcome(before=before if tries else current, after=current, wrote=tries > 0)
            if failure and self._monotonic() >= write_until:
                raise _not_taken(failure)
            # Refused again and again although nothing has changed: the last try leaves out the etag's quotes.
            is_refused = isinstance(failure, StoreConflictError) and stored == written_over
            refusals = refusals + 1 if stored and is_refused else 0
            if refusals > _REFUSALS:
                raise UnconditionalStoreError(_REFUSED)
            condition = self._condition(stored, unquoted=refusals == _REFUSALS)
            tries, before, written_over = tries + 1, current, stored
            failure = await self._swap(stored, wanted.to_publish(), condition, write_until)
            if tries > 1 or not isinstance(failure, StoreOutcomeUnknownError):
                await self._sleep(min(_pause_s(tries), max(write_until - self._monotonic(), 0.0)))

    async def rehearse(self, *, until: float) -> Document | None:
        """Read the document, and find out whether the store would take a change of it.

        Args:
            until: when to stop trying again what may pass by itself, on the monotonic clock.

        Raises:
            StoreError: it would not; nothing was changed.
        """

        async def rehearsal() -> Document | None:
            stored = await self._read_stored(until)
            document = self._parse(stored)
            if stored and self._conditional:
                await self._probe(stored.data, until)
            return document

        return await self._patiently(rehearsal, until)

    async def close(self) -> None:
        """Close the store; idempotent."""
        await self._store.close()

    async def _read_until(self, until: float) -> tuple[Stored | None, Document | None]:
        async def read() -> tuple[Stored | None, Document | None]:
            stored = await self._read_stored(until)
            return stored, self._parse(stored)

        return await self._patiently(read, until)

    async def _patiently(self, call: Callable[[], Awaitable[_T]], until: float) -> _T:
        """Call again what fails in a way that may pass by itself, until the given time."""
        tries = 0
        while True:
            tries += 1
            try:
                return await call()
            except StoreError as error:
                # Some stores give a reader the new length of the old content during a write.
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

    def _condition(self, stored: Stored | None, *, unquoted: bool) -> str | None:
        """Return the etag under which to replace ``stored``; some stores compare it without its quotes."""
        if not self._conditional:
            return ANY_CONTENT
        etag = stored.etag if stored else None
        return etag.strip('"') if etag and unquoted else etag

    async def _swap(
        self, stored: Stored | None, data: bytes, condition: str | None, until: float
    ) -> StoreError:
        """Write if the document still is ``stored``; return why only a read shows whether it was written.

        Raises:
            StoreError: nothing was written, and trying again would not help.
        """
        try:
            # Where there is no document, a store that ignores the condition would make one, and a later read
            # would take it for a revocation of all keys.
            if stored and (self._probe_due or self._unguarded):
                await self._probe(stored.data, until)
            await self._write(data, condition, until)
        except StoreError as error:
            if isinstance(error, _LASTING):
                raise
            return error
        return StoreOutcomeUnknownError(_NOT_READ_BACK)

    async def _probe_creation(self, created: Document, until: float) -> None:
        """Find out whether anything guarded a creation; if that fails, the next change finds out."""
        if self._probe_due:
            # This change is done, whatever is found: without its key there would be no token.
            with contextlib.suppress(StoreError):
                await self._probe(created.to_publish(), until)

    async def _probe(self, data: bytes, until: float) -> None:
        """Write what is there under a condition that cannot hold.

        Raises:
            UnconditionalStoreError: the store ignores conditions.
            StoreError: it would not take a change, either.
        """
        if self._unguarded:
            # Found once: to ask again would be another write that nothing guards.
            raise self._unguarded
        try:
            await self._write(data, NEVER_MATCHES, until)
        except StoreConflictError:
            self._probe_due = False
            return
        except StoreOutcomeUnknownError as error:
            # Whichever way it went, these bytes change nothing.
            raise StoreError(
                "the trial write before the change failed, and the change was not begun",
                detail=error.detail or error.message,
            ) from error
        self._probe_due = False
        self._unguarded = UnconditionalStoreError(_UNGUARDED)
        self._log.warning(_UNGUARDED, code=self._unguarded.code)
        raise self._unguarded

    async def _read_stored(self, deadline: float) -> Stored | None:
        timed_out = StoreError("the store did not answer in time: see whether it can be reached from here")
        return await self._in_time(self._store.read(self._path), deadline, timed_out)

    async def _write(self, data: bytes, etag: str | None, deadline: float) -> None:
        timed_out = StoreOutcomeUnknownError("the store did not answer in time; a later read will show")
        write = self._store.write(
            self._path, data, etag=etag, content_type=CONTENT_TYPE, cache_control=self._cache_control
        )
        await self._in_time(write, deadline, timed_out)

    async def _in_time(self, call: Awaitable[_T], deadline: float, timed_out: StoreError) -> _T:
        try:
            async with asyncio.timeout(min(_OPERATION_S, max(deadline - self._monotonic(), 0.001))):
                return await call
        except TimeoutError:
            raise timed_out from None


def _pause_s(tries: int) -> float:
    """Return how many seconds to pause after so many tries; random, so that servers do not keep step."""
    longest_s: float = min(_FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE_S)
    return longest_s * random.uniform(0.5, 1.0)


def _not_taken(failure: StoreError) -> StoreError:
    """Return what to raise when a read shows that a write that ended in ``failure`` was not taken."""
    return StoreConflictError(_OTHERS, detail=failure.message) if isinstance(failure, _OPEN) else failure


def _left_open(failure: StoreError | None, error: StoreError) -> StoreError:
    """Return what to raise when no read shows what became of a write that ended in ``failure``."""
    if not isinstance(failure, _OPEN):
        return error
    detail = f"{failure.detail or failure.message}; then: {error.detail or error.message}"
    message = failure.message if isinstance(failure, StoreOutcomeUnknownError) else _NOT_SHOWN
    return StoreOutcomeUnknownError(message, detail=detail)
