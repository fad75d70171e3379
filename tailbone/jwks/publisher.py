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
_NEVER_MATCHES: Final = '"00000000000000000000000000000000"'
# Trying again mends none of these.
_LASTING: Final = (StoreDeniedError, StoreMissingError, UnconditionalStoreError)
_TORN_READS: Final = 3

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
    """What the tries of one change have come to."""

    def __init__(self) -> None:
        self.before: Document | None = None
        self.wrote = False
        self.unknown: StoreOutcomeUnknownError | None = None
        self._torn = 0

    def is_final(self, error: StoreError) -> bool:
        """Whether trying again would mend nothing."""
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
        so_far = _SoFar()
        while True:
            try:
                outcome = await self._try(edit, so_far, deadline)
                if outcome is not None:
                    return outcome
                # Taken, as the store says; only the next read proves it.
                continue
            except StoreOutcomeUnknownError as error:
                failure: StoreError = error
                so_far.unknown = error
            except StoreError as error:
                failure = so_far.unknown or error
                if so_far.is_final(error):
                    raise failure from error
            if self._monotonic() + pause_s >= deadline:
                raise failure
            await self._sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _try(
        self, edit: Callable[[Document | None], Document | None], so_far: _SoFar, deadline: float
    ) -> Outcome | None:
        """Read, and write what is still wanted; None after a write, which is to be read back."""
        stored = await self._read_stored(deadline)
        current = self._parse(stored)
        wanted = edit(current)
        if wanted is None or wanted == current:
            if so_far.wrote and stored is not None:
                # After the change that made the document. What it finds holds for the next one: this one is
                # done, and without its key there would be no token.
                with contextlib.suppress(StoreError):
                    await self._probe(stored, deadline)
            before = so_far.before if so_far.wrote else current
            return Outcome(before=before, after=current, wrote=so_far.wrote)
        so_far.unknown = None
        await self._probe(stored, deadline)
        so_far.before, so_far.wrote = current, True
        etag = stored.etag if stored else None
        await self._write(wanted.render(), etag if self._conditional else ANY_CONTENT, deadline)
        so_far.unknown = StoreOutcomeUnknownError(
            "the JWKS was written and could not be read back in time; a later read will tell"
        )
        return None

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
            await self._write(stored.data, _NEVER_MATCHES, deadline)
        except StoreConflictError:
            self._probe_due = False
            return
        except StoreOutcomeUnknownError as error:
            # Whichever way it went, these bytes change nothing.
            raise StoreError(error.message, detail=error.detail) from error
        self._unconditional = UnconditionalStoreError(
            "the store ignores If-Match, so that two writers would lose each other's keys: use a store that "
            "honours it, or set keys.conditionalWrites = false if this is the only writer"
        )
        raise self._unconditional

    async def _read_stored(self, deadline: float) -> Stored | None:
        timed_out = StoreError("the store did not answer in time: see whether it can be reached from here")
        return await self._in_time(self._store.read(self._path), deadline, timed_out)

    async def _write(self, data: bytes, etag: str | None, deadline: float) -> None:
        timed_out = StoreOutcomeUnknownError("the store did not answer in time; a later read will tell")
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
