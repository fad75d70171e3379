"""KeyLifecycle: generate, activate, retire, remove, housekeeping; the only writer of folder and JWKS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import time
from typing import TYPE_CHECKING, Final, Self, TypeVar

import msgspec

from tailbone.errors import (
    BadParameterError,
    KeyFileError,
    KeyStateError,
    StoreError,
    StoreOutcomeUnknownError,
    TailboneError,
    UnknownKeyError,
)
from tailbone.jwks.document import Document
from tailbone.jwks.publisher import Publisher
from tailbone.keys.folder import REMOVED, KeyFolder, Snapshot
from tailbone.keys.listing import KeyInfo, describe, describe_foreign
from tailbone.keys.plan import (
    UNSETTLED_S,
    Clear,
    Facts,
    KeySettings,
    Make,
    Publish,
    Step,
    WritePublic,
    WriteState,
    age,
    plan,
    signing_entry,
)
from tailbone.keys.ring import KeyRing
from tailbone.keys.signing_key import ALGORITHMS, RSA_SIZES, Algorithm, SigningKey
from tailbone.keys.state import KeyState, Origin, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from types import TracebackType

    from tailbone.jwks.store import Store
    from tailbone.keys.durable import ProcessLock
    from tailbone.keys.folder import Entry
    from tailbone.log import Logger

__all__ = ["Housekeeping", "KeyInfo", "KeyLifecycle", "KeySettings"]

OWN_PLACE: Final = "the server itself"
"""The place of the document without a bucket."""

_CHANGE_S: Final = 25.0
_START_LOCK_S: Final = 2.0
_LOCK_PAUSE_S: Final = 0.02
_POLL_S: Final = 0.5
_REVOKED_AFTER_S: Final = 30.0
_RETRY_S: Final = (1.0, 60.0)
# Each round does at least one step that no later round undoes; more rounds than this are a fault of the plan.
_MOST_ROUNDS: Final = 50
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]+")

_T = TypeVar("_T")


class Housekeeping(msgspec.Struct, frozen=True, kw_only=True):
    """What housekeeping did, or would do.

    Attributes:
        moved: kids whose files went to ``removed/``.
        kept: kids that stay.
        faulty: files that cannot be used and were left alone: kid and why.
        dry_run: nothing was changed.
    """

    moved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    faulty: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False


class KeyLifecycle:
    """The keys of one folder and their publication.

    An async context manager: entering starts it, without waiting for the store. ``run`` keeps it going and is to run
    beside it; leaving waits for a change under way, then closes the store. Everything that has to be done follows
    from folder and document (see ``plan``), so that a kill at any moment needs no repair of its own.
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
        self._publisher = store and Publisher(
            store,
            path,
            max_age_s=settings.max_age_s,
            conditional=settings.conditional_writes,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._place = self._publisher.place if self._publisher else OWN_PLACE
        self._snapshot = Snapshot()
        self._ring = KeyRing()
        self._copy: Document | None = None
        self._prior = ""
        self._first_wanted = True
        self._made: set[str] = set()
        # Kids put into the document during this change: without a bucket, and into one that held no key.
        self._put: set[str] = set()
        self._unread: set[str] = set()
        self._absent: dict[str, float] = {}
        self._revoked: frozenset[str] = frozenset()
        self._busy = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._changes: set[asyncio.Task[object]] = set()
        self._store_error: TailboneError | None = None
        self._folder_error: TailboneError | None = None
        self._read_at: float | None = None
        self._next_sync = 0.0
        self._retry_s = _RETRY_S[0]
        self._said: set[str] = set()

    # --- what others read

    @property
    def ring(self) -> KeyRing:
        """Which key signs now, and which are published: a value that is swapped as a whole."""
        return self._ring

    def published_document(self) -> bytes:
        """The last good copy of the published JWKS; without a bucket, the folder's own keys."""
        return self._own_document().render() if self._copy is None else self._copy.render()

    def reasons(self) -> list[str]:
        """Why no token can be signed now; empty when one can."""
        if self._ring.signing is not None:
            return []
        reasons = []
        for entry in sorted(self._snapshot.entries.values(), key=age):
            if entry.fault:
                reasons.append(f"keys: {entry.kid} cannot be used: {entry.fault}")
            elif entry.state is None or entry.state.phase(self._place, self._clock()) is Phase.PENDING:
                reasons.append(f"keys: {entry.kid} is not published yet")
            elif entry.state.phase(self._place, self._clock()) is Phase.PUBLISHED:
                wait_s = max(0.0, entry.state.signs_from - self._clock())
                reasons.append(f"keys: {entry.kid} is published and signs in {wait_s:.0f} s")
        return [*(reasons or ["keys: there is no signing key"]), *self._troubles()]

    def notes(self) -> list[str]:
        """What somebody should know although tokens are signed."""
        notes = self._troubles()
        if self._publisher and self._store_error is not None and self._read_at is not None:
            notes.append(f"jwks: stale: last read {self._monotonic() - self._read_at:.0f} s ago")
        elif self._publisher and self._read_at is None:
            notes.append("jwks: stale: not read since the start")
        return notes

    def _troubles(self) -> list[str]:
        found = []
        if self._store_error is not None:
            found.append(f"jwks: {self._store_error.message}")
        if self._folder_error is not None:
            found.append(f"keys: {self._folder_error.message}")
        return found

    async def list(self) -> tuple[KeyInfo, ...]:
        """The keys of the JWKS and own keys on their way into it, the oldest first.

        Raises:
            StoreError: the JWKS could not be read now, and never was since the start.
        """
        if self._publisher is not None:
            try:
                self._copy = await self._publisher.read() or self._copy
            except StoreError:
                if self._copy is None:
                    raise
        return self._listing()

    # --- a life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self, *, first_key: bool = True) -> None:
        """Take over the folder; neither waits for the store nor fails because of it.

        Args:
            first_key: whether an empty folder gets a key.

        Raises:
            KeyFileError: the folder cannot be used, or everybody can read a private key in it.
        """
        self._first_wanted = first_key
        await asyncio.to_thread(self._folder.prepare)
        await self._rescan()
        for entry in self._snapshot.entries.values():
            if entry.unsafe:
                raise KeyFileError(f"{entry.kid}: {entry.fault}")
        await self._load_copy()
        if self._settings.activate_after_s < self._settings.max_age_s:
            self._log.warning(
                "keys.activateAfter is less than keys.maxAge: tokens may be signed by keys that caches do not have",
                activate_after_s=self._settings.activate_after_s,
                max_age_s=self._settings.max_age_s,
            )
        self._refresh()
        with contextlib.suppress(KeyStateError):
            # Another process is in the middle of a change: run will do the rest.
            async with self._locked(_START_LOCK_S):
                await asyncio.to_thread(self._folder.clear_temporaries)
                await self._settle(None, deadline=self._monotonic() + _CHANGE_S)

    async def run(self) -> None:
        """Keep folder, document and ring in step, until cancelled."""
        syncing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                await self.tick()
                if self._monotonic() >= self._next_sync and (syncing is None or syncing.done()):
                    syncing = group.create_task(self.sync())
                await self._sleep(_POLL_S)

    async def close(self) -> None:
        """Wait for changes under way, each of which ends by itself, and close the store; idempotent."""
        if self._changes:
            await asyncio.wait(self._changes)
        if self._publisher is not None:
            await self._publisher.close()

    async def tick(self) -> None:
        """Notice changes of the folder, and do what the time asks for; never waits for the store."""
        try:
            if await asyncio.to_thread(self._folder.changed):
                await self._rescan()
                if any(entry.key and self._phase(entry) is not Phase.ACTIVE for entry in self._entries()):
                    self._next_sync = 0.0
            self._refresh()
            if plan(self._facts(None)) and not self._busy.locked():
                async with self._locked(0.0):
                    await self._settle(None, deadline=self._monotonic() + _CHANGE_S)
            self._folder_error = None
        except KeyStateError:
            # Another process is in the middle of a change: the next tick comes soon.
            return
        except KeyFileError as error:
            self._folder_error = error
            self._warn_once(error.message, detail=error.detail)

    async def sync(self) -> None:
        """Read the document, and do what it asks for; a failure is kept for ``reasons`` and tried again."""
        try:
            if self._publisher is None:
                async with self._locked(_CHANGE_S):
                    await self._settle(None, deadline=self._monotonic() + _CHANGE_S)
            else:
                await self._sync(self._publisher)
        except TailboneError as error:
            self._store_error = error
            self._warn_once(error.message, detail=error.detail)
            self._next_sync = self._monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _RETRY_S[1])
            return
        self._store_error = None
        self._retry_s = _RETRY_S[0]
        self._next_sync = self._monotonic() + self._sync_pause_s()

    async def _sync(self, publisher: Publisher) -> None:
        document = await self._read(publisher)
        self._refresh()
        if plan(self._facts(_Read(document))):
            deadline = self._monotonic() + _CHANGE_S
            async with self._locked(_CHANGE_S):
                await self._settle(_Read(await self._read(publisher)), deadline=deadline)

    def _sync_pause_s(self) -> float:
        if self._absent:
            return _REVOKED_AFTER_S
        if any(self._phase(entry) is Phase.PENDING for entry in self._entries() if entry.key):
            return min(UNSETTLED_S, self._settings.max_age_s)
        return self._settings.max_age_s

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
        bits = size or self._settings.size
        if kind == "RS256" and bits not in RSA_SIZES:
            raise BadParameterError(f"no such size; allowed are {', '.join(map(str, RSA_SIZES))}")
        return await self._finishing(self._generate(kind, bits))

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
            StoreOutcomeUnknownError: the key no longer signs; the removal ends when the store answers again.
        """
        return await self._finishing(self._remove(kid))

    async def housekeeping(self, *, force: bool = False, dry_run: bool = False) -> Housekeeping:
        """Move keys that are no longer published to ``removed/``, and finish what was left half done.

        Args:
            force: also when the published JWKS is missing, empty, unreadable or holds none of the folder's keys.
            dry_run: only say what would be moved.

        Raises:
            KeyStateError: the JWKS looks wrong and ``force`` is not given, or another change is under way.
            KeyFileError: the folder cannot be written.
            StoreError: the JWKS could not be read and ``force`` is not given.
        """
        return await self._finishing(self._housekeep(force=force, dry_run=dry_run))

    async def _generate(self, algorithm: Algorithm, size: int) -> KeyInfo:
        async with self._locked(_CHANGE_S) as deadline:
            document = await self._read(self._publisher) if self._publisher else self._own_document()
            key = await self._make("asked", algorithm, size, document)
            try:
                while not (seen := await self._publish(Publish(put=(key,)), deadline)).has(key):
                    key = await self._make("asked", algorithm, size, seen.document, instead_of=key)
            except StoreOutcomeUnknownError:
                self._next_sync = 0.0
                raise
            except BaseException:
                await self._give_up(key.kid)
                raise
            await self._settle(seen, deadline=deadline, asked=key.kid)
        return next(info for info in self._listing() if info.key_id == key.kid and not info.foreign)

    async def _remove(self, kid: str) -> tuple[KeyInfo, ...]:
        async with self._locked(_CHANGE_S) as deadline:
            document = await self._read(self._publisher) if self._publisher else self._own_document()
            published = document is not None and document.has_kid(kid)
            before = self._snapshot.entries
            entry = before.get(kid)
            if not published and (entry is None or entry.key is None):
                raise (
                    UnknownKeyError("there is no key of that id")
                    if entry is None
                    else KeyStateError(
                        f"the files of this key cannot be used ({entry.fault}); mend or delete them by hand"
                    )
                )
            try:
                await self._stop(entry, deadline)
                seen = await self._publish(Publish(drop=((kid, ""),)), deadline)
            except StoreOutcomeUnknownError:
                self._next_sync = 0.0
                raise
            except BaseException:
                await self._restore(before)
                raise
            await self._settle(seen, deadline=deadline)
        return self._listing()

    async def _housekeep(self, *, force: bool, dry_run: bool) -> Housekeeping:
        async with self._locked(_CHANGE_S) as deadline:
            try:
                document = await self._read(self._publisher) if self._publisher else self._own_document()
            except StoreError:
                if not force:
                    raise
                document = Document.empty()
            usable = [entry for entry in self._entries() if entry.key]
            gone = [entry for entry in usable if not _stands(entry, document) and not self._is_new(entry)]
            if not force:
                _refuse_odd(document, usable, gone)
            if not dry_run:
                for entry in gone:
                    await self._mark(entry, "set aside")
                await self._rescan()
                await self._settle(_Read(document), deadline=deadline)
        moved = tuple(entry.kid for entry in gone)
        return Housekeeping(
            moved=moved,
            kept=tuple(entry.kid for entry in usable if entry.kid not in moved),
            faulty=tuple((entry.kid, entry.fault) for entry in self._entries() if entry.fault),
            dry_run=dry_run,
        )

    def _is_new(self, entry: Entry) -> bool:
        """Whether the key was made here and never published: it is on its way in, not out."""
        return entry.state is not None and entry.state.origin != "adopted" and not entry.state.place

    # --- how changes are made

    async def _finishing(self, change: Coroutine[object, object, _T]) -> _T:
        """Let a change come to its end also when whoever asked for it has gone."""
        task = asyncio.ensure_future(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    @contextlib.asynccontextmanager
    async def _locked(self, timeout_s: float) -> AsyncIterator[float]:
        """Keep every other change of the folder out, of this process and of others.

        Yields:
            When the change has to be over, on the monotonic clock.

        Raises:
            KeyStateError: another change took longer than ``timeout_s``.
        """
        started = self._monotonic()
        busy = KeyStateError("another change of the keys is still under way: try again in half a minute")
        try:
            async with asyncio.timeout(timeout_s or 0.001):
                await self._busy.acquire()
        except TimeoutError:
            raise busy from None
        try:
            lock = self._folder.lock()
            while not await self._try_lock(lock):
                if self._monotonic() - started >= timeout_s:
                    raise busy
                await self._sleep(_LOCK_PAUSE_S)
            try:
                await self._rescan()
                yield started + _CHANGE_S
            finally:
                self._put.clear()
                self._unread.clear()
                lock.release()
        finally:
            self._busy.release()

    async def _try_lock(self, lock: ProcessLock) -> bool:
        try:
            return await asyncio.to_thread(lock.try_acquire)
        except OSError as error:
            raise KeyFileError(
                f"cannot lock the key folder: {error.strerror or 'input/output error'}", detail=str(error)
            ) from error

    async def _settle(self, seen: _Read | None, *, deadline: float, asked: str = "") -> None:
        """Do all that is to be done; only while locked.

        Args:
            seen: the document as it was read just now; None plans only what needs no read.
            deadline: on the monotonic clock.
            asked: the key that is being generated.
        """
        for _ in range(_MOST_ROUNDS):
            self._refresh()
            steps = plan(self._facts(seen, asked=asked))
            if not steps:
                break
            for step in steps:
                seen = await self._do(step, seen, deadline)
            await self._rescan()
        else:
            raise KeyStateError("the keys do not settle; this is a fault of the program")
        self._prior = self._ring.signing.kid if self._ring.signing else ""
        if self._ring.published:
            self._first_wanted = False

    async def _do(self, step: Step, seen: _Read | None, deadline: float) -> _Read | None:
        match step:
            case WriteState():
                if step.state.removing == "set aside":
                    self._first_wanted = True
                await asyncio.to_thread(self._folder.write_state, step.kid, step.state)
                say = self._log.warning if step.warn else self._log.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await asyncio.to_thread(self._folder.write_public, step.key)
            case Clear():
                await self._clear(step)
            case Make():
                document = seen.document if seen else None
                await self._make(step.origin, self._settings.algorithm, self._settings.size, document)
            case Publish():
                return await self._publish(step, deadline)
        return seen

    async def _clear(self, step: Clear) -> None:
        if step.how == "delete":
            await asyncio.to_thread(self._folder.delete, step.entry)
            self._log.info("key is removed", kid=step.entry.kid)
        else:
            await asyncio.to_thread(self._folder.set_aside, step.entry)
            self._log.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)

    async def _publish(self, step: Publish, deadline: float) -> _Read:
        """Change the document and read it back."""
        if self._publisher is None:
            if not self._own_document().keys:
                self._unread.update(key.kid for key in step.put)
            self._put.update(key.kid for key in step.put)
            await self._rescan()
            return _Read(self._own_document())
        outcome = await self._publisher.change(step.edit, deadline=deadline)
        if outcome.wrote and not (outcome.before and outcome.before.keys):
            self._unread.update(key.kid for key in step.put)
        await self._note(outcome.after, self._monotonic(), self._clock())
        return _Read(outcome.after)

    async def _make(
        self,
        origin: Origin,
        algorithm: Algorithm,
        size: int,
        document: Document | None,
        *,
        instead_of: SigningKey | None = None,
    ) -> SigningKey:
        """Make a key under a kid that nobody has, and write its pair."""
        now = self._clock()
        newest = max((age(entry)[0] for entry in self._entries()), default=0.0)
        # A clock that was set back must not make a key that looks older than the one it follows.
        created_at = max(int(now), int(newest) + 1 if newest > now + 1 else 0)
        kid = self._free_kid(created_at, document)
        self._made.add(kid)
        if instead_of is not None:
            await self._give_up(instead_of.kid)
            key = instead_of.renamed(kid)
        else:
            key = await asyncio.to_thread(
                SigningKey.generate, kid, algorithm=algorithm, size=size, created_at=created_at
            )
        state = KeyState(thumbprint=key.thumbprint, origin=origin, since=now)
        try:
            await asyncio.to_thread(self._folder.add, key, state)
        except BaseException:
            await self._give_up(kid)
            raise
        await self._rescan()
        self._log.info("key is made", kid=kid, algorithm=algorithm, size=key.size, origin=origin)
        return key

    def _free_kid(self, created_at: int, document: Document | None) -> str:
        if not _PREFIX.fullmatch(self._settings.prefix):
            raise BadParameterError("key.prefix may hold letters, digits and . _ - only, and not be empty")
        kid = f"{self._settings.prefix}-{created_at}"
        taken = self._made | self._snapshot.entries.keys()
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{self._settings.prefix}-{created_at}-{secrets.token_hex(2)}"
        return kid

    async def _give_up(self, kid: str) -> None:
        """Delete a pair that was made and is not wanted."""
        await self._rescan()
        entry = self._snapshot.entries.get(kid)
        if entry is None:
            return
        if entry.state is not None:
            await self._mark(entry, "delete")
        await asyncio.to_thread(self._folder.delete, entry)
        await self._rescan()
        self._refresh()

    async def _mark(self, entry: Entry, removing: str) -> None:
        """Write that a key is on its way out."""
        state = entry.state
        if state is None and entry.key is not None:
            state = KeyState(thumbprint=entry.key.thumbprint, origin="adopted", since=self._clock())
        if state is not None:
            marked = msgspec.structs.replace(
                state, removing="set aside" if removing == "set aside" else "delete"
            )
            await asyncio.to_thread(self._folder.write_state, entry.kid, marked)

    async def _stop(self, entry: Entry | None, deadline: float) -> None:
        """Let an own key sign no longer, before anything else is done to it."""
        if entry is not None and entry.key is not None:
            await self._mark(entry, "delete")
            await self._rescan()
            await self._settle(None, deadline=deadline)

    async def _restore(self, before: dict[str, Entry]) -> None:
        """Write the states back that a change that failed had written."""
        await self._rescan()
        for kid, entry in self._snapshot.entries.items():
            old = before.get(kid)
            if old is not None and old.state is not None and old.state != entry.state:
                await asyncio.to_thread(self._folder.write_state, kid, old.state)
        await self._rescan()
        self._refresh()

    # --- what is known

    def _entries(self) -> tuple[Entry, ...]:
        return tuple(self._snapshot.entries.values())

    def _phase(self, entry: Entry) -> Phase:
        return entry.state.phase(self._place, self._clock()) if entry.state else Phase.PENDING

    def _facts(self, seen: _Read | None, *, asked: str = "") -> Facts:
        if self._publisher is None:
            seen = _Read(self._own_document())
        return Facts(
            now=self._clock(),
            place=self._place,
            settings=self._settings,
            entries=self._snapshot.entries,
            read=seen is not None,
            document=seen.document if seen else None,
            own_document=self._publisher is None,
            revoked=self._revoked,
            unread=frozenset(self._unread),
            asked=asked,
            prior=self._prior,
            first_wanted=self._first_wanted,
        )

    def _own_document(self) -> Document:
        """The folder's own published keys: the document itself without a bucket."""
        published = [
            entry.key.public_jwk()
            for entry in sorted(self._entries(), key=age)
            if entry.key
            and (
                self._phase(entry) in (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
                or (entry.kid in self._put and self._phase(entry) is Phase.PENDING)
            )
        ]
        return Document({"keys": published})

    async def _rescan(self) -> None:
        async with self._scanning:
            self._snapshot = await asyncio.to_thread(self._folder.scan)
        if self._snapshot.warning:
            self._warn_once(self._snapshot.warning)
        for entry in self._entries():
            if entry.fault:
                self._warn_once(f"key cannot be used: {entry.fault}", kid=entry.kid)
            elif entry.warning:
                self._warn_once(entry.warning, kid=entry.kid)

    def _refresh(self) -> None:
        """Swap the ring for the one that folder and time give."""
        facts = self._facts(None)
        entry = signing_entry(facts)
        published = [
            other.key
            for other in sorted(self._entries(), key=age, reverse=True)
            if other.key and self._phase(other) in (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
        ]
        before = self._ring.signing
        self._ring = KeyRing(signing=entry.key if entry else None, published=tuple(published))
        after = self._ring.signing
        if after is not None:
            self._prior = after.kid
        if (before and before.kid) != (after and after.kid):
            self._log.info(
                "signing key changed", kid=after.kid if after else "", before=before.kid if before else ""
            )

    async def _read(self, publisher: Publisher) -> Document | None:
        started, started_at = self._monotonic(), self._clock()
        document = await publisher.read()
        await self._note(document, started, started_at)
        return document

    async def _note(self, document: Document | None, started: float, started_at: float) -> None:
        """Remember a good read: the copy, and own confirmed keys that it does not show."""
        self._read_at = started
        if document is None:
            self._absent.clear()
            self._revoked = frozenset()
            return
        if document != self._copy:
            for warning in document.warnings():
                self._warn_once(warning)
            self._copy = document
            kept = msgspec.json.encode({"place": self._place, "document": document.render().decode()})
            await asyncio.to_thread(self._folder.write_last_published, kept)
        absent = {
            entry.kid
            for entry in self._entries()
            if entry.key
            and entry.state
            and self._phase(entry) in (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
            and entry.state.confirmed_at < started_at
            and not document.has(entry.kid, entry.key.thumbprint)
        }
        self._absent = {kid: self._absent.get(kid, started) for kid in absent}
        self._revoked = frozenset(
            kid for kid, since in self._absent.items() if started - since >= _REVOKED_AFTER_S
        )

    async def _load_copy(self) -> None:
        data = await asyncio.to_thread(self._folder.read_last_published)
        if data is None or self._publisher is None:
            return
        try:
            kept = msgspec.json.decode(data, type=dict[str, str])
            if kept.get("place") == self._place:
                self._copy = Document.parse(kept.get("document", "").encode())
        except (msgspec.DecodeError, TailboneError):
            self._log.warning("the kept copy of the JWKS is damaged, and left out")

    def _listing(self) -> tuple[KeyInfo, ...]:
        document = self._copy if self._publisher else self._own_document()
        now, signing = self._clock(), self._ring.signing
        own = [
            describe(
                entry,
                place=self._place,
                now=now,
                settings=self._settings,
                signing=signing.kid if signing else "",
            )
            for entry in self._entries()
            if entry.key and self._phase(entry) not in (Phase.REMOVED, Phase.UNPUBLISHED)
        ]
        ours = {(entry.kid, entry.key.thumbprint) for entry in self._entries() if entry.key}
        foreign = describe_foreign(document, ours) if document else []
        return tuple(sorted([*own, *foreign], key=lambda info: (info.created_at, info.key_id)))

    def _warn_once(self, event: str, **facts: object) -> None:
        """Say what stays true for long only once."""
        if event + str(facts) not in self._said:
            self._said.add(event + str(facts))
            self._log.warning(event, **facts)


class _Read(msgspec.Struct, frozen=True):
    """A good read of the document: None when there is certainly none."""

    document: Document | None

    def has(self, key: SigningKey) -> bool:
        return self.document is not None and self.document.has(key.kid, key.thumbprint)


def _stands(entry: Entry, document: Document | None) -> bool:
    return bool(document and entry.key and document.has(entry.kid, entry.key.thumbprint))


def _refuse_odd(document: Document | None, usable: list[Entry], gone: list[Entry]) -> None:
    """A document that looks wrong must not cost the folder its keys."""
    if not gone:
        return
    if document is None:
        why = "is missing"
    elif not document.keys:
        why = "is empty"
    elif not any(_stands(entry, document) for entry in usable):
        why = "holds none of this folder's keys"
    else:
        return
    raise KeyStateError(
        f"the published JWKS {why}: nothing was moved; --force moves {len(gone)} keys all the same"
    )
