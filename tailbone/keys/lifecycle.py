"""KeyLifecycle: a folder's keys from start to close, and changes on request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from tailbone.errors import (
    BadParameterError,
    ForeignDocumentError,
    GenerationUnderWayError,
    KeyFileError,
    KeyStateError,
    Problem,
    StoreError,
    StoreOutcomeUnknownError,
    TailboneError,
    UnknownKeyError,
)
from tailbone.jwks.publisher import Publisher
from tailbone.keys.plan import (
    Housekeeping,
    housekeeping_of,
    plan,
    plan_giving_up,
    plan_removal,
    plan_tidying,
)
from tailbone.keys.reconciler import POLL_S, Reconciler, generate
from tailbone.keys.record import UNSETTLED_S, Phase
from tailbone.keys.settings import KeySettings
from tailbone.keys.signing_key import ALGORITHMS, RSA_SIZES
from tailbone.keys.view import TWO_LOOKS_S, KeyInfo, KeyRing, Read, own_document
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from tailbone.jwks.discovery import DiscoveryPublisher
    from tailbone.jwks.store import Store
    from tailbone.keys.folder import Entry, KeyFolder
    from tailbone.keys.signing_key import Algorithm, SigningKey
    from tailbone.process.log import Logger

__all__ = ["KeyInfo", "KeyLifecycle", "KeySettings"]

_START_LOCK_S: Final = 2.0
_CLOSE_S: Final = 10.0
_HOUSEKEEPING_READ_S: Final = 5.0
_LIST_S: Final = 3.0
"""How long a listing waits for the JWKS when there is a copy of it to show instead."""

_RETRY_S: Final = (1.0, 60.0)
_REMOVED_LATER: Final = "the key no longer signs, and leaves the JWKS when the store can be written again"

_T = TypeVar("_T")
# The class has a method of that name.
_Problems = list[Problem]


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
        discovery: DiscoveryPublisher | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Put the parts together.

        Args:
            folder: the key folder.
            store: where the JWKS is kept; None publishes nothing: the document is made of the folder's keys.
            path: the JWKS's path in the store.
            settings: as in force.
            log: for what happens to keys.
            discovery: publishes the discovery document in the same store; None if there is none.
            clock: unix seconds.
            monotonic: seconds of a clock that is never set.
            sleep: how to wait.
        """
        self._folder = folder
        self._settings = settings
        self._log = log
        self._discovery = discovery
        self._monotonic = monotonic
        self._sleep = sleep
        self._publisher: Publisher | None = None
        if store is not None:
            self._publisher = Publisher(
                store,
                path,
                max_age_s=settings.max_age_s,
                conditional=settings.conditional_writes,
                log=log,
                monotonic=monotonic,
                sleep=sleep,
            )
        self._reconciler = Reconciler(
            folder=folder,
            publisher=self._publisher,
            settings=settings,
            log=log,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._generating = False
        self._under_way: set[asyncio.Task[object]] = set()
        # What is wrong now, by what was being done: "folder", "jwks" and "discovery".
        self._failures: dict[str, TailboneError] = {}
        self._next_sync = monotonic()
        self._retry_s = _RETRY_S[0]

    # --- what others read

    @property
    def ring(self) -> KeyRing:
        """Which key signs now, and which are published: a value that is swapped as a whole."""
        return self._reconciler.ring

    def published_document(self) -> bytes | None:
        """Return the last good copy of the JWKS; without a bucket or a copy, the folder's published keys.

        None until one exists: an empty JWKS could be cached by verifiers.
        """
        if self._reconciler.copy is not None:
            return self._reconciler.copy.render()
        own = own_document(self._reconciler.snapshot, self._reconciler.place)
        is_published = self._publisher is None and not self._reconciler.follows
        return own.render() if own.keys or is_published else None

    def reasons(self) -> _Problems:
        """Return why no token can be signed now; empty when one can."""
        obstacles = self._reconciler.view().obstacles()
        return [*obstacles, *self._troubles()] if obstacles else []

    def notes(self) -> _Problems:
        """Return problems that do not stop the signing of tokens."""
        notes = self._troubles()
        if self._publisher is not None and self._publisher.note:
            notes.append(_problem(self._publisher.note))
        if self._publisher is not None and isinstance(self._failures.get("jwks"), StoreError):
            passed_s = self._monotonic() - self._reconciler.read_at
            last = "not read since the start" if math.isinf(passed_s) else f"last read {passed_s:.0f} s ago"
            notes.append(Problem("jwks_stale", f"jwks: stale: {last}"))
        return notes

    async def list(self) -> tuple[KeyInfo, ...]:
        """Return the keys of the JWKS and own keys on their way into it, the oldest first.

        Raises:
            StoreError: the JWKS cannot be read now, and there is no copy of it.
        """
        copy = self._reconciler.copy
        try:
            async with asyncio.timeout(_LIST_S if copy else None):
                seen = await self._reconciler.look()
        except (StoreError, TimeoutError):
            if copy is None:
                raise
            return self._listing()
        return self._reconciler.view(seen).listing()

    def _listing(self) -> tuple[KeyInfo, ...]:
        """List the keys of the last good copy."""
        return self._reconciler.view(Read(self._reconciler.copy)).listing()

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
        self._reconciler.first_wanted = True
        await in_thread(self._folder.prepare)
        await self._take_over()
        await in_thread(self._folder.join)
        await self._reconciler.load_copy()
        if self._settings.activate_after_s < self._settings.max_age_s:
            self._log.warning(
                "keys.activateAfter is less than keys.maxAge: caches may lack a key that signs already",
                activate_after_s=self._settings.activate_after_s,
                max_age_s=self._settings.max_age_s,
            )
        self._reconciler.refresh()
        with contextlib.suppress(KeyStateError):
            # Another process is in the middle of a change: run will do the rest.
            async with self._reconciler.writing(_START_LOCK_S) as writer:
                await writer.clear_temporaries()
            await self._reconciler.reconcile(read=False, timeout_s=_START_LOCK_S)

    async def _take_over(self) -> None:
        await self._reconciler.rescan()
        for entry in self._reconciler.snapshot.entries.values():
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
        self._folder.leave()
        if self._publisher is not None:
            await self._publisher.close()

    async def tick(self) -> None:
        """Notice changes of the folder, and do what the time asks for; never waits for the store."""
        with self._kept_as("folder"):
            before = self._reconciler.snapshot
            if await in_thread(self._folder.changed):
                await self._reconciler.rescan()
            try:
                # Before the ring: a key that has vanished is followed by another one, without a gap.
                if plan(self._reconciler.view()):
                    await self._reconciler.reconcile(read=False, timeout_s=0.0)
            except KeyStateError as busy:
                # Another change is under way: the next tick comes soon.
                self._log.debug(busy.message)
            finally:
                self._reconciler.refresh()
            if self._reconciler.snapshot != before:
                # Perhaps another process on the folder has changed the document, or this one now has to.
                self._look_soon()

    async def sync(self) -> None:
        """Read the document, and do what it asks for; a failure is kept for ``reasons`` and tried again."""
        failed_before = "jwks" in self._failures
        with self._kept_as("jwks"):
            # The folder's changes are another process's to publish, where that one has the store.
            seen = None if self._reconciler.follows else await self._reconciler.read()
            self._reconciler.refresh()
            if plan(self._reconciler.view(seen)):
                await self._reconciler.reconcile(read=seen is not None)
        jwks = self._reconciler.copy
        # The JWKS comes first: a discovery document must not name one that does not exist.
        if self._discovery is not None and "jwks" not in self._failures and jwks is not None and jwks.keys:
            with self._kept_as("discovery"):
                await self._discovery.publish(jwks)
        if self._failures.keys() & {"jwks", "discovery"}:
            self._next_sync = self._monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
            return
        if failed_before:
            self._log.info("the JWKS can be read again")
        self._retry_s = _RETRY_S[0]
        self._next_sync = self._monotonic() + self._sync_pause_s()

    def _look_soon(self) -> None:
        self._next_sync = self._monotonic()

    def _sync_pause_s(self) -> float:
        if self._reconciler.missed:
            return TWO_LOOKS_S
        view = self._reconciler.view()
        if any(view.phase(entry) in (Phase.PENDING, Phase.REMOVING) for entry in view.usable):
            # Only a read of the document brings these further.
            return min(UNSETTLED_S, self._settings.max_age_s)
        return self._settings.max_age_s

    @contextlib.contextmanager
    def _kept_as(self, what: str) -> Iterator[None]:
        """Keep a failure for ``reasons`` and ``notes`` until it is over, and log it when it begins.

        No fault of one try may end all that goes on without it.
        """
        try:
            yield
        except Exception as error:  # noqa: BLE001  logged with its traceback, and shown by reasons and notes
            if not isinstance(error, TailboneError):
                self._log.error("unexpected failure of the keys' background work", exc_info=error)
                error = KeyStateError(f"unexpected failure ({type(error).__name__}); the log has more")
            before = self._failures.get(what)
            if before is None or before.message != error.message:
                is_lasting = isinstance(error, ForeignDocumentError)
                say = self._log.error if is_lasting else self._log.warning
                say(error.message, code=error.code, detail=error.detail)
            self._failures[what] = error
        else:
            self._failures.pop(what, None)

    def _troubles(self) -> _Problems:
        return [
            _problem(error, what if what == "discovery" else "") for what, error in self._failures.items()
        ]

    # --- changes on request

    async def generate(self, algorithm: str | None = None, size: int | None = None) -> KeyInfo:
        """Make a key and publish it; it signs when the JWKS's caches have run out.

        Args:
            algorithm: RS256 or ES256; None for the settings'.
            size: bits of an RSA key; None for the settings'.

        Raises:
            BadParameterError: no such algorithm or size.
            GenerationUnderWayError: another key is being generated.
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
        if self._generating:
            raise GenerationUnderWayError("another key is being generated: try again when it is published")
        self._generating = True
        return await self._finishing(self._generate(kind, bits))

    async def _generate(self, algorithm: Algorithm, size: int) -> KeyInfo:
        try:
            # Before the lock is taken: a large RSA key takes seconds, and other changes need not wait.
            kid = await self._publish_new(await generate(algorithm, size))
        finally:
            self._generating = False
        return next(info for info in self._listing() if info.key_id == kid and not info.foreign)

    async def _publish_new(self, key: SigningKey) -> str:
        async with self._reconciler.writing() as writer:
            self._refuse_to_follow()
            while True:
                seen = await self._reconciler.read(until=writer.patience)
                kid = await writer.add(key, "asked", seen)
                try:
                    await writer.reconcile(seen, asked=kid)
                except StoreOutcomeUnknownError:
                    # It may be published: a later read decides.
                    self._look_soon()
                    raise
                except (StoreError, KeyStateError):
                    await writer.do(plan_giving_up(self._reconciler.view(), kid))
                    raise
                if kid in self._reconciler.snapshot.entries:
                    return kid
                # Another server was first with this kid: the key gets another one.

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
        return await self._finishing(self._remove(kid))

    async def _remove(self, kid: str) -> tuple[KeyInfo, ...]:
        async with self._reconciler.writing() as writer:
            self._refuse_to_follow()
            # Before a key stops signing for the sake of a change that the store would not take.
            seen = await writer.rehearse()
            view = self._reconciler.view(seen)
            entry = view.entries.get(kid)
            if not (view.document and view.document.has_kid(kid)) and not (entry and entry.key):
                raise _not_removable(entry)
            self._reconciler.first_wanted = False
            if entry is not None:
                # What cannot be read may be all that is left of a key: it is not deleted.
                await writer.do(plan_removal(view, [kid], "delete" if entry.key else "set aside"))
            try:
                await writer.reconcile(seen, unwanted=kid)
            except StoreError as error:
                self._look_soon()
                if entry is None or isinstance(error, StoreOutcomeUnknownError):
                    raise
                raise StoreOutcomeUnknownError(_REMOVED_LATER, detail=error.message) from error
        return self._listing()

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
        await in_thread(self._folder.require)
        await self._take_over()
        return await self._finishing(self._housekeep(force=force))

    async def _housekeep(self, *, force: bool) -> Housekeeping:
        async with self._reconciler.writing() as writer:
            seen = await self._read_for_housekeeping(writer.patience, force=force)
            view = self._reconciler.view(seen)
            todo = housekeeping_of(view, force=force)
            await writer.clear_temporaries()
            await writer.do(plan_removal(view, todo.moved, "set aside"))
            await writer.reconcile(seen, planned=plan_tidying)
        return todo

    async def housekeeping_to_do(self, *, force: bool = False) -> Housekeeping:
        """Return what ``housekeeping`` would do, and change nothing; the lifecycle need not be started.

        Raises:
            KeyStateError: as ``housekeeping``.
            KeyFileError: the folder cannot be read, or everybody can read a private key in it.
            StoreError: as ``housekeeping``.
        """
        await in_thread(self._folder.require)
        await self._take_over()
        until = self._monotonic() + _HOUSEKEEPING_READ_S
        seen = await self._read_for_housekeeping(until, force=force)
        todo = housekeeping_of(self._reconciler.view(seen), force=force)
        return msgspec.structs.replace(todo, dry_run=True)

    async def _read_for_housekeeping(self, until: float, *, force: bool) -> Read:
        try:
            return await self._reconciler.look(until=until)
        except StoreError:
            if not force:
                raise
            return Read(None)

    def _refuse_to_follow(self) -> None:
        if self._reconciler.follows:
            raise KeyStateError(
                f"the keys of this folder are published in {self._reconciler.place}, and this process has no "
                "bucket: ask a process that publishes there, or set keys.bucket here as well"
            )

    async def _finishing(self, change: Coroutine[object, object, _T]) -> _T:
        """Let a change finish even if its caller goes away."""
        task = asyncio.ensure_future(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)


def _problem(error: TailboneError, about: str = "") -> Problem:
    about = about or ("jwks" if isinstance(error, StoreError) else "keys")
    return Problem(error.code, f"{about}: {error.message}")


def _not_removable(entry: Entry | None) -> TailboneError:
    if entry is None:
        return UnknownKeyError("there is no key of that id")
    return KeyStateError(
        f"the files of this key cannot be used ({entry.fault}); repair or delete them by hand"
    )
