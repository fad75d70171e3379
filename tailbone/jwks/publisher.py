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

_OPERATION_S: Final = 10.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
NEVER_MATCHES: Final = '"00000000000000000000000000000000"'
"""The etag of a write that a store which honours conditions refuses."""

# Trying again helps with none of these.
_LASTING: Final = (StoreDeniedError, StoreMissingError, UnconditionalStoreError)
_TORN_READS: Final = 3
_LAST_READ_S: Final = 2.0
_LAST_READ_SHARE: Final = 0.2

_NOT_READ_BACK: Final = "the JWKS was written and could not be read back in time; a later read will show"

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


class _SoFar:
    """What the tries of one change have come to.

    Attributes:
        deadline: the change is over then; on the monotonic clock.
        write_until: no write goes on after this, so that a last read can tell what became of it.
        before: the document that the last write replaced.
        writes: how many were sent, but for probes.
        unknown: why the outcome of a write is unknown; None when none is.
    """

    def __init__(self, now: float, deadline: float) -> None:
        self.deadline = deadline
        self.write_until = deadline - min(_LAST_READ_S, _LAST_READ_SHARE * max(deadline - now, 0.0))
        self.before: Document | None = None
        self.writes = 0
        self.unknown: StoreOutcomeUnknownError | None = None
        self._lost = False
        self._condition: str | None = None
        self._torn = 0

    def sends(self, current: Document | None, condition: str | None) -> None:
        """Note a write that is about to be sent."""
        self.before, self._condition = current, condition
        self.writes += 1

    def lost(self) -> None:
        """Note a write that lost a race, as the store says.

        Until a read shows it that is not certain: a proxy that sends a write twice loses to itself.
        """
        self._lost = True
        self.unknown = StoreOutcomeUnknownError(
            "others changed the JWKS at the same time, and it could not be read again; a later read will show"
        )

    def saw(self, stored: Stored | None) -> None:
        """Note a read that does not show the change.

        A write that was not taken yet may still be, hours after its sender gave up, for as long as its
        condition holds.
        """
        passed = self._condition != ANY_CONTENT and self._condition != (stored.etag if stored else None)
        if passed or self._lost:
            self.unknown = None
            self._lost = False

    def failure(self, error: StoreError) -> StoreError:
        """What to say of a change that ends by ``error``."""
        if self.unknown is None or error is self.unknown:
            return error
        detail = f"{self.unknown.detail or self.unknown.message}; then: {error.detail or error.message}"
        return StoreOutcomeUnknownError(self.unknown.message, detail=detail)

    def is_final(self, error: StoreError) -> bool:
        """Whether trying again would not help."""
        if isinstance(error, ForeignDocumentError):
            # Some stores give a reader the new length of the old content while somebody writes.
            self._torn += 1
            return self._torn > _TORN_READS
        return isinstance(error, _LASTING)


class Publisher:
    """One document in one store."""

    def __init__(
        self,
        store: Store,
        path: str,
        *,
        max_age_s: float,
        conditional: bool,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Take the document's place.

        Args:
            store: where it lies.
            path: its path in the store.
            max_age_s: how long caches may keep it, in seconds.
            conditional: False says that this is the only writer, to a store that ignores conditions.
            monotonic: seconds, for deadlines.
            sleep: how to pause between tries.
        """
        self.place = f"{store.place}/{path}"
        self._store = store
        self._path = path
        self._cache_control = f"public, max-age={max_age_s:.0f}"
        self._conditional = conditional
        self._probe_due = conditional
        self._unconditional: UnconditionalStoreError | None = None
        self._monotonic = monotonic
        self._sleep = sleep
        self._known: tuple[bytes, Document] | None = None

    async def read(self) -> Document | None:
        """Read the document once.

        Returns:
            None when there is certainly none.

        Raises:
            StoreError: it could not be read.
            ForeignDocumentError: what lies there is no JWKS.
        """
        return self._parse(await self._read_stored(self._monotonic() + _OPERATION_S))

    async def change(self, edit: Callable[[Document | None], Document | None], *, deadline: float) -> Outcome:
        """Change the document until a read shows it as ``edit`` wants it.

        Args:
            edit: gives the document that should be there; what it gives back it must leave unchanged. It is
                called for each try, and what it raises ends the change.
            deadline: on the monotonic clock; the change is over then, either way.

        Raises:
            StoreOutcomeUnknownError: the last write may have been taken.
            StoreError: nothing was changed.
        """
        pause_s = _FIRST_PAUSE_S
        so_far = _SoFar(self._monotonic(), deadline)
        failure: StoreError
        while True:
            try:
                outcome = await self._try(edit, so_far)
                if outcome is not None:
                    return outcome
                failure = so_far.unknown = StoreOutcomeUnknownError(_NOT_READ_BACK)
                if so_far.writes == 1:
                    # Taken, as the store says; only the next read proves it.
                    continue
            except StoreOutcomeUnknownError as error:
                failure = so_far.unknown = error
            except StoreConflictError as error:
                failure = error
                so_far.lost()
            except StoreError as error:
                failure = so_far.failure(error)
                if so_far.is_final(error):
                    raise failure from error
            if self._monotonic() + pause_s >= so_far.write_until:
                return await self._last_look(edit, so_far, failure)
            await self._sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def rehearse(self, *, deadline: float) -> None:
        """Find out whether the store would take a change, before anything is done for the sake of one.

        Raises:
            StoreError: it would not; nothing was changed.
        """
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                self._probe_due = self._conditional
                await self._probe(await self._read_stored(deadline), deadline)
            except StoreError as error:
                if isinstance(error, _LASTING) or self._monotonic() + pause_s >= deadline:
                    raise
            else:
                return
            await self._sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _try(
        self, edit: Callable[[Document | None], Document | None], so_far: _SoFar
    ) -> Outcome | None:
        """Read, and write what is still wanted; None after a write, which is to be read back."""
        stored = await self._read_stored(so_far.deadline)
        current = self._parse(stored)
        wanted = edit(current)
        if wanted is None or wanted == current:
            return await self._done(stored, current, so_far)
        so_far.saw(stored)
        await self._probe(stored, so_far.write_until)
        condition = ANY_CONTENT if not self._conditional else stored.etag if stored else None
        data = wanted.to_publish()
        so_far.sends(current, condition)
        await self._write(data, condition, so_far.write_until)
        return None

    async def _done(self, stored: Stored | None, current: Document | None, so_far: _SoFar) -> Outcome:
        if so_far.writes and stored is not None:
            # After the change that made the document. What it finds holds for the next one: this one is
            # done, and without its key there would be no token.
            with contextlib.suppress(StoreError):
                await self._probe(stored, so_far.deadline)
        before = so_far.before if so_far.writes else current
        return Outcome(before=before, after=current, wrote=bool(so_far.writes))

    async def _last_look(
        self,
        edit: Callable[[Document | None], Document | None],
        so_far: _SoFar,
        failure: StoreError,
    ) -> Outcome:
        """See whether a write of unknown outcome was taken, before it is reported as unknown."""
        if so_far.unknown is None:
            raise failure
        try:
            stored = await self._read_stored(so_far.deadline)
            current = self._parse(stored)
        except StoreError as error:
            raise so_far.failure(error) from error
        wanted = edit(current)
        if wanted is None or wanted == current:
            return await self._done(stored, current, so_far)
        so_far.saw(stored)
        if so_far.unknown is None:
            raise StoreConflictError(
                "others changed the JWKS all the time, and this change is not in it: try again",
                detail=failure.detail,
            )
        raise failure

    async def close(self) -> None:
        """Close the store; idempotent."""
        await self._store.close()

    def _parse(self, stored: Stored | None) -> Document | None:
        if stored is None:
            return None
        if self._known is None or stored.data != self._known[0]:
            self._known = (stored.data, Document.parse(stored.data))
        return self._known[1]

    async def _probe(self, stored: Stored | None, deadline: float) -> None:
        """Before the first change: write what is there under a condition that cannot hold."""
        if self._unconditional is not None:
            # Found once: to ask again would be another write that nothing guards.
            raise self._unconditional
        if not self._probe_due or stored is None:
            # Where there is no document, a store that ignores the condition would make one, and a later
            # read would take it for somebody's word that all keys are revoked.
            return
        try:
            await self._write(stored.data, NEVER_MATCHES, deadline)
        except StoreConflictError:
            self._probe_due = False
            return
        except StoreOutcomeUnknownError as error:
            # Whichever way it went, these bytes change nothing.
            raise StoreError(
                "the trial write before the change failed, and the change was not begun",
                detail=error.detail or error.message,
            ) from error
        self._unconditional = UnconditionalStoreError(
            "the store ignores If-Match, so that two writers would lose each other's keys: use a store that "
            "honours it, or set keys.conditionalWrites = false if this is the only writer"
        )
        raise self._unconditional

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
