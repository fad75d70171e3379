"""Reconciler: reads folder and document; the Writer that it gives under the lock changes them."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import BadParameterError, KeyFileError, KeyStateError, TailboneError
from tailbone.jwks.document import Document
from tailbone.keys.folder import REMOVED
from tailbone.keys.plan import (
    Clear,
    Make,
    Publish,
    Step,
    WritePublic,
    WriteRecord,
    next_created_at,
    plan,
)
from tailbone.keys.record import OWN_PLACE, KeyRecord, Origin, Phase
from tailbone.keys.signing_key import Algorithm, SigningKey
from tailbone.keys.view import Observer, Read, View
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tailbone.files import ProcessLock
    from tailbone.jwks.publisher import Publisher
    from tailbone.keys.folder import Entry, KeyFolder
    from tailbone.keys.settings import KeySettings
    from tailbone.process.log import Logger

CHANGE_S: Final = 25.0
"""When a change gives up, so that it is over within 30 s."""

LOCK_S: Final = 20.0
"""How long it waits for others to end, so that there is time left for itself."""

POLL_S: Final = 0.5
"""How often every process looks at the folder."""

_PATIENCE_S: Final = 5.0
"""How long a change tries to read the JWKS before it says that it cannot."""

_LOCK_PAUSE_S: Final = 0.02
# Each round does a step that no later round undoes; more rounds than this are a fault of the plan.
_MOST_ROUNDS: Final = 50
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]+")


class Reconciler:
    """Brings folder and document in line with the plan, one change at a time.

    Attributes:
        observer: what has been seen so far.
    """

    def __init__(
        self,
        *,
        folder: KeyFolder,
        publisher: Publisher | None,
        settings: KeySettings,
        log: Logger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Take the parts; ``publisher`` None publishes nothing."""
        self.folder = folder
        self.publisher = publisher
        self.settings = settings
        self.log = log
        self.clock = clock
        self.monotonic = monotonic
        self.sleep = sleep
        self.observer = Observer(
            place=publisher.place if publisher else OWN_PLACE,
            settings=settings,
            clock=clock,
            monotonic=monotonic,
            log=log,
        )
        self._busy = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self.made: set[str] = set()
        self._said: set[str] = set()

    # --- looking

    async def rescan(self) -> None:
        """Read the folder again.

        Raises:
            KeyFileError: it cannot be used; what was known stays.
        """
        async with self._scanning:
            self.observer.snapshot = snapshot = await in_thread(self.folder.scan)
        if snapshot.warning:
            self._warn_once(snapshot.warning)
        for entry in snapshot.entries.values():
            removing = entry.record and entry.record.phase is Phase.REMOVING
            if entry.fault and not (entry.is_leftover or removing):
                self._warn_once("key cannot be used", kid=entry.kid, why=entry.fault)
            elif entry.warning:
                self._warn_once(entry.warning, kid=entry.kid)

    async def read(self, *, until: float | None = None) -> Read:
        """Read the document, and keep a copy for the next start.

        Args:
            until: when to stop trying again what may pass by itself, on the monotonic clock; None tries once.

        Raises:
            StoreError: it could not be read.
        """
        started, started_at = self.monotonic(), self.clock()
        seen = await self.look(until=until)
        if self.publisher is not None:
            await self.note(seen.document, started, started_at)
        return seen

    async def look(self, *, until: float | None = None) -> Read:
        """``read``, and keep nothing of it: neither the copy on disk nor what is known changes."""
        if self.publisher is None:
            return Read(self.observer.own_document())
        return Read(await self.publisher.read(until=until))

    async def load_copy(self) -> None:
        """Take the copy of the document that an earlier run has kept."""
        if self.publisher is None:
            return
        try:
            data = await in_thread(self.folder.read_last_published)
            if data is None:
                return
            kept = msgspec.json.decode(data, type=dict[str, str])
            if kept.get("place") == self.observer.place:
                self.observer.copy = Document.parse(kept.get("document", "").encode())
        except (msgspec.DecodeError, TailboneError):
            self.log.warning("the kept copy of the JWKS is damaged, and left out")

    async def note(self, document: Document | None, started: float, started_at: float) -> None:
        """Remember a good read; see ``Observer.note``. The last writer of the copy is as good as any."""
        if not self.observer.note(document, started, started_at) or document is None:
            return
        for warning in document.warnings():
            self._warn_once(warning)
        kept = msgspec.json.encode({"place": self.observer.place, "document": document.render().decode()})
        try:
            await in_thread(self.folder.write_last_published, kept)
        except KeyFileError as error:
            # Only for a start without the store; what was read holds.
            self._warn_once("the JWKS cannot be kept for the next start", why=error.message)

    def _warn_once(self, event: str, **facts: object) -> None:
        """Log only once what stays true for long."""
        said = f"{event} {facts}"
        if said not in self._said:
            self._said.add(said)
            self.log.warning(event, **facts)

    # --- writing

    @property
    def busy(self) -> bool:
        """Whether this process is in the middle of a change."""
        return self._busy.locked()

    @contextlib.asynccontextmanager
    async def writing(self, timeout_s: float = LOCK_S) -> AsyncIterator[Writer]:
        """Keep every other change of the folder out, of this process and of others.

        Args:
            timeout_s: how long to wait for another change to end.

        Yields:
            The only object that changes folder and document, good until the context ends.

        Raises:
            KeyStateError: another change took longer.
            KeyFileError: the folder cannot be used.
        """
        started = self.monotonic()
        late = KeyStateError("another change of the keys is still under way: try again in half a minute")
        try:
            async with asyncio.timeout(timeout_s or 0.001):
                await self._busy.acquire()
        except TimeoutError:
            raise late from None
        try:
            lock = self.folder.lock()
            try:
                while not await _try_lock(lock):
                    if self.monotonic() - started >= timeout_s:
                        raise late
                    await self.sleep(_LOCK_PAUSE_S)
                await self.rescan()
                yield Writer(self, deadline=started + CHANGE_S)
            finally:
                self.observer.forget_change()
                lock.release()
        finally:
            self._busy.release()


class Writer:
    """Changes folder and document; only ``Reconciler.writing`` gives one, under the folder's lock.

    Attributes:
        deadline: when the change has to be over, on the monotonic clock.
    """

    def __init__(self, reconciler: Reconciler, *, deadline: float) -> None:
        """Write for ``reconciler`` until ``deadline``."""
        self.deadline = deadline
        self._reconciler = reconciler
        self._folder = reconciler.folder
        self._publisher = reconciler.publisher
        self._observer = reconciler.observer
        self._settings = reconciler.settings
        self._log = reconciler.log

    @property
    def patience(self) -> float:
        """Until when a change tries to read the document first, on the monotonic clock."""
        return min(self._reconciler.monotonic() + _PATIENCE_S, self.deadline)

    async def reconcile(
        self, seen: Read | None, *, asked: str = "", planned: Callable[[View], list[Step]] = plan
    ) -> None:
        """Plan and carry out, until nothing is left to be done.

        Args:
            seen: the document as it was read just now; None plans only what needs no read.
            asked: the key that is being generated.
            planned: gives the next steps.

        Raises:
            TailboneError: something could not be done; what was done is on disk and stays.
        """
        for _ in range(_MOST_ROUNDS):
            self._observer.refresh()
            steps = planned(self._observer.view(seen, asked=asked))
            if not steps:
                self._observer.settled()
                return
            seen = await self.do(steps, seen)
        raise KeyStateError("internal error: the key state did not converge; please report this bug")

    async def do(self, steps: Iterable[Step], seen: Read | None = None) -> Read | None:
        """Carry out some steps; returns the document as it is known then."""
        for step in steps:
            seen = await self._do(step, seen)
        await self._reconciler.rescan()
        return seen

    async def _do(self, step: Step, seen: Read | None) -> Read | None:
        match step:
            case WriteRecord():
                record = step.record
                if record.phase is Phase.REMOVING and record.removal == "set aside":
                    # Revoked elsewhere: if no other key can sign, service goes on with a new one.
                    self._observer.first_wanted = True
                await in_thread(self._folder.write_record, step.kid, record)
                say = self._log.warning if step.warn else self._log.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await in_thread(self._folder.write_public, step.key)
            case Clear():
                await self._clear(step)
            case Make():
                key = await generate(self._settings.algorithm, self._settings.size)
                await self.add(key, step.origin, seen)
            case Publish():
                return await self.publish(step)
        return seen

    async def _clear(self, step: Clear) -> None:
        if step.how == "delete":
            await in_thread(self._folder.delete, step.entry)
            self._log.info("key is removed", kid=step.entry.kid)
        else:
            await in_thread(self._folder.set_aside, step.entry)
            self._log.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)

    async def publish(self, step: Publish) -> Read:
        """Change the document and read it back.

        Raises:
            StoreError: nothing was changed.
            StoreOutcomeUnknownError: it may have been.
            KeyStateError: the document would hold too many keys.
        """
        if self._publisher is None:
            self._observer.put_into(self._observer.own_document(), step.put)
            await self._reconciler.rescan()
            return Read(self._observer.own_document())
        outcome = await self._publisher.change(step.edit, deadline=self.deadline)
        if outcome.wrote:
            self._observer.put_into(outcome.before, step.put)
        await self._reconciler.note(outcome.after, self._reconciler.monotonic(), self._reconciler.clock())
        return Read(outcome.after)

    async def rehearse(self) -> None:
        """Find out whether the store would take a change, before a key stops signing for its sake.

        Raises:
            StoreError: it would not; everything is as it was.
        """
        if self._publisher is not None:
            await self._publisher.rehearse(until=self.patience)

    async def add(self, key: SigningKey, origin: Origin, seen: Read | None) -> str:
        """Write a new key's pair under a kid that is free; returns the kid.

        Args:
            key: new material, under any kid.
            origin: why it is made.
            seen: the document whose kids are taken as well.
        """
        now = self._reconciler.clock()
        created_at = next_created_at(self._observer.snapshot.entries.values(), now)
        key = key.renamed(self._free_kid(created_at, seen), created_at=created_at)
        self._reconciler.made.add(key.kid)
        record = KeyRecord.new(key.thumbprint, origin, now=now, place=self._observer.place)
        try:
            await in_thread(self._folder.add, key, record)
        except BaseException:
            await self.discard(key.kid)
            raise
        await self._reconciler.rescan()
        self._log.info("key is made", kid=key.kid, algorithm=key.algorithm, size=key.size, origin=origin)
        return key.kid

    async def discard(self, kid: str) -> None:
        """Delete a pair that was made here and is certainly not published."""
        await self._reconciler.rescan()
        entry = self._observer.snapshot.entries.get(kid)
        if entry is None or entry.record is None or entry.record.published_at:
            return
        record = entry.record.removing("delete", now=self._reconciler.clock())
        await in_thread(self._folder.write_record, kid, record)
        await in_thread(self._folder.delete, entry)
        await self._reconciler.rescan()
        self._observer.refresh()

    async def restore(self, before: dict[str, Entry]) -> None:
        """Write the records back that a change that failed had written."""
        await self._reconciler.rescan()
        # Those that were to go come first: they sign again before others stop.
        changed = sorted(
            self._observer.snapshot.entries.values(),
            key=lambda entry: not (entry.record and entry.record.phase is Phase.REMOVING),
        )
        now = self._reconciler.clock()
        for entry in changed:
            old = before.get(entry.kid)
            if old is None or entry.record is None or old.record == entry.record:
                continue
            # One without a record had not been compared yet; the document holds it, so it is confirmed again.
            record = old.record or KeyRecord.new(entry.record.thumbprint, entry.record.origin, now=now)
            if record.phase is Phase.RETIRING and entry.record.phase is Phase.ACTIVE:
                # It has signed meanwhile, and its tokens live on.
                record = record.with_expiry(entry.record.expiry_s)
                record = record.retiring(now=now, max_age_s=self._settings.max_age_s)
            await in_thread(self._folder.write_record, entry.kid, record)
        await self._reconciler.rescan()
        self._observer.refresh()

    async def clear_temporaries(self) -> None:
        """Delete what a killed write left."""
        await in_thread(self._folder.clear_temporaries)

    async def wait_for_other_processes(self) -> None:
        """Wait until every other process on this folder has seen what was written into it."""
        await self._reconciler.sleep(2 * POLL_S)

    def _free_kid(self, created_at: int, seen: Read | None) -> str:
        if not _PREFIX.fullmatch(self._settings.prefix):
            raise BadParameterError("key.prefix must consist of letters, digits and . _ - only")
        kid = f"{self._settings.prefix}-{created_at}"
        # The kid of a key that was removed within this second is taken too: caches hold the old key under it.
        taken = self._reconciler.made | self._observer.snapshot.entries.keys()
        document = seen.document if seen else None
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{self._settings.prefix}-{created_at}-{secrets.token_hex(2)}"
        return kid


async def generate(algorithm: Algorithm, size: int) -> SigningKey:
    """Make the material of a new key, in a thread; ``size`` in bits, for RSA."""
    return await asyncio.to_thread(SigningKey.generate, "", algorithm=algorithm, size=size, created_at=0)


async def _try_lock(lock: ProcessLock) -> bool:
    try:
        return await in_thread(lock.try_acquire)
    except OSError as error:
        raise KeyFileError(
            f"cannot lock the key folder: {error.strerror or 'input/output error'}", detail=str(error)
        ) from error
