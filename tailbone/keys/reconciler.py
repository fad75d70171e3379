"""Reconciler: reads folder and document into views. Its Writer, which holds the lock, changes them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import KeyFileError, KeyStateError, TailboneError
from tailbone.jwks.document import Document
from tailbone.keys.folder import REMOVED, Snapshot
from tailbone.keys.plan import (
    GenerateKey,
    Publish,
    RemoveFiles,
    SaveCopy,
    Step,
    WritePublic,
    WriteRecord,
    next_created_at,
    plan,
)
from tailbone.keys.record import OWN_LOCATION, KeyRecord, Origin
from tailbone.keys.signing_key import Algorithm, SigningKey
from tailbone.keys.view import (
    REVOCATION_CONFIRM_S,
    KeyRing,
    Read,
    View,
    Watch,
    own_document,
    published_in,
    watch,
)
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tailbone.files import ProcessLock
    from tailbone.jwks.publisher import Publisher
    from tailbone.keys.folder import KeyFolder
    from tailbone.keys.settings import KeySettings
    from tailbone.process.log import Logger

CHANGE_S: Final = 25.0
"""When a change gives up, so that it ends within 30 s."""

LOCK_S: Final = 20.0
"""How long a change waits for the lock, leaving time for its own work."""

POLL_S: Final = 0.5
"""How often each process checks the folder for changes."""

_FIRST_READ_S: Final = 5.0
"""How long a change retries its first read of the JWKS."""

_LOCK_PAUSE_S: Final = 0.02
# Each round carries out a step that no later round undoes. More rounds than this are a bug in the plan.
_MOST_ROUNDS: Final = 50


class Reconciler:
    """Brings folder and document in line with the plan, one change at a time.

    Attributes:
        snapshot: the folder when it was last read.
        ring: the key ring that follows from it; replaced as a whole.
        last_good: the document of the last successful read; None before the first.
        read_at: when that read began, on the monotonic clock.
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
        """Create a reconciler that has read nothing yet. If ``publisher`` is None, nothing is published."""
        self.folder = folder
        self.publisher = publisher
        self.settings = settings
        self.log = log
        self.clock = clock
        self.monotonic = monotonic
        self.sleep = sleep
        self.snapshot = Snapshot()
        self.ring = KeyRing()
        self.last_good: Document | None = None
        self.read_at = -math.inf
        self._written = _Written()
        self._watched: dict[str, Watch] = {}
        # Own confirmed keys that successful reads did not show: when the first and the last of these began.
        self._missing: dict[str, tuple[float, float]] = {}
        self._changing = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._warned: set[str] = set()

    # --- reading

    @property
    def location(self) -> str:
        """Where the document is published, by this process or, if it has no store, by another one."""
        return self.publisher.location if self.publisher else published_in(self.snapshot)

    @property
    def read_only(self) -> bool:
        """Whether this process may not change the folder, whose records name a store that it lacks."""
        return self.publisher is None and self.location != OWN_LOCATION

    @property
    def misses_keys(self) -> bool:
        """Whether the last successful read did not show a key that should be there."""
        return bool(self._missing)

    def view(self, last_read: Read | None = None, *, generating: str = "", removing: str = "") -> View:
        """Return the current view.

        Args:
            last_read: the last read in this change, if there was one.
            generating: the kid that is being generated.
            removing: the kid that is being removed.
        """
        now, monotonic, location = self.clock(), self.monotonic(), self.location
        self._watched = watch(self._watched, self.snapshot, location, now=now, monotonic=monotonic)
        return View(
            now=now,
            monotonic=monotonic,
            location=location,
            settings=self.settings,
            entries=self.snapshot.entries,
            watched=self._watched,
            last_read=Read(own_document(self.snapshot, location)) if location == OWN_LOCATION else last_read,
            saved_copy=self._written.saved_copy,
            revoked=self._revoked,
            generating=generating,
            removing=removing,
            had_signer=self.ring.signing is not None,
            needs_first_key=self._written.needs_first_key,
            read_only=self.read_only,
        )

    def refresh_ring(self) -> None:
        """Replace the ring with the one that follows from the folder."""
        before, self.ring = self.ring, self.view().ring()
        kid, old = (ring.signing.kid if ring.signing else "" for ring in (self.ring, before))
        if kid != old:
            say = self.log.info if kid else self.log.warning
            say("signing key changed", kid=kid, before=old)

    async def rescan(self) -> None:
        """Read the folder again.

        Raises:
            KeyFileError: the folder cannot be used. The snapshot stays as it is.
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
        """Read the document, and record the read.

        Args:
            until: when to stop retrying transient failures, on the monotonic clock; None tries once.

        Raises:
            StoreError: the document could not be read.
        """
        started = self.monotonic()
        last_read = await self.fetch(until=until)
        self.record_read(last_read.document, started)
        return last_read

    async def fetch(self, *, until: float | None = None) -> Read:
        """Read the document without recording the read."""
        if self.publisher is None:
            return Read(own_document(self.snapshot, self.location))
        return Read(await self.publisher.read(until=until))

    async def load_saved_copy(self) -> None:
        """Load the copy of the document that an earlier run has saved."""
        if self.publisher is None:
            return
        try:
            data = await in_thread(self.folder.read_saved_copy)
            if data is None:
                return
            saved = msgspec.json.decode(data, type=dict[str, str])
            if saved.get("place") == self.location:
                self.last_good = self._written.saved_copy = Document.parse(saved.get("document", "").encode())
        except (msgspec.DecodeError, TailboneError):
            self.log.warning("the saved copy of the JWKS is damaged, and is ignored")

    def record_read(self, document: Document | None, started: float) -> None:
        """Record a successful read, and own confirmed keys that it does not show.

        Args:
            document: None if there certainly is none.
            started: when the read began, on the monotonic clock.
        """
        if self.publisher is None or started < self.read_at:
            # A later read has finished earlier.
            return
        self.read_at = started
        missing = self.view().missing(document, started)
        self._missing = {kid: (self._missing.get(kid, (started,))[0], started) for kid in missing}
        if self._revoked:
            # If no other key can sign, a new one replaces the revoked key.
            self._written.needs_first_key = True
        if document is not None and document != self.last_good:
            self.last_good = document
            for warning in document.warnings():
                self._warn_once(warning)

    @property
    def _revoked(self) -> frozenset[str]:
        return frozenset(
            kid for kid, (first, last) in self._missing.items() if last - first >= REVOCATION_CONFIRM_S
        )

    def _warn_once(self, event: str, **facts: object) -> None:
        """Log a lasting problem once."""
        warning = f"{event} {facts}"
        if warning not in self._warned:
            self._warned.add(warning)
            self.log.warning(event, **facts)

    # --- writing

    async def reconcile(self, *, read: bool, timeout_s: float = LOCK_S) -> None:
        """Take the lock, and carry out the plan until nothing is left to do.

        A key that the plan asks for is generated without the lock, since a large one takes seconds.

        Args:
            read: whether to read the JWKS first, and run steps that depend on it.
            timeout_s: how long to wait for another change to end.

        Raises:
            TailboneError: a step failed. The steps before it are on disk and stay.
        """
        new_key: SigningKey | None = None
        while True:
            async with self.writing(timeout_s) as writer:
                if await writer.converge(await self.read() if read else None, new_key=new_key):
                    return
            new_key = await new_signing_key(self.settings.algorithm, self.settings.size)

    @contextlib.asynccontextmanager
    async def writing(self, timeout_s: float = LOCK_S) -> AsyncIterator[Writer]:
        """Lock the folder against all other changes, by this process and by others.

        Args:
            timeout_s: how long to wait for another change to end.

        Yields:
            The only object that changes folder and document. It must not be used after the context ends.

        Raises:
            KeyStateError: another change has not ended in time.
            KeyFileError: the folder cannot be used.
        """
        started = self.monotonic()
        busy = KeyStateError("another change of the keys is still under way: try again in half a minute")
        try:
            async with asyncio.timeout(timeout_s or 0.001):
                await self._changing.acquire()
        except TimeoutError:
            raise busy from None
        try:
            lock = self.folder.lock()
            try:
                while not await _try_lock(lock):
                    if self.monotonic() - started >= timeout_s:
                        raise busy
                    await self.sleep(_LOCK_PAUSE_S)
                await self.rescan()
                yield Writer(self, self._written, deadline=started + CHANGE_S)
            finally:
                lock.release()
        finally:
            self._changing.release()


class _Written:
    """State that outlives a Writer, and that views depend on.

    Attributes:
        saved_copy: the copy of the document in the folder.
        generated_kids: kids of all keys that this process has generated.
        needs_first_key: whether to generate a key if no key can ever sign.
    """

    def __init__(self) -> None:
        self.saved_copy: Document | None = None
        self.generated_kids: set[str] = set()
        self.needs_first_key = True


class Writer:
    """Changes folder and document. ``Reconciler.writing`` creates it, under the folder's lock.

    Attributes:
        deadline: when the change must end, on the monotonic clock.
    """

    def __init__(self, reconciler: Reconciler, written: _Written, *, deadline: float) -> None:
        """Write for ``reconciler`` until ``deadline``."""
        self.deadline = deadline
        self._reconciler = reconciler
        self._written = written
        self._folder = reconciler.folder
        self._publisher = reconciler.publisher
        self._log = reconciler.log
        self._new_key: SigningKey | None = None

    @property
    def read_until(self) -> float:
        """When to stop retrying the first read of the document, on the monotonic clock."""
        return min(self._reconciler.monotonic() + _FIRST_READ_S, self.deadline)

    async def converge(
        self,
        last_read: Read | None,
        *,
        generating: str = "",
        removing: str = "",
        new_key: SigningKey | None = None,
        planner: Callable[[View], list[Step]] = plan,
    ) -> bool:
        """Plan and carry out steps until nothing is left to do.

        Args:
            last_read: the read of this change; if None, only steps that need no read are planned.
            generating: the kid that is being generated.
            removing: the kid that is being removed.
            new_key: a key for the plan to use if it has to generate one.
            planner: returns the next steps.

        Returns:
            False if a key has to be generated and there is no ``new_key``. Everything else is done.

        Raises:
            TailboneError: a step failed. The steps before it are on disk and stay.
        """
        self._new_key = new_key
        if removing:
            # A removal of the last key stops service. It must not generate another one.
            self._written.needs_first_key = False
        for _ in range(_MOST_ROUNDS):
            steps = planner(self._reconciler.view(last_read, generating=generating, removing=removing))
            if not steps or (isinstance(steps[0], GenerateKey) and self._new_key is None):
                self._reconciler.refresh_ring()
                if not steps and self._reconciler.ring.published:
                    self._written.needs_first_key = False
                return not steps
            last_read = await self.apply(steps, last_read)
        raise TailboneError("internal error: the key state did not converge; please report this bug")

    async def apply(self, steps: Iterable[Step], last_read: Read | None = None) -> Read | None:
        """Carry out steps, and return the last read of the document."""
        for step in steps:
            last_read = await self._apply(step, last_read)
        await self._reconciler.rescan()
        self._reconciler.refresh_ring()
        return last_read

    async def _apply(self, step: Step, last_read: Read | None) -> Read | None:
        match step:
            case WriteRecord():
                await in_thread(self._folder.write_record, step.kid, step.record)
                say = self._log.warning if step.warn else self._log.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await in_thread(self._folder.write_public, step.key)
            case RemoveFiles(how="delete"):
                await in_thread(self._folder.delete, step.entry)
                self._log.info("key is removed", kid=step.entry.kid)
            case RemoveFiles():
                await in_thread(self._folder.set_aside, step.entry)
                self._log.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)
            case SaveCopy():
                await self._save_copy(step.document)
            case GenerateKey():
                assert self._new_key is not None  # noqa: S101 -- converge has checked it
                await self.add(self._new_key, step.origin, last_read)
                self._new_key = None
            case Publish():
                return await self._change_document(step)
        return last_read

    async def _save_copy(self, document: Document) -> None:
        saved = {"place": self._reconciler.location, "document": document.render().decode()}
        await in_thread(self._folder.write_saved_copy, msgspec.json.encode(saved))
        self._written.saved_copy = document

    async def _change_document(self, step: Publish) -> Read:
        """Change the document and read it back."""
        assert self._publisher is not None  # noqa: S101 -- without a store the folder is the document
        for kid in {kid for kid, _ in step.drop}:
            await self._wait_for_signers(kid)
        outcome = await self._publisher.change(step.edit, deadline=self.deadline)
        self._reconciler.record_read(outcome.after, self._reconciler.monotonic())
        if step.event and outcome.wrote:
            self._log.warning(step.event, kids=[key.kid for key in step.put])
        had_none = outcome.wrote and not (outcome.before and outcome.before.keys)
        return Read(outcome.after, frozenset(key.kid for key in step.put) if had_none else frozenset())

    async def _wait_for_signers(self, kid: str) -> None:
        """Wait until no thread signs with a key any more, and every process knows that it must not."""
        entry = self._reconciler.snapshot.entries.get(kid)
        if entry is None or entry.record is None:
            return
        if entry.key is not None:
            await entry.key.signed(max(0.0, self.deadline - self._reconciler.monotonic()))
        was_active = entry.record.expiry_s and not entry.record.ends_at
        if was_active and await in_thread(self._folder.is_shared):
            await self._reconciler.sleep(2 * POLL_S)

    async def check_writable(self) -> Read:
        """Read the document, and check that the store would accept a change.

        Raises:
            StoreError: it would not. Nothing was changed.
        """
        if self._publisher is None:
            return await self._reconciler.read()
        started = self._reconciler.monotonic()
        document = await self._publisher.check_writable(until=self.read_until)
        self._reconciler.record_read(document, started)
        return Read(document)

    async def add(self, key: SigningKey, origin: Origin, last_read: Read | None) -> str:
        """Write a new key's files under an unused kid, and return the kid.

        Args:
            key: a new key with any kid.
            origin: why it is generated.
            last_read: the document whose kids must not be used either.
        """
        now = self._reconciler.clock()
        created_at = next_created_at(self._reconciler.snapshot.entries.values(), now)
        key = key.renamed(self._free_kid(created_at, last_read), created_at=created_at)
        self._written.generated_kids.add(key.kid)
        record = KeyRecord.new(key.thumbprint, origin, now=now, location=self._reconciler.location)
        await in_thread(self._folder.add, key, record)
        await self._reconciler.rescan()
        self._log.info("key is generated", kid=key.kid, algorithm=key.algorithm, size=key.size, origin=origin)
        return key.kid

    async def clear_temporaries(self) -> None:
        """Delete temporary files of killed writes."""
        await in_thread(self._folder.clear_temporaries)

    def _free_kid(self, created_at: int, last_read: Read | None) -> str:
        prefix = self._reconciler.settings.prefix
        kid = f"{prefix}-{created_at}"
        # Includes a key that was removed within this second, since caches still have it under this kid.
        taken = self._written.generated_kids | self._reconciler.snapshot.entries.keys()
        document = last_read.document if last_read else None
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{prefix}-{created_at}-{secrets.token_hex(2)}"
        return kid


async def new_signing_key(algorithm: Algorithm, size: int) -> SigningKey:
    """Generate a key without a kid, in a thread; ``size`` in bits, for RSA."""
    return await asyncio.to_thread(SigningKey.generate, "", algorithm=algorithm, size=size, created_at=0)


async def _try_lock(lock: ProcessLock) -> bool:
    try:
        return await in_thread(lock.try_acquire)
    except OSError as error:
        raise KeyFileError(
            f"cannot lock the key folder: {error.strerror or 'input/output error'}", detail=str(error)
        ) from error
