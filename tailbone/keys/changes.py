"""Changes: generate, remove and housekeeping, as somebody asks for them; each under the folder's lock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from tailbone.errors import (
    KeyStateError,
    StoreError,
    StoreOutcomeUnknownError,
    TailboneError,
    UnknownKeyError,
)
from tailbone.jwks.document import Document
from tailbone.keys.housekeeping import Housekeeping, housekeeping_of
from tailbone.keys.knowledge import Read
from tailbone.keys.settler import LOCK_S
from tailbone.keys.steps import Publish
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.keys.folder import Entry, KeyFolder
    from tailbone.keys.knowledge import Knowledge
    from tailbone.keys.listing import KeyInfo
    from tailbone.keys.settler import Settler
    from tailbone.keys.signing_key import Algorithm

_PATIENCE_S: Final = 5.0
"""How long a change tries to read the JWKS before it says that it cannot."""


class Reading(Protocol):
    """Reads the document, as ``Settler.read`` does."""

    async def __call__(self, *, until: float | None = None) -> Read:
        """Give what was read."""


class Changes:
    """What people ask for; ``KeyLifecycle`` says what each does and raises."""

    def __init__(
        self,
        *,
        folder: KeyFolder,
        settler: Settler,
        knowledge: Knowledge,
        read: Reading,
        look_soon: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Take the parts; ``look_soon`` is called where only a later read tells what became of a change."""
        self._folder = folder
        self._settler = settler
        self._known = knowledge
        self._read = read
        self._look_soon = look_soon
        self._monotonic = monotonic

    async def generate(self, algorithm: Algorithm, size: int) -> KeyInfo:
        """See ``KeyLifecycle.generate``."""
        settler = self._settler
        async with settler.locked(LOCK_S) as deadline:
            self._refuse_to_follow()
            seen = await self._read(until=self._patience(deadline))
            key = await settler.make("asked", algorithm, size, seen.document)
            try:
                while not (seen := await settler.publish(Publish(put=(key,)), deadline)).has(key):
                    key = await settler.make("asked", algorithm, size, seen.document, instead_of=key)
            except (StoreOutcomeUnknownError, asyncio.CancelledError):
                # It may be published: a later read decides.
                self._look_soon()
                raise
            except BaseException:
                await settler.give_up(key.kid)
                raise
            await settler.settle(seen, deadline=deadline, asked=key.kid)
        ours = (info for info in self._known.listing(seen.document) if not info.foreign)
        return next(info for info in ours if info.key_id == key.kid)

    async def remove(self, kid: str) -> tuple[KeyInfo, ...]:
        """See ``KeyLifecycle.remove``."""
        settler = self._settler
        async with settler.locked(LOCK_S) as deadline:
            self._refuse_to_follow()
            seen = await self._read(until=self._patience(deadline))
            before = self._known.snapshot.entries
            entry = before.get(kid)
            signed = self._known.ring.signing
            if not (seen.document and seen.document.has_kid(kid)) and not (entry and entry.key):
                raise _not_removable(entry)
            try:
                if entry is not None:
                    await settler.prepare_removal(entry, seen, deadline)
                    # What cannot be read may be all that is left of a key: it is not deleted.
                    await settler.mark(entry, "delete" if entry.key else "set aside", seen)
                    await settler.rescan()
                    await settler.settle(None, deadline=deadline)
                    if entry.key is not None:
                        await entry.key.signed(max(0.0, deadline - self._monotonic()))
                    if signed is not None and signed.kid == kid:
                        await settler.wait_for_others()
                seen = await settler.publish(Publish(drop=((kid, ""),)), deadline)
            except (StoreOutcomeUnknownError, asyncio.CancelledError):
                # It may be gone: it signs no longer, and a later read ends it.
                self._look_soon()
                raise
            except BaseException:
                await settler.restore(before)
                raise
            await settler.settle(seen, deadline=deadline)
        self._known.first_wanted = False
        return self._known.listing(seen.document)

    async def housekeep(self, *, force: bool) -> Housekeeping:
        """See ``KeyLifecycle.housekeeping``."""
        settler = self._settler
        async with settler.locked(LOCK_S) as deadline:
            seen, unreadable = await self._read_for_housekeeping(self._patience(deadline), force=force)
            todo = housekeeping_of(self._known.entries, seen, force=force)
            await in_thread(self._folder.clear_temporaries)
            await settler.set_aside(todo.moved, seen)
            try:
                await settler.tidy(seen, deadline=deadline)
            except StoreError:
                if unreadable is None:
                    raise
        return todo

    async def housekeeping_to_do(self, *, force: bool) -> Housekeeping:
        """See ``KeyLifecycle.housekeeping_to_do``."""
        seen, _ = await self._read_for_housekeeping(self._monotonic() + _PATIENCE_S, force=force)
        todo = housekeeping_of(self._known.entries, seen, force=force)
        return msgspec.structs.replace(todo, dry_run=True)

    async def _read_for_housekeeping(self, until: float, *, force: bool) -> tuple[Read, StoreError | None]:
        try:
            return await self._settler.look(until=until), None
        except StoreError as error:
            if not force:
                raise
            return Read(Document.empty()), error

    def _patience(self, deadline: float) -> float:
        return min(self._monotonic() + _PATIENCE_S, deadline)

    def _refuse_to_follow(self) -> None:
        if not self._known.follows:
            return
        raise KeyStateError(
            f"the keys of this folder are published in {self._known.place}, and this process has no bucket: "
            "ask a process that publishes there, or set keys.bucket here as well"
        )


def _not_removable(entry: Entry | None) -> TailboneError:
    if entry is None:
        return UnknownKeyError("there is no key of that id")
    return KeyStateError(f"the files of this key cannot be used ({entry.fault}); mend or delete them by hand")
