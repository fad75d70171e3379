"""KeyLifecycle: the keys of a folder from start to close, and changes on request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from tailbone.algorithms import ALGORITHMS, NEW_RSA_BITS, Algorithm
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
from tailbone.keys import housekeeping
from tailbone.keys.listing import list_keys
from tailbone.keys.observer import Observer
from tailbone.keys.plan import plan_giving_up, plan_removal
from tailbone.keys.reconciler import POLL_S, Reconciler, Writer, new_signing_key
from tailbone.keys.record import Origin, Phase
from tailbone.keys.view import REVOCATION_CONFIRM_S, KeyRing, Read, own_document
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from types import TracebackType

    from tailbone.jwks.discovery import DiscoveryPublisher
    from tailbone.jwks.store import Store
    from tailbone.keys.folder import Entry, KeyFolder
    from tailbone.keys.housekeeping import Housekeeping
    from tailbone.keys.listing import KeyInfo
    from tailbone.keys.settings import KeySettings
    from tailbone.keys.signing_key import SigningKey
    from tailbone.process.log import Logger

_START_LOCK_S: Final = 2.0
_CLOSE_S: Final = 10.0
_LIST_S: Final = 3.0
"""How long a listing waits for the JWKS if the last good document can be shown instead."""

_UNFINISHED_S: Final = 60.0
"""The longest pause between two reads of the JWKS while a key is pending or being removed."""

_RETRY_S: Final = (1.0, 60.0)
_REMOVED_LATER: Final = "the key no longer signs, and leaves the JWKS when the store can be written again"

_T = TypeVar("_T")


class KeyLifecycle:
    """The keys of one folder and their publication.

    An async context manager. Entering starts it, without waiting for the store. Call ``run()`` in a
    background task while the context is open. Leaving waits for changes in progress, then closes the store.

    All work follows from folder and document (see ``plan``), so no repair is needed after a kill.
    """

    def __init__(
        self,
        *,
        folder: KeyFolder,
        store: Store | None,
        path: str,
        settings: KeySettings,
        log: Logger,
        changes: Logger | None = None,
        discovery: DiscoveryPublisher | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Assemble the lifecycle. No file is read before it starts.

        Args:
            folder: the key folder.
            store: contains the JWKS. If None, nothing is published, and the document is the folder's keys.
            path: the JWKS's path in the store.
            settings: the current settings.
            log: receives warnings, and errors of the background work.
            changes: receives a line for each change of a key; by default ``log``.
            discovery: publishes the discovery document in the same store; None if there is none.
            clock: returns Unix time in seconds.
            monotonic: returns seconds of a monotonic clock.
            sleep: waits this many seconds.
        """
        self._folder = folder
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
        self._observer = Observer(
            folder=folder,
            publisher=self._publisher,
            settings=settings,
            log=log,
            changes=changes or log,
            clock=clock,
            monotonic=monotonic,
        )
        self._reconciler = Reconciler(self._observer, sleep=sleep)
        self._generating = False
        self._changes: set[asyncio.Task[object]] = set()
        # The current failures of the background work: by "folder", "jwks" and "discovery".
        self._failures: dict[str, TailboneError] = {}
        self._next_sync = monotonic()
        self._retry_s = _RETRY_S[0]

    # --- state

    def set_expiry(self, expiry_s: float) -> None:
        """Change the longest lifetime of a token; a longer one counts once the signing key's record has it.

        Args:
            expiry_s: in seconds.
        """
        self._observer.settings = msgspec.structs.replace(self._observer.settings, expiry_s=expiry_s)

    @property
    def ring(self) -> KeyRing:
        """The key that signs now and the published keys; replaced as a whole."""
        return self._observer.ring

    def published_document(self) -> bytes | None:
        """Return the last good JWKS, or if there is none, the folder's published keys.

        None until one exists: an empty JWKS could be cached by verifiers.
        """
        if self._observer.last_good is not None:
            return self._observer.last_good.render()
        own = own_document(self._observer.snapshot, self._observer.location)
        is_published = self._publisher is None and not self._observer.read_only
        return own.render() if own.keys or is_published else None

    def reasons(self) -> list[Problem]:
        """Return why no token can be signed now; empty if tokens can be signed."""
        obstacles = self._observer.view().obstacles()
        return [*obstacles, *self._troubles()] if obstacles else []

    def notes(self) -> list[Problem]:
        """Return problems that do not stop token issuance."""
        notes = self._troubles()
        if self._publisher is not None and self._publisher.note:
            notes.append(_problem(self._publisher.note))
        if self._publisher is not None and isinstance(self._failures.get("jwks"), StoreError):
            passed_s = self._monotonic() - self._observer.read_at
            last = "not read since the start" if math.isinf(passed_s) else f"last read {passed_s:.0f} s ago"
            notes.append(Problem("jwks_stale", f"jwks: stale: {last}"))
        return notes

    @property
    def jwks_read_at(self) -> float | None:
        """When the last successful read of the published JWKS began, in Unix seconds; None before one."""
        observer = self._observer
        if math.isinf(observer.read_at):
            return None
        return observer.clock() - (self._monotonic() - observer.read_at)

    def known_keys(self) -> tuple[KeyInfo, ...]:
        """Return the same as ``list_keys``, by the last good JWKS, without a read."""
        last_good = self._observer.last_good
        return list_keys(self._observer.view(Read(last_good) if last_good else None))

    async def list_keys(self) -> tuple[KeyInfo, ...]:
        """Return the keys of the JWKS and own keys that are not in it yet, oldest first.

        Raises:
            StoreError: the JWKS cannot be read, and has never been read.
        """
        last_good = self._observer.last_good
        try:
            async with asyncio.timeout(_LIST_S if last_good else None):
                return list_keys(self._observer.view(await self._observer.read()))
        except (StoreError, TimeoutError):
            if last_good is None:
                raise
            return self.known_keys()

    # --- start, run, close

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Load the folder, or generate its first key, without using the store.

        Nothing is published before ``sync`` or ``run``.

        Raises:
            KeyFileError: the folder cannot be used, or everybody can read a private key in it.
        """
        await in_thread(self._folder.prepare)
        await self._load_folder()
        await self._observer.load_saved_copy()
        if self._observer.settings.activate_after_s < self._observer.settings.max_age_s:
            self._log.warning(
                "keys.activateAfter is less than keys.maxAge: caches may lack a key that signs already",
                activate_after_s=self._observer.settings.activate_after_s,
                max_age_s=self._observer.settings.max_age_s,
            )
        self._observer.refresh_ring()
        with contextlib.suppress(KeyStateError):
            # Another process is changing the folder; run() does the rest.
            async with self._reconciler.writing(_START_LOCK_S) as writer:
                await writer.clear_temporaries()
            await self._reconciler.reconcile(timeout_s=_START_LOCK_S)

    async def _load_folder(self) -> None:
        await self._observer.rescan()
        for entry in self._observer.snapshot.entries.values():
            if entry.unsafe:
                raise KeyFileError(f"{entry.kid}: {entry.fault}")

    async def run(self) -> None:
        """Keep folder, document and key ring in sync until cancelled."""
        syncing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await self.tick()
                if self._monotonic() >= self._next_sync and (syncing is None or syncing.done()):
                    syncing = group.create_task(self.sync())
                await self._sleep(POLL_S)

    async def close(self, grace_s: float = _CLOSE_S) -> None:
        """Wait for changes in progress, cancel those that take too long, and close the store; idempotent.

        Args:
            grace_s: how long to wait, in seconds. The next start finishes or undoes a cancelled change.
        """
        if self._changes:
            _, late = await asyncio.wait(self._changes, timeout=grace_s)
            for change in late:
                change.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._publisher is not None:
            await self._publisher.close()

    async def tick(self) -> None:
        """Load changes of the folder, and carry out steps that are due; never waits for the store."""
        with self._recording("folder"):
            before = self._observer.snapshot
            if await in_thread(self._folder.changed):
                await self._observer.rescan()
            try:
                # Before the ring is replaced, so that there is no gap if the signing key has vanished.
                await self._reconciler.reconcile(timeout_s=0.0)
            except KeyStateError as busy:
                # Another change is in progress: the next tick comes soon.
                self._log.debug(busy.message)
            finally:
                self._observer.refresh_ring()
            if self._observer.snapshot != before:
                # Another process on the folder may have changed the document, or this one may have to.
                self._sync_soon()

    async def sync(self) -> None:
        """Read the document, and carry out the plan. A failure is recorded and retried later."""
        failed_before = "jwks" in self._failures
        with self._recording("jwks"):
            last_read = await self._observer.read()
            self._observer.refresh_ring()
            await self._reconciler.reconcile(last_read)
        jwks = self._observer.last_good
        # The JWKS comes first, since a discovery document must not name one that does not exist.
        if self._discovery is not None and "jwks" not in self._failures and jwks is not None and jwks.keys:
            with self._recording("discovery"):
                await self._discovery.publish(jwks)
        if self._failures.keys() & {"jwks", "discovery"}:
            self._next_sync = self._monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
            return
        if failed_before:
            self._log.info("the JWKS can be read again")
        self._retry_s = _RETRY_S[0]
        self._next_sync = self._monotonic() + self._sync_pause_s()

    def _sync_soon(self) -> None:
        self._next_sync = self._monotonic()

    def _sync_pause_s(self) -> float:
        if self._observer.misses_keys:
            return REVOCATION_CONFIRM_S
        view = self._observer.view()
        if any(view.phase(entry) in (Phase.PENDING, Phase.REMOVING) for entry in view.usable):
            # These need a read of the document for their next step.
            return min(_UNFINISHED_S, self._observer.settings.max_age_s)
        return self._observer.settings.max_age_s

    @contextlib.contextmanager
    def _recording(self, what: str) -> Iterator[None]:
        """Record a failure for ``reasons`` and ``notes`` until the next success, and log it when it begins.

        One failure must not stop the background loop.
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

    def _troubles(self) -> list[Problem]:
        return [
            _problem(error, what if what == "discovery" else "") for what, error in self._failures.items()
        ]

    # --- changes on request

    async def generate(self, algorithm: str | None = None, size: int | None = None) -> KeyInfo:
        """Generate a key and publish it. It starts to sign when caches of the JWKS have expired.

        Args:
            algorithm: RS256 or ES256; None for the one in the settings.
            size: bits of an RSA key; None for the one in the settings.

        Raises:
            BadParameterError: the algorithm or size is not supported.
            GenerationUnderWayError: another key is being generated.
            KeyStateError: another change is in progress, or the JWKS is full.
            KeyFileError: the folder cannot be written.
            StoreError: the key could not be published, and was deleted.
            StoreOutcomeUnknownError: it is unknown whether the key was published; publication is retried once
                the store is reachable.
        """
        wanted = algorithm or self._observer.settings.algorithm
        kind = next((known for known in ALGORITHMS if known == wanted), None)
        if kind is None:
            raise BadParameterError(f"no such algorithm; allowed are {', '.join(ALGORITHMS)}")
        bits = self._observer.settings.size if size is None else size
        if kind == "RS256" and bits not in NEW_RSA_BITS:
            raise BadParameterError(f"no such size; allowed are {', '.join(map(str, NEW_RSA_BITS))}")
        if self._generating:
            raise GenerationUnderWayError("another key is being generated: try again when it is published")
        self._generating = True
        return await self._finish(self._run_generation(kind, bits))

    async def _run_generation(self, algorithm: Algorithm, size: int) -> KeyInfo:
        try:
            # Without the lock: a large RSA key takes seconds, and other changes need not wait for it.
            key = await new_signing_key(algorithm, size)
            async with self._reconciler.writing() as writer:
                await writer.read()
                kid = await self._add_and_publish(writer, key)
                while kid not in writer.view().entries:
                    # Another server has published this kid first. The plan has then removed the key
                    # (plan._resolve_absent), which is added again under another kid.
                    kid = await self._add_and_publish(writer, key)
                return next(info for info in list_keys(writer.view()) if info.key_id == kid)
        finally:
            self._generating = False

    async def _add_and_publish(self, writer: Writer, key: SigningKey) -> str:
        kid = await writer.add(key, Origin.REQUESTED)
        try:
            await writer.run_plan()
        except StoreOutcomeUnknownError:
            self._sync_soon()
            raise
        except (StoreError, KeyStateError):
            await writer.apply(plan_giving_up(writer.view(), kid))
            raise
        return kid

    async def remove(self, kid: str) -> tuple[KeyInfo, ...]:
        """Remove a key from the JWKS, and delete its files if it is an own key.

        If it was the signing key, the newest published key signs at once.

        Returns:
            The remaining keys.

        Raises:
            UnknownKeyError: neither the JWKS nor the folder contains such a key.
            KeyStateError: another change is in progress.
            KeyFileError: the folder cannot be written.
            StoreError: nothing was changed.
            StoreOutcomeUnknownError: the key no longer signs; it is removed from the JWKS once the store is
                reachable.
        """
        return await self._finish(self._run_removal(kid))

    async def _run_removal(self, kid: str) -> tuple[KeyInfo, ...]:
        async with self._reconciler.writing() as writer:
            # Checked first, so that a key does not stop signing for a change that the store would refuse.
            await writer.check_writable()
            view = writer.view()
            entry = view.entries.get(kid)
            if not (view.document and view.document.has_kid(kid)) and not (entry and entry.key):
                raise _not_removable(entry)
            try:
                await writer.apply(plan_removal(view, kid))
                await writer.run_plan()
            except StoreError as error:
                self._sync_soon()
                if entry is None or isinstance(error, StoreOutcomeUnknownError):
                    raise
                raise StoreOutcomeUnknownError(_REMOVED_LATER, detail=error.message) from error
            return list_keys(writer.view())

    async def housekeeping(self, *, force: bool = False, dry_run: bool = False) -> Housekeeping:
        """Bring the folder in line with the JWKS; see ``keys.housekeeping``. This need not be started.

        Args:
            force: proceed even if the JWKS is missing, empty, unreadable or has none of the folder's keys.
            dry_run: change nothing, and only return what would be done.

        Raises:
            KeyStateError: the JWKS looks wrong and ``force`` is not given, or another change is in progress.
            KeyFileError: the folder cannot be used, or everybody can read a private key in it.
            StoreError: the JWKS could not be read and ``force`` is not given.
        """
        await in_thread(self._folder.require)
        await self._load_folder()
        if dry_run:
            return await housekeeping.preview(self._observer, force=force)
        return await self._finish(housekeeping.clean_folder(self._observer, self._reconciler, force=force))

    async def _finish(self, change: Coroutine[object, object, _T]) -> _T:
        """Let a change finish even if its caller is cancelled."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)


def _problem(error: TailboneError, about: str = "") -> Problem:
    about = about or ("jwks" if isinstance(error, StoreError) else "keys")
    return Problem(error.code, f"{about}: {error.message}", error.public)


def _not_removable(entry: Entry | None) -> TailboneError:
    if entry is None:
        return UnknownKeyError("there is no key of that id")
    return KeyStateError(
        f"the files of this key cannot be used ({entry.fault}); repair or delete them by hand"
    )
