"""Reconciler: takes views of folder and document; the Writer that it gives under the lock changes them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import BadParameterError, KeyFileError, KeyStateError, TailboneError
from tailbone.jwks.document import Document
from tailbone.keys.folder import REMOVED, Snapshot
from tailbone.keys.plan import (
    Clear,
    Keep,
    Make,
    Publish,
    Step,
    WritePublic,
    WriteRecord,
    next_created_at,
    plan,
)
from tailbone.keys.record import OWN_PLACE, KeyRecord, Origin
from tailbone.keys.signing_key import Algorithm, SigningKey
from tailbone.keys.view import TWO_LOOKS_S, KeyRing, Read, View, Watch, own_document, published_in, watch
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tailbone.files import ProcessLock
    from tailbone.jwks.publisher import Publisher
    from tailbone.keys.folder import KeyFolder
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
        snapshot: the folder as it was last read.
        ring: what the folder gave then; swapped as a whole.
        copy: the last good read of a document that exists; None before one.
        read_at: when that read began, on the monotonic clock.
        first_wanted: a first key is to be made if no key can ever sign.
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
        self.snapshot = Snapshot()
        self.ring = KeyRing()
        self.copy: Document | None = None
        self.read_at = -math.inf
        self.first_wanted = False
        self.kept: Document | None = None
        self.made: set[str] = set()
        self._watched: dict[str, Watch] = {}
        # Own confirmed keys that good reads did not show: when the first and the last of these began.
        self._absent: dict[str, tuple[float, float]] = {}
        self._busy = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._said: set[str] = set()

    # --- looking

    @property
    def place(self) -> str:
        """Where the document is that counts: another process's where this one has no store of its own."""
        return self.publisher.place if self.publisher else published_in(self.snapshot)

    @property
    def follows(self) -> bool:
        """Whether this process changes nothing, since the folder has records of a store that it lacks."""
        return self.publisher is None and self.place != OWN_PLACE

    @property
    def missed(self) -> bool:
        """Whether a good read did not show a key that should be there."""
        return bool(self._absent)

    def view(self, seen: Read | None = None, *, asked: str = "", unwanted: str = "") -> View:
        """Return what a plan starts from.

        Args:
            seen: the document, when it was read just now.
            asked: the key that is being generated.
            unwanted: the kid that is being removed.
        """
        now, monotonic, place = self.clock(), self.monotonic(), self.place
        self._watched = watch(self._watched, self.snapshot, place, now=now, monotonic=monotonic)
        return View(
            now=now,
            monotonic=monotonic,
            place=place,
            settings=self.settings,
            entries=self.snapshot.entries,
            watched=self._watched,
            seen=Read(own_document(self.snapshot, place)) if place == OWN_PLACE else seen,
            kept=self.kept,
            revoked=self._revoked,
            asked=asked,
            unwanted=unwanted,
            prior=self.ring.signing is not None,
            first_wanted=self.first_wanted,
            follows=self.follows,
        )

    def refresh(self) -> None:
        """Swap the ring for the one that the folder gives."""
        before, self.ring = self.ring, self.view().ring()
        kid, old = (ring.signing.kid if ring.signing else "" for ring in (self.ring, before))
        if kid != old:
            say = self.log.info if kid else self.log.warning
            say("signing key changed", kid=kid, before=old)

    async def rescan(self) -> None:
        """Read the folder again.

        Raises:
            KeyFileError: it cannot be used; what was known stays.
        """
        async with self._scanning:
            self.snapshot = snapshot = await in_thread(self.folder.scan)
        if snapshot.warning:
            self._warn_once(snapshot.warning)
        for entry in snapshot.entries.values():
            if entry.fault and not (entry.is_leftover or entry.is_removing):
                self._warn_once("key cannot be used", kid=entry.kid, why=entry.fault)
            elif entry.warning:
                self._warn_once(entry.warning, kid=entry.kid)

    async def read(self, *, until: float | None = None) -> Read:
        """Read the document, and remember what it showed.

        Args:
            until: when to stop trying again what may pass by itself, on the monotonic clock; None tries once.

        Raises:
            StoreError: it could not be read.
        """
        started = self.monotonic()
        seen = await self.look(until=until)
        self.note(seen.document, started)
        return seen

    async def look(self, *, until: float | None = None) -> Read:
        """Read the document without remembering it."""
        if self.publisher is None:
            return Read(own_document(self.snapshot, self.place))
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
            if kept.get("place") == self.place:
                self.copy = self.kept = Document.parse(kept.get("document", "").encode())
        except (msgspec.DecodeError, TailboneError):
            self.log.warning("the kept copy of the JWKS is damaged, and left out")

    def note(self, document: Document | None, started: float) -> None:
        """Remember a good read, and own confirmed keys that it does not show.

        Args:
            document: None when there is certainly none.
            started: when the read began, on the monotonic clock.
        """
        if self.publisher is None or started < self.read_at:
            # A later read was quicker, and knows more.
            return
        self.read_at = started
        missing = self.view().missing(document, started)
        self._absent = {kid: (self._absent.get(kid, (started,))[0], started) for kid in missing}
        if self._revoked:
            # If no other key can sign, service goes on with a new one.
            self.first_wanted = True
        if document is not None and document != self.copy:
            self.copy = document
            for warning in document.warnings():
                self._warn_once(warning)

    @property
    def _revoked(self) -> frozenset[str]:
        return frozenset(kid for kid, (first, last) in self._absent.items() if last - first >= TWO_LOOKS_S)

    def _warn_once(self, event: str, **facts: object) -> None:
        """Log something once that may stay true for long."""
        said = f"{event} {facts}"
        if said not in self._said:
            self._said.add(said)
            self.log.warning(event, **facts)

    # --- writing

    async def reconcile(self, *, read: bool, timeout_s: float = LOCK_S) -> None:
        """Do what the plan says, until nothing is left to be done.

        A key that the plan asks for is made before the lock is taken: a large one takes seconds.

        Args:
            read: also what needs a read of the document.
            timeout_s: how long to wait for another change to end.

        Raises:
            TailboneError: something could not be done; what was done is on disk and stays.
        """
        spare: SigningKey | None = None
        while True:
            async with self.writing(timeout_s) as writer:
                if await writer.reconcile(await self.read() if read else None, spare=spare):
                    return
            spare = await generate(self.settings.algorithm, self.settings.size)

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
        self._log = reconciler.log
        self._spare: SigningKey | None = None

    @property
    def patience(self) -> float:
        """Until when a change tries to read the document first, on the monotonic clock."""
        return min(self._reconciler.monotonic() + _PATIENCE_S, self.deadline)

    async def reconcile(
        self,
        seen: Read | None,
        *,
        asked: str = "",
        unwanted: str = "",
        spare: SigningKey | None = None,
        planned: Callable[[View], list[Step]] = plan,
    ) -> bool:
        """Plan and carry out, until nothing is left to be done.

        Args:
            seen: the document as it was read just now; None plans only what needs no read.
            asked: the key that is being generated.
            unwanted: the kid that is being removed.
            spare: the material of a key that the plan may ask for.
            planned: gives the next steps.

        Returns:
            False when a key has to be made, and there is no ``spare``; all else is done.

        Raises:
            TailboneError: something could not be done; what was done is on disk and stays.
        """
        self._spare = spare
        for _ in range(_MOST_ROUNDS):
            steps = planned(self._reconciler.view(seen, asked=asked, unwanted=unwanted))
            if not steps or (isinstance(steps[0], Make) and self._spare is None):
                self._reconciler.refresh()
                if not steps and self._reconciler.ring.published:
                    self._reconciler.first_wanted = False
                return not steps
            seen = await self.do(steps, seen)
        raise TailboneError("internal error: the key state did not converge; please report this bug")

    async def do(self, steps: Iterable[Step], seen: Read | None = None) -> Read | None:
        """Carry out some steps; returns the document as it is known then."""
        for step in steps:
            seen = await self._do(step, seen)
        await self._reconciler.rescan()
        self._reconciler.refresh()
        return seen

    async def _do(self, step: Step, seen: Read | None) -> Read | None:
        match step:
            case WriteRecord():
                await in_thread(self._folder.write_record, step.kid, step.record)
                say = self._log.warning if step.warn else self._log.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await in_thread(self._folder.write_public, step.key)
            case Clear(how="delete"):
                await in_thread(self._folder.delete, step.entry)
                self._log.info("key is removed", kid=step.entry.kid)
            case Clear():
                await in_thread(self._folder.set_aside, step.entry)
                self._log.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)
            case Keep():
                await self._keep(step.document)
            case Make():
                assert self._spare is not None  # noqa: S101 -- else the plan was not carried out
                await self.add(self._spare, step.origin, seen)
                self._spare = None
            case Publish():
                return await self._publish(step)
        return seen

    async def _keep(self, document: Document) -> None:
        kept = {"place": self._reconciler.place, "document": document.render().decode()}
        await in_thread(self._folder.write_last_published, msgspec.json.encode(kept))
        self._reconciler.kept = document

    async def _publish(self, step: Publish) -> Read:
        """Change the document and read it back."""
        assert self._publisher is not None  # noqa: S101 -- without a store the folder is the document
        for kid in {kid for kid, _ in step.drop}:
            await self._wait_for_signers(kid)
        outcome = await self._publisher.change(step.edit, deadline=self.deadline)
        self._reconciler.note(outcome.after, self._reconciler.monotonic())
        if step.event and outcome.wrote:
            self._log.warning(step.event, kids=[key.kid for key in step.put])
        had_none = outcome.wrote and not (outcome.before and outcome.before.keys)
        return Read(outcome.after, frozenset(key.kid for key in step.put) if had_none else frozenset())

    async def _wait_for_signers(self, kid: str) -> None:
        """Wait until no thread signs with a key any more, and every process has seen that it may not."""
        entry = self._reconciler.snapshot.entries.get(kid)
        if entry is None or entry.record is None:
            return
        if entry.key is not None:
            await entry.key.signed(max(0.0, self.deadline - self._reconciler.monotonic()))
        was_active = entry.record.expiry_s and not entry.record.ends_at
        if was_active and await in_thread(self._folder.is_shared):
            await self._reconciler.sleep(2 * POLL_S)

    async def rehearse(self) -> Read:
        """Read the document, and find out whether the store would take a change of it.

        Raises:
            StoreError: it would not; everything is as it was.
        """
        if self._publisher is None:
            return await self._reconciler.read()
        started = self._reconciler.monotonic()
        document = await self._publisher.rehearse(until=self.patience)
        self._reconciler.note(document, started)
        return Read(document)

    async def add(self, key: SigningKey, origin: Origin, seen: Read | None) -> str:
        """Write a new key's pair under a kid that is free; returns the kid.

        Args:
            key: new material, under any kid.
            origin: why it is made.
            seen: the document whose kids are taken as well.
        """
        now = self._reconciler.clock()
        created_at = next_created_at(self._reconciler.snapshot.entries.values(), now)
        key = key.renamed(self._free_kid(created_at, seen), created_at=created_at)
        self._reconciler.made.add(key.kid)
        record = KeyRecord.new(key.thumbprint, origin, now=now, place=self._reconciler.place)
        await in_thread(self._folder.add, key, record)
        await self._reconciler.rescan()
        self._log.info("key is made", kid=key.kid, algorithm=key.algorithm, size=key.size, origin=origin)
        return key.kid

    async def clear_temporaries(self) -> None:
        """Delete what a killed write left."""
        await in_thread(self._folder.clear_temporaries)

    def _free_kid(self, created_at: int, seen: Read | None) -> str:
        prefix = self._reconciler.settings.prefix
        if not _PREFIX.fullmatch(prefix):
            raise BadParameterError("key.prefix must consist of letters, digits and . _ - only")
        kid = f"{prefix}-{created_at}"
        # The kid of a key that was removed within this second is taken too: caches hold the old key under it.
        taken = self._reconciler.made | self._reconciler.snapshot.entries.keys()
        document = seen.document if seen else None
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{prefix}-{created_at}-{secrets.token_hex(2)}"
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
