"""Settler: carries out what a plan asks for, under the folder's lock."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from tailbone.errors import BadParameterError, KeyFileError, KeyStateError, TailboneError
from tailbone.jwks.document import Document
from tailbone.keys.facts import next_created_at
from tailbone.keys.folder import REMOVED
from tailbone.keys.knowledge import Read
from tailbone.keys.plan import plan, plan_tidying, retired, succession
from tailbone.keys.record import KeyState, Origin
from tailbone.keys.signing_key import Algorithm, SigningKey
from tailbone.keys.steps import Clear, Make, Publish, Step, WritePublic, WriteState
from tailbone.process.cancellation import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from tailbone.files import ProcessLock
    from tailbone.jwks.publisher import Publisher
    from tailbone.keys.folder import Entry, KeyFolder
    from tailbone.keys.knowledge import Knowledge
    from tailbone.keys.settings import KeySettings
    from tailbone.process.log import Logger

CHANGE_S: Final = 25.0
"""When a change gives up, so that it is over within 30 s."""

LOCK_S: Final = 20.0
"""How long it waits for others to end, so that there is time left for itself."""

POLL_S: Final = 0.5
"""How often every process looks at the folder."""

_REHEARSAL_S: Final = 5.0
_LOCK_PAUSE_S: Final = 0.02
# Each round does a step that no later round undoes; more rounds than this are a fault of the plan.
_MOST_ROUNDS: Final = 50
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]+")


class Settler:
    """The hands of a lifecycle: everything that writes, one change at a time."""

    def __init__(
        self,
        *,
        folder: KeyFolder,
        publisher: Publisher | None,
        knowledge: Knowledge,
        settings: KeySettings,
        log: Logger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """Take the parts; ``publisher`` None publishes nothing."""
        self._folder = folder
        self._publisher = publisher
        self._known = knowledge
        self._settings = settings
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._busy = asyncio.Lock()
        self._scanning = asyncio.Lock()
        self._made: set[str] = set()
        self._said: set[str] = set()

    # --- looking

    async def rescan(self) -> None:
        """Read the folder again.

        Raises:
            KeyFileError: it cannot be used; what was known stays.
        """
        async with self._scanning:
            self._known.snapshot = await in_thread(self._folder.scan)
        if self._known.snapshot.warning:
            self.warn_once(self._known.snapshot.warning)
        for entry in self._known.entries:
            if entry.fault and not (entry.is_leftover or (entry.state and entry.state.removing)):
                self.warn_once("key cannot be used", kid=entry.kid, why=entry.fault)
            elif entry.warning:
                self.warn_once(entry.warning, kid=entry.kid)

    async def read(self, *, until: float | None = None) -> Read:
        """Read the document.

        Args:
            until: when to stop trying again what may pass by itself, on the monotonic clock; None tries once.

        Raises:
            StoreError: it could not be read.
        """
        started, started_at = self._monotonic(), self._clock()
        seen = await self.look(until=until)
        if self._publisher is not None:
            await self._note(seen.document, started, started_at)
        return seen

    async def look(self, *, until: float | None = None) -> Read:
        """``read``, and keep nothing of it: neither the copy on disk nor what is known changes."""
        if self._publisher is None:
            return Read(self._known.own_document())
        if until is None:
            return Read(await self._publisher.read())
        outcome = await self._publisher.change(lambda current: current, deadline=until)
        return Read(outcome.after)

    async def load_copy(self) -> None:
        """Take the copy of the document that an earlier run has kept."""
        if self._publisher is None:
            return
        data = await in_thread(self._folder.read_last_published)
        if data is None:
            return
        try:
            kept = msgspec.json.decode(data, type=dict[str, str])
            if kept.get("place") == self._known.place:
                self._known.copy = Document.parse(kept.get("document", "").encode())
        except (msgspec.DecodeError, TailboneError):
            self._log.warning("the kept copy of the JWKS is damaged, and left out")

    def warn_once(self, event: str, **facts: object) -> None:
        """Say only once what stays true for long."""
        said = f"{event} {facts}"
        if said not in self._said:
            self._said.add(said)
            self._log.warning(event, **facts)

    # --- the lock

    @property
    def busy(self) -> bool:
        """Whether this process is in the middle of a change."""
        return self._busy.locked()

    @contextlib.asynccontextmanager
    async def locked(self, timeout_s: float) -> AsyncIterator[float]:
        """Keep every other change of the folder out, of this process and of others.

        Args:
            timeout_s: how long to wait for another change to end.

        Yields:
            When the change has to be over, on the monotonic clock.

        Raises:
            KeyStateError: another change took longer.
            KeyFileError: the folder cannot be used.
        """
        started = self._monotonic()
        late = KeyStateError("another change of the keys is still under way: try again in half a minute")
        try:
            async with asyncio.timeout(timeout_s or 0.001):
                await self._busy.acquire()
        except TimeoutError:
            raise late from None
        try:
            lock = self._folder.lock()
            try:
                while not await _try_lock(lock):
                    if self._monotonic() - started >= timeout_s:
                        raise late
                    await self._sleep(_LOCK_PAUSE_S)
                await self.rescan()
                yield started + CHANGE_S
            finally:
                self._known.forget_change()
                lock.release()
        finally:
            self._busy.release()

    async def wait_for_others(self) -> None:
        """Wait until every other process on this folder has seen what was written into it."""
        await self._sleep(2 * POLL_S)

    # --- doing; each only while locked

    async def settle(self, seen: Read | None, *, deadline: float, asked: str = "") -> None:
        """Do all that is to be done.

        Args:
            seen: the document as it was read just now; None plans only what needs no read.
            deadline: on the monotonic clock.
            asked: the key that is being generated.

        Raises:
            TailboneError: something could not be done; what was done is on disk and stays.
        """
        for _ in range(_MOST_ROUNDS):
            self._known.refresh()
            steps = plan(self._known.facts(seen, asked=asked))
            if not steps:
                self._known.settled()
                return
            for step in steps:
                seen = await self._do(step, seen, deadline)
            await self.rescan()
        raise KeyStateError("the keys do not settle; this is a fault of the program")

    async def tidy(self, seen: Read, *, deadline: float) -> None:
        """Do what is half done, and nothing that depends on settings; see ``plan_tidying``.

        Raises:
            TailboneError: something could not be done; what was done is on disk and stays.
        """
        now: Read | None = seen
        for _ in range(_MOST_ROUNDS):
            steps = plan_tidying(self._known.facts(now))
            if not steps:
                return
            for step in steps:
                now = await self._do(step, now, deadline)
            await self.rescan()
        raise KeyStateError("the key folder does not settle; this is a fault of the program")

    async def prepare_removal(self, entry: Entry, seen: Read, deadline: float) -> None:
        """Let another key sign before this one stops: a ring never lacks one where there could be one.

        Args:
            entry: the key that is to go.
            seen: the document as it was read just now.
            deadline: on the monotonic clock.

        Raises:
            StoreError: the removal would be refused; everything is as it was.
        """
        signing = self._known.ring.signing
        if self._publisher is not None and signing is not None and signing.kid == entry.kid:
            await self._publisher.rehearse(deadline=min(self._monotonic() + _REHEARSAL_S, deadline))
        await self._let_another_sign(entry.kid, seen, {entry.kid})

    async def set_aside(self, kids: Sequence[str], seen: Read) -> None:
        """Write that keys which the document does not hold are on their way out."""
        for kid in kids:
            await self._let_another_sign(kid, seen, set(kids))
            await self.mark(self._known.snapshot.entries[kid], "set aside")
            await self.rescan()

    async def _let_another_sign(self, kid: str, seen: Read, leaving: set[str]) -> None:
        facts = self._known.facts(seen)
        for step in succession(msgspec.structs.replace(facts, revoked=facts.revoked | leaving), kid):
            await self._do(step, seen, 0.0)
        await self.rescan()

    async def publish(self, step: Publish, deadline: float) -> Read:
        """Change the document and read it back.

        Raises:
            StoreError: nothing was changed.
            StoreOutcomeUnknownError: it may have been.
            KeyStateError: the document would hold too many keys.
        """
        if self._publisher is None:
            self._known.put_into(self._known.own_document(), step.put)
            await self.rescan()
            return Read(self._known.own_document())
        outcome = await self._publisher.change(step.edit, deadline=deadline)
        if outcome.wrote:
            self._known.put_into(outcome.before, step.put)
        await self._note(outcome.after, self._monotonic(), self._clock())
        return Read(outcome.after)

    async def make(
        self,
        origin: Origin,
        algorithm: Algorithm,
        size: int,
        document: Document | None,
        *,
        instead_of: SigningKey | None = None,
    ) -> SigningKey:
        """Make a key under a kid that nobody has, and write its pair.

        Args:
            origin: why it is made.
            algorithm: of the key.
            size: bits of an RSA key.
            document: whose kids are taken too.
            instead_of: a key that lost its kid to another server; it gets another one.
        """
        now = self._clock()
        created_at = next_created_at(self._known.entries, now)
        kid = self._free_kid(created_at, document)
        self._made.add(kid)
        if instead_of is not None:
            await self.give_up(instead_of.kid)
            key = instead_of.renamed(kid)
        else:
            key = await asyncio.to_thread(
                SigningKey.generate, kid, algorithm=algorithm, size=size, created_at=created_at
            )
        meant_for = "" if self._known.is_own else self._known.place
        state = KeyState(thumbprint=key.thumbprint, origin=origin, since=now, meant_for=meant_for)
        try:
            await in_thread(self._folder.add, key, state)
        except BaseException:
            await self.give_up(kid)
            raise
        await self.rescan()
        self._log.info("key is made", kid=kid, algorithm=algorithm, size=key.size, origin=origin)
        return key

    async def give_up(self, kid: str) -> None:
        """Delete a pair that was made here and is not wanted."""
        await self.rescan()
        entry = self._known.snapshot.entries.get(kid)
        if entry is None:
            return
        await self.mark(entry, "delete")
        await in_thread(self._folder.delete, entry)
        await self.rescan()
        self._known.refresh()

    async def mark(
        self, entry: Entry, removing: Literal["delete", "set aside"], seen: Read | None = None
    ) -> None:
        """Write that a key is on its way out: from now on nobody signs with it.

        Where the folder does not know any more which key it was, ``seen`` tells.
        """
        state = entry.state
        if state is None:
            keys = seen.document.keys if seen and seen.document else ()
            published = next((key.thumbprint for key in keys if key.kid == entry.kid), "")
            state = KeyState(thumbprint=entry.thumbprint or published, origin="adopted", since=self._clock())
        marked = msgspec.structs.replace(state, removing=removing)
        await in_thread(self._folder.write_state, entry.kid, marked)

    async def restore(self, before: dict[str, Entry]) -> None:
        """Write the states back that a change that failed had written."""
        await self.rescan()
        # Those that were to go come first: they sign again before others stop.
        changed = sorted(
            self._known.snapshot.entries.items(),
            key=lambda item: not (item[1].state and item[1].state.removing),
        )
        for kid, entry in changed:
            old = before.get(kid)
            if old is None or entry.state is None or old.state == entry.state:
                continue
            # One without a state had not been looked at; it stands in the document, so it is confirmed anew.
            state = old.state or msgspec.structs.replace(entry.state, removing="")
            if state.ends_at and not entry.state.ends_at:
                # It has signed meanwhile, and its tokens live on.
                longest_s = max(state.expiry_s, entry.state.expiry_s)
                state = retired(
                    msgspec.structs.replace(state, expiry_s=longest_s), self._clock(), self._settings
                )
            await in_thread(self._folder.write_state, kid, state)
        await self.rescan()
        self._known.refresh()

    async def _do(self, step: Step, seen: Read | None, deadline: float) -> Read | None:
        match step:
            case WriteState():
                if step.state.removing == "set aside":
                    # Revoked elsewhere: if no other key can sign, service goes on with a new one.
                    self._known.first_wanted = True
                await in_thread(self._folder.write_state, step.kid, step.state)
                say = self._log.warning if step.warn else self._log.info
                say(step.event, kid=step.kid)
            case WritePublic():
                await in_thread(self._folder.write_public, step.key)
            case Clear():
                await self._clear(step)
            case Make():
                document = seen.document if seen else None
                await self.make(step.origin, self._settings.algorithm, self._settings.size, document)
            case Publish():
                return await self.publish(step, deadline)
        return seen

    async def _clear(self, step: Clear) -> None:
        if step.how == "delete":
            await in_thread(self._folder.delete, step.entry)
            self._log.info("key is removed", kid=step.entry.kid)
        else:
            await in_thread(self._folder.set_aside, step.entry)
            self._log.warning(f"key's files are moved to {REMOVED}/", kid=step.entry.kid)

    async def _note(self, document: Document | None, started: float, started_at: float) -> None:
        if not self._known.note(document, started, started_at) or document is None:
            return
        for warning in document.warnings():
            self.warn_once(warning)
        kept = msgspec.json.encode({"place": self._known.place, "document": document.render().decode()})
        try:
            await in_thread(self._folder.write_last_published, kept)
        except KeyFileError as error:
            # Only for a start without the store; what was read holds.
            self.warn_once("the JWKS cannot be kept for the next start", why=error.message)

    def _free_kid(self, created_at: int, document: Document | None) -> str:
        if not _PREFIX.fullmatch(self._settings.prefix):
            raise BadParameterError("key.prefix must be of letters, digits and . _ - only")
        kid = f"{self._settings.prefix}-{created_at}"
        # The kid of a key that was removed within this second is taken too: caches hold the old key under it.
        taken = self._made | self._known.snapshot.entries.keys()
        while kid in taken or (document is not None and document.has_kid(kid)):
            kid = f"{self._settings.prefix}-{created_at}-{secrets.token_hex(2)}"
        return kid


async def _try_lock(lock: ProcessLock) -> bool:
    try:
        return await in_thread(lock.try_acquire)
    except OSError as error:
        raise KeyFileError(
            f"cannot lock the key folder: {error.strerror or 'input/output error'}", detail=str(error)
        ) from error
