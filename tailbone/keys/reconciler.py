"""Reconciler: carries out the plan, under the folder's lock. Its Writer alone changes folder and document."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING, Final

from tailbone.errors import KeyFileError, KeyStateError, TailboneError
from tailbone.keys.folder import REMOVED
from tailbone.keys.plan import (
    Publish,
    RemoveFiles,
    SaveCopy,
    Step,
    WritePublic,
    WriteRecord,
    key_due,
    next_created_at,
    plan,
)
from tailbone.keys.record import KeyRecord, Origin, Removal
from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import Read, View
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from tailbone.algorithms import Algorithm
    from tailbone.files import ProcessLock
    from tailbone.keys.observer import Observer

CHANGE_S: Final = 25.0
"""When a change gives up, so that it ends within 30 s."""

LOCK_S: Final = 20.0
"""How long a change waits for the lock, leaving time for its own work."""

POLL_S: Final = 0.5
"""How often each process checks the folder for changes."""

_FIRST_READ_S: Final = 5.0
"""How long a change retries its first read of the JWKS; with ``LOCK_S`` no longer than ``CHANGE_S``."""

_LOCK_PAUSE_S: Final = 0.02
# Each round carries out a step that no later round undoes. More rounds than this are a bug in the plan.
_MOST_ROUNDS: Final = 50


class Reconciler:
    """Brings folder and document in line with the plan, one change at a time."""

    def __init__(self, observer: Observer, *, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Change what ``observer`` reads. ``sleep`` waits this many seconds."""
        self._observer = observer
        self._sleep = sleep
        # In the process, changes queue here, so that only the first of them polls the folder's lock.
        self._changing = asyncio.Lock()
        self._generated_kids: set[str] = set()

    async def reconcile(self, last_read: Read | None = None, *, timeout_s: float = LOCK_S) -> None:
        """Run the plan, and generate a key if one is due. If there is nothing to do, nothing is locked.

        Args:
            last_read: a read of the JWKS, which is read again under the lock; if None, only steps that need
                no read are carried out.
            timeout_s: how long to wait for another change to end.

        Raises:
            TailboneError: a step failed. The steps before it are on disk and stay.
        """
        observer, settings = self._observer, self._observer.settings
        view = observer.view(last_read)
        if observer.read_only or not (plan(view) or key_due(view)):
            return
        if await self._reconcile_locked(last_read, timeout_s):
            # Without the lock, since a large key takes seconds.
            key = await new_signing_key(settings.algorithm, settings.size)
            await self._reconcile_locked(last_read, timeout_s, key)

    async def _reconcile_locked(
        self, last_read: Read | None, timeout_s: float, key: SigningKey | None = None
    ) -> Origin | None:
        """Run the plan under the lock, and add ``key`` if one is due; return why one is still due."""
        async with self.writing(timeout_s) as writer:
            if last_read is not None:
                await writer.read()
            await writer.run_plan()
            if key is not None and (origin := key_due(writer.view())):
                await writer.add(key, origin)
                await writer.run_plan()
            return key_due(writer.view())

    @contextlib.asynccontextmanager
    async def writing(self, timeout_s: float = LOCK_S) -> AsyncIterator[Writer]:
        """Lock the folder against all other changes, by this process and by others.

        Args:
            timeout_s: how long to wait for another change to end.

        Yields:
            The only object that changes folder and document. It must not be used after the context ends.

        Raises:
            KeyStateError: another change has not ended in time, or this process may not change the folder.
            KeyFileError: the folder cannot be used.
        """
        observer = self._observer
        started = observer.monotonic()
        busy = KeyStateError("another change of the keys is still under way: try again in half a minute")
        try:
            async with asyncio.timeout(timeout_s or 0.001):
                await self._changing.acquire()
        except TimeoutError:
            raise busy from None
        try:
            lock = observer.folder.lock()
            try:
                while not await _try_lock(lock):
                    if observer.monotonic() - started >= timeout_s:
                        raise busy
                    await self._sleep(_LOCK_PAUSE_S)
                await observer.rescan()
                if observer.read_only:
                    raise KeyStateError(
                        f"the keys of this folder are published in {observer.location}, and this process has "
                        "no bucket: ask a process that publishes there, or set keys.bucket here as well"
                    )
                yield Writer(
                    observer,
                    generated_kids=self._generated_kids,
                    deadline=started + CHANGE_S,
                    sleep=self._sleep,
                )
            finally:
                lock.release()
        finally:
            self._changing.release()


class Writer:
    """Changes folder and document. ``Reconciler.writing`` creates it, under the folder's lock.

    Attributes:
        last_read: the last read of the document in this change; if None, the plan has only steps that need no
            read.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        generated_kids: set[str],
        deadline: float,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Write until ``deadline``, on the monotonic clock.

        Args:
            observer: reads what is written.
            generated_kids: kids of all keys that this process has generated.
            deadline: when the change must end, on the monotonic clock.
            sleep: waits this many seconds.
        """
        self.last_read: Read | None = None
        self._observer = observer
        self._folder = observer.folder
        self._publisher = observer.publisher
        self._changes = observer.changes
        self._generated_kids = generated_kids
        self._deadline = deadline
        self._read_until = observer.monotonic() + _FIRST_READ_S
        self._sleep = sleep

    def view(self) -> View:
        """Return the current view."""
        return self._observer.view(self.last_read)

    async def read(self) -> None:
        """Read the document.

        Raises:
            StoreError: it could not be read.
        """
        self.last_read = await self._observer.read(until=self._read_until)

    async def check_writable(self) -> None:
        """Read the document, and check that the store would accept a change.

        Raises:
            StoreError: it would not. Nothing was changed.
        """
        if self._publisher is None:
            return
        started = self._observer.monotonic()
        self.last_read = Read(await self._publisher.check_writable(until=self._read_until))
        self._observer.record_read(self.last_read.document, started)

    async def run_plan(self, planner: Callable[[View], list[Step]] = plan) -> None:
        """Carry out the steps of the plan until there are none.

        Raises:
            TailboneError: a step failed. The steps before it are on disk and stay.
        """
        for _ in range(_MOST_ROUNDS):
            steps = planner(self.view())
            if not steps:
                self._observer.refresh_ring()
                return
            await self.apply(steps)
        raise TailboneError("internal error: the key state did not converge; please report this bug")

    async def apply(self, steps: Iterable[Step]) -> None:
        """Carry out steps.

        Raises:
            TailboneError: a step failed. The steps before it are on disk and stay.
        """
        for step in steps:
            await self._apply(step)
        await self._observer.rescan()
        self._observer.refresh_ring()

    async def add(self, key: SigningKey, origin: Origin) -> str:
        """Write a new key's files under an unused kid, and return the kid.

        Args:
            key: a new key with any kid.
            origin: why it is generated.
        """
        observer, now = self._observer, self._observer.clock()
        created_at = next_created_at(observer.snapshot.entries.values(), now)
        key = key.renamed(self._unused_kid(created_at), created_at=created_at)
        self._generated_kids.add(key.kid)
        record = KeyRecord.new(key.thumbprint, origin, now=now, location=observer.location)
        await in_thread(self._folder.add, key, record)
        await observer.rescan()
        self._changes.info(
            "key is generated", kid=key.kid, algorithm=key.algorithm, size=key.size, origin=origin.value
        )
        return key.kid

    async def clear_temporaries(self) -> None:
        """Delete temporary files of killed writes."""
        await in_thread(self._folder.clear_temporaries)

    async def _apply(self, step: Step) -> None:
        match step:
            case WriteRecord():
                await in_thread(self._folder.write_record, step.kid, step.record)
                say = self._changes.warning if step.warn else self._changes.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await in_thread(self._folder.write_public, step.key)
            case RemoveFiles(how=Removal.DELETE):
                await in_thread(self._folder.delete, step.entry)
                self._changes.info("key is removed", kid=step.entry.kid)
            case RemoveFiles():
                await in_thread(self._folder.move_to_removed, step.entry)
                self._changes.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)
            case SaveCopy():
                await in_thread(self._folder.write_saved_copy, self._observer.location, step.document)
                self._observer.saved_copy = step.document
            case Publish():
                await self._publish(step)

    async def _publish(self, step: Publish) -> None:
        """Change the document and read it back."""
        assert self._publisher is not None  # noqa: S101 -- without a store the folder is the document
        for kid in {kid for kid, _ in step.drop}:
            await self._wait_for_signers(kid)
        outcome = await self._publisher.change(step.edit, deadline=self._deadline)
        self._observer.record_read(outcome.after, self._observer.monotonic())
        if step.event and outcome.wrote:
            self._changes.warning(step.event, kids=[key.kid for key in step.put])
        had_none = outcome.wrote and not (outcome.before and outcome.before.keys)
        fresh = frozenset(key.kid for key in step.put) if had_none else frozenset[str]()
        self.last_read = Read(outcome.after, fresh)

    async def _wait_for_signers(self, kid: str) -> None:
        """Wait until no thread signs with a key any more, and every process knows that it must not."""
        entry = self._observer.snapshot.entries.get(kid)
        if entry is None or entry.record is None:
            return
        if entry.key is not None:
            await entry.key.wait_for_signatures(max(0.0, self._deadline - self._observer.monotonic()))
        if entry.record.expiry_s and not entry.record.ends_at:
            # It was active until now. Other processes on the folder check it this often.
            await self._sleep(2 * POLL_S)

    def _unused_kid(self, created_at: int) -> str:
        kid = prefix = f"{self._observer.settings.prefix}-{created_at}"
        # Includes a key that was removed within this second, since caches still have it under this kid.
        taken = self._generated_kids | self._observer.snapshot.entries.keys()
        document = self.last_read.document if self.last_read else None
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{prefix}-{secrets.token_hex(2)}"
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
