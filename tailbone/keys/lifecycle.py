"""KeyLifecycle: a folder's keys from start to close; with its parts the only writer of folder and JWKS."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tailbone.errors import (
    BadParameterError,
    KeyFileError,
    KeyStateError,
    StoreError,
    TailboneError,
)
from tailbone.jwks.publisher import Publisher
from tailbone.keys.changes import Changes
from tailbone.keys.knowledge import REVOKED_AFTER_S, Knowledge, Read
from tailbone.keys.listing import KeyInfo
from tailbone.keys.plan import plan
from tailbone.keys.record import OWN_PLACE, UNSETTLED_S, Phase
from tailbone.keys.settings import KeySettings
from tailbone.keys.settler import LOCK_S, POLL_S, Settler
from tailbone.keys.signing_key import ALGORITHMS, RSA_SIZES
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from tailbone.jwks.store import Store
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.housekeeping import Housekeeping
    from tailbone.keys.ring import KeyRing
    from tailbone.process.log import Logger

__all__ = ["KeyInfo", "KeyLifecycle", "KeySettings"]

_START_LOCK_S: Final = 2.0
_CLOSE_S: Final = 10.0
_LIST_S: Final = 3.0
"""How long a listing waits for the JWKS when there is a copy of it to show instead."""

_RETRY_S: Final = (1.0, 60.0)

_T = TypeVar("_T")
# The class has a method of that name.
_Lines = list[str]


class KeyLifecycle:
    """The keys of one folder and their publication.

    An async context manager: entering starts it, without waiting for the store. ``run`` keeps it going and
    is to run beside it; leaving waits for a change under way, then closes the store. Everything that has to
    be done follows from folder and document (see ``plan``), so that a kill needs no repair of its own.
    """

    def __init__(
        self,
        *,
        folder: KeyFolder,
        store: Store | None,
        path: str,
        settings: KeySettings,
        log: Logger,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Put the parts together.

        Args:
            folder: the key folder.
            store: where the JWKS lies; None publishes nothing, and the document is made of the folder's keys.
            path: the JWKS's path in the store.
            settings: as in force.
            log: for what happens to keys.
            clock: unix seconds.
            monotonic: seconds of a clock that is never set.
            sleep: how to wait.
        """
        self._folder = folder
        self._settings = settings
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._publisher: Publisher | None = None
        if store is not None:
            self._publisher = Publisher(
                store,
                path,
                max_age_s=settings.max_age_s,
                conditional=settings.conditional_writes,
                monotonic=monotonic,
                sleep=sleep,
            )
        place = self._publisher.place if self._publisher else OWN_PLACE
        self._known = Knowledge(place=place, settings=settings, clock=clock, monotonic=monotonic, log=log)
        self._settler = Settler(
            folder=folder,
            publisher=self._publisher,
            knowledge=self._known,
            settings=settings,
            log=log,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._changes = Changes(
            folder=folder,
            settler=self._settler,
            knowledge=self._known,
            read=self._read,
            look_soon=self._look_soon,
            monotonic=monotonic,
        )
        self._under_way: set[asyncio.Task[object]] = set()
        self._sync_error: TailboneError | None = None
        self._folder_error: TailboneError | None = None
        self._read_at: float | None = None
        self._waiting: frozenset[tuple[str, Phase]] = frozenset()
        self._next_sync = monotonic()
        self._retry_s = _RETRY_S[0]

    # --- what others read

    @property
    def ring(self) -> KeyRing:
        """Which key signs now, and which are published: a value that is swapped as a whole."""
        return self._known.ring

    def published_document(self) -> bytes | None:
        """The last good copy of the published JWKS; without a bucket or a copy, the folder's published keys.

        None before there is either: nobody may keep that there were no keys.
        """
        own = self._known.own_document()
        document = self._known.copy or (own if own.keys or self._known.is_own else None)
        return document.render() if document else None

    def reasons(self) -> _Lines:
        """Why no token can be signed now; empty when one can."""
        obstacles = self._known.obstacles()
        return [*obstacles, *self._troubles()] if obstacles else []

    def notes(self) -> _Lines:
        """What somebody should know although tokens are signed."""
        notes = self._troubles()
        if self._publisher is not None and isinstance(self._sync_error, StoreError):
            if self._read_at is None:
                notes.append("jwks: stale: not read since the start")
            else:
                notes.append(f"jwks: stale: last read {self._monotonic() - self._read_at:.0f} s ago")
        return notes

    async def list(self) -> tuple[KeyInfo, ...]:
        """The keys of the JWKS and own keys on their way into it, the oldest first.

        Raises:
            StoreError: the JWKS cannot be read now, and there is no copy of it.
        """
        copy = self._known.copy
        try:
            async with asyncio.timeout(_LIST_S if copy else None):
                seen = await self._read()
        except (StoreError, TimeoutError):
            if copy is None:
                raise
            return self._known.listing(copy)
        return self._known.listing(seen.document)

    # --- its life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Take over the folder, or make its first key; neither waits for the store nor fails because of it.

        Nothing is published before ``sync`` or ``run``.

        Raises:
            KeyFileError: the folder cannot be used, or everybody can read a private key in it.
        """
        self._known.first_wanted = True
        await in_thread(self._folder.prepare)
        await self._take_over()
        await self._settler.load_copy()
        if self._settings.activate_after_s < self._settings.max_age_s:
            self._log.warning(
                "keys.activateAfter is less than keys.maxAge: caches may lack a key that signs already",
                activate_after_s=self._settings.activate_after_s,
                max_age_s=self._settings.max_age_s,
            )
        self._known.refresh()
        with contextlib.suppress(KeyStateError):
            # Another process is in the middle of a change: run will do the rest.
            async with self._settler.locked(_START_LOCK_S) as deadline:
                await in_thread(self._folder.clear_temporaries)
                await self._settler.settle(None, deadline=deadline)

    async def _take_over(self) -> None:
        await self._settler.rescan()
        for entry in self._known.entries:
            if entry.unsafe:
                raise KeyFileError(f"{entry.kid}: {entry.fault}")

    async def run(self) -> None:
        """Keep folder, document and ring in step, until cancelled."""
        syncing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await self.tick()
                if self._monotonic() >= self._next_sync and (syncing is None or syncing.done()):
                    syncing = group.create_task(self.sync())
                await self._sleep(POLL_S)

    async def close(self, grace_s: float = _CLOSE_S) -> None:
        """Wait for changes under way, cut them off after a while, and close the store; idempotent.

        Args:
            grace_s: how long to wait, in seconds; what is cut off is finished or undone by the next start.
        """
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=grace_s)
            for change in late:
                change.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._publisher is not None:
            await self._publisher.close()

    async def tick(self) -> None:
        """Notice changes of the folder, and do what the time asks for; never waits for the store."""
        try:
            if await in_thread(self._folder.changed):
                await self._settler.rescan()
            self._known.refresh()
            if plan(self._known.facts(None)) and not self._settler.busy:
                async with self._settler.locked(0.0) as deadline:
                    await self._settler.settle(None, deadline=deadline)
            self._folder_error = None
        except KeyStateError as busy:
            # Another process is in the middle of a change: the next tick comes soon.
            self._log.debug(busy.message)
        except Exception as unexpected:  # noqa: BLE001  logged with its traceback, and told by reasons and notes
            error = self._told(unexpected)
            self._warn_anew(self._folder_error, error)
            self._folder_error = error
        waiting = self._waiting_for_read()
        if waiting - self._waiting:
            self._next_sync = self._monotonic()
        self._waiting = waiting

    async def sync(self) -> None:
        """Read the document, and do what it asks for; a failure is kept for ``reasons`` and tried again."""
        try:
            # The folder's changes are another process's to publish, where that one has the store.
            seen = None if self._known.follows else await self._read()
            self._known.refresh()
            if plan(self._known.facts(seen)):
                async with self._settler.locked(LOCK_S) as deadline:
                    await self._settler.settle(seen and await self._read(), deadline=deadline)
        except Exception as unexpected:  # noqa: BLE001  logged with its traceback, and told by reasons and notes
            error = self._told(unexpected)
            self._warn_anew(self._sync_error, error)
            self._sync_error = error
            self._next_sync = self._monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
            return
        if self._sync_error is not None:
            self._log.info("the JWKS can be read again")
        self._sync_error = None
        self._retry_s = _RETRY_S[0]
        self._next_sync = self._monotonic() + self._sync_pause_s()

    async def _read(self, *, until: float | None = None) -> Read:
        started = self._monotonic()
        seen = await self._settler.read(until=until)
        self._read_at = started
        return seen

    def _look_soon(self) -> None:
        self._next_sync = self._monotonic()

    def _sync_pause_s(self) -> float:
        if self._known.missed:
            return REVOKED_AFTER_S
        if self._waiting_for_read():
            return min(UNSETTLED_S, self._settings.max_age_s)
        return self._settings.max_age_s

    def _waiting_for_read(self) -> frozenset[tuple[str, Phase]]:
        """Keys that only a read of the document brings further."""
        return frozenset(
            (entry.kid, phase)
            for entry in self._known.entries
            if not entry.fault and (phase := self._known.phase(entry)) in (Phase.PENDING, Phase.REMOVED)
        )

    def _told(self, error: Exception) -> TailboneError:
        """Make an error that people can be told: no fault of one try may end all that goes on without it."""
        if isinstance(error, TailboneError):
            return error
        self._log.error("unexpected failure of the keys' background work", exc_info=error)
        return KeyStateError(f"unexpected failure ({type(error).__name__}); the log has more")

    def _warn_anew(self, before: TailboneError | None, error: TailboneError) -> None:
        """Say what has just begun to be wrong, not at each try."""
        if before is None or before.message != error.message:
            self._log.warning(error.message, code=error.code, detail=error.detail)

    def _troubles(self) -> _Lines:
        found: _Lines = []
        if self._sync_error is not None:
            about = "jwks" if isinstance(self._sync_error, StoreError) else "keys"
            found.append(f"{about}: {self._sync_error.message}")
        if self._folder_error is not None:
            found.append(f"keys: {self._folder_error.message}")
        return found

    # --- changes that somebody asks for

    async def generate(self, algorithm: str | None = None, size: int | None = None) -> KeyInfo:
        """Make a key and publish it; it signs when the JWKS's caches have run out.

        Args:
            algorithm: RS256 or ES256; None for the settings'.
            size: bits of an RSA key; None for the settings'.

        Raises:
            BadParameterError: no such algorithm or size.
            KeyStateError: another change is under way, or the JWKS is full.
            KeyFileError: the folder cannot be written.
            StoreError: the key could not be published; its pair is gone again.
            StoreOutcomeUnknownError: the key may have been published; a later read decides.
        """
        wanted = algorithm or self._settings.algorithm
        kind = next((known for known in ALGORITHMS if known == wanted), None)
        if kind is None:
            raise BadParameterError(f"no such algorithm; allowed are {', '.join(ALGORITHMS)}")
        bits = self._settings.size if size is None else size
        if kind == "RS256" and bits not in RSA_SIZES:
            raise BadParameterError(f"no such size; allowed are {', '.join(map(str, RSA_SIZES))}")
        return await self._finishing(self._changes.generate(kind, bits))

    async def remove(self, kid: str) -> tuple[KeyInfo, ...]:
        """Take a key out of the JWKS, and delete its private half if it is an own one.

        When it was the signing key, the newest published one signs at once.

        Returns:
            The keys that are left.

        Raises:
            UnknownKeyError: neither the JWKS nor the folder holds such a key.
            KeyStateError: another change is under way.
            KeyFileError: the folder cannot be written.
            StoreError: nothing was changed.
            StoreOutcomeUnknownError: the key no longer signs; its removal ends when the store answers again.
        """
        return await self._finishing(self._changes.remove(kid))

    async def housekeeping(self, *, force: bool = False) -> Housekeeping:
        """Move keys that are no longer published to ``removed/``, and finish what was left half done.

        The lifecycle need not be started; no key is confirmed, chosen, retired or made.

        Args:
            force: also when the published JWKS is missing, empty, unreadable or holds none of the keys.

        Raises:
            KeyStateError: the JWKS looks wrong and ``force`` is not given, or another change is under way.
            KeyFileError: the folder cannot be written.
            StoreError: the JWKS could not be read and ``force`` is not given.
        """
        await self._take_over()
        return await self._finishing(self._changes.housekeep(force=force))

    async def housekeeping_to_do(self, *, force: bool = False) -> Housekeeping:
        """Say what ``housekeeping`` would do, and change nothing; the lifecycle need not be started.

        Raises:
            KeyStateError: as ``housekeeping``.
            KeyFileError: the folder cannot be read, or everybody can read a private key in it.
            StoreError: as ``housekeeping``.
        """
        await self._take_over()
        return await self._changes.housekeeping_to_do(force=force)

    async def _finishing(self, change: Coroutine[object, object, _T]) -> _T:
        """Let a change come to its end also when whoever asked for it has gone."""
        task = asyncio.ensure_future(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)
