"""View: what follows from folder, document and clocks at one moment; no I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import NoSigningKeyError
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, Snapshot, age
from tailbone.keys.record import CONFIRMED, OWN_PLACE, UNSETTLED_S, Phase
from tailbone.keys.settings import KeySettings  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.signing_key import SigningKey, created_at_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.process.log import Logger

TWO_LOOKS_S: Final = 30.0
"""How far apart two looks have to be that together show what one alone does not."""


class KeyRing(msgspec.Struct, frozen=True, kw_only=True):
    """An immutable value that a reader takes as a whole, without a lock.

    Attributes:
        signing: the key that signs now; None while no key may.
        expiry_s: ``keys.expiry`` as the record of that key holds it, in seconds: the longest lifetime of its
            tokens. The end of the key is computed from the record, perhaps by another process.
        published: own keys whose public half has been read back from the JWKS, newest first.
    """

    signing: SigningKey | None = None
    expiry_s: float = math.inf
    published: tuple[SigningKey, ...] = ()

    def require(self) -> SigningKey:
        """The key that signs now.

        Raises:
            NoSigningKeyError: no key may sign.
        """
        if self.signing is None:
            raise NoSigningKeyError("no key can sign yet; try again in a moment")
        return self.signing


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as listings show it.

    Attributes:
        key_id: the kid; "" for a foreign key without one.
        algorithm: "" when a foreign key does not say.
        created_at: unix seconds; 0 when unknown.
        state: pending, published, active, retiring, unpublished; "faulty" for files that cannot be used.
        foreign: its private half is not in this folder.
        next_change: what happens to it next and when, in unix seconds, 0 when no time can be given; None when
            nothing happens by itself. "published", "given up", "signs", "retires", "removed", or
            "removable": the last token that it signed has expired.
        fault: what is wrong with its files, and how to fix it.
    """

    key_id: str
    algorithm: str
    created_at: int
    state: str
    foreign: bool = False
    next_change: tuple[str, float] | None = None
    fault: str = ""


class Read(msgspec.Struct, frozen=True):
    """A good read of the document: None when there is certainly none."""

    document: Document | None

    def has(self, key: SigningKey) -> bool:
        """Whether this very key is in it."""
        return self.document is not None and self.document.has(key.kid, key.thumbprint)


class Watch(msgspec.Struct, frozen=True):
    """When this process first saw a key in its phase.

    Attributes:
        phase: the phase, and since when the record has it.
        clock: unix seconds.
        monotonic: seconds of a clock that is never set.
    """

    phase: tuple[Phase, float]
    clock: float
    monotonic: float


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan depends on.

    Attributes:
        now: unix seconds.
        monotonic: seconds of a clock that is never set.
        place: which document is meant; a confirmation for another one does not count.
        settings: as they are in force.
        entries: the folder.
        watched: what this process saw of each key first.
        read: whether ``document`` is a good read; without one only what needs none is planned.
        document: the published document; None when there is certainly none.
        own_document: the document is made of the folder's keys, no other server has a say in it.
        revoked: own confirmed keys that two good reads did not show.
        unread: keys published into a document that held none: no cache can lack them.
        asked: the key that is being generated at this moment.
        prior: the kid that signs now.
        first_wanted: a first key is to be made if no key can ever sign.
        follows: this process has no store and the folder has records of one, so that it changes nothing.
    """

    now: float
    monotonic: float
    place: str
    settings: KeySettings
    entries: dict[str, Entry]
    watched: dict[str, Watch] = {}
    read: bool = False
    document: Document | None = None
    own_document: bool = False
    revoked: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()
    asked: str = ""
    prior: str = ""
    first_wanted: bool = False
    follows: bool = False

    def phase(self, entry: Entry) -> Phase:
        """The entry's phase; one without a record is pending until the document has been read."""
        return entry.record.phase_at(self.place) if entry.record else Phase.PENDING

    def in_document(self, entry: Entry) -> bool:
        """Whether this very key stands in the document."""
        return self.document is not None and self.document.has(entry.kid, entry.thumbprint)

    @property
    def usable(self) -> list[Entry]:
        """The entries whose key can be used, the oldest first."""
        return sorted((entry for entry in self.entries.values() if entry.key is not None), key=age)

    @property
    def signing(self) -> Entry | None:
        """The entry that signs: the newest of the active keys."""
        active = [entry for entry in self.usable if self.phase(entry) is Phase.ACTIVE]
        return active[-1] if active else None

    def remaining_s(self, entry: Entry, end: float, full_s: float, *, at_least_s: float = 0.0) -> float:
        """How long the entry's wait in its phase goes on, in seconds; over when not positive.

        A wait has ended when wall clock and monotonic clock agree that it has, and never takes longer than
        its full length by the monotonic clock. What passed before this process looked first, only the wall
        clock tells.

        Args:
            entry: a key that is watched.
            end: the wait's end in unix seconds, as it was written down.
            full_s: the wait's full length, in seconds.
            at_least_s: this process watches at least so long, whatever the wall clock said at first.
        """
        watch = self.watched[entry.kid]
        passed_s = self.monotonic - watch.monotonic
        left_s = max(min(end - watch.clock, full_s), at_least_s)
        return min(max(end - self.now, left_s - passed_s), max(full_s, at_least_s) - passed_s)

    def ring(self) -> KeyRing:
        """Which key signs, and which are published."""
        signing = self.signing
        return KeyRing(
            signing=signing.key if signing else None,
            expiry_s=signing.record.expiry_s if signing and signing.record else math.inf,
            published=tuple(
                entry.key
                for entry in reversed(self.usable)
                if entry.key is not None and self.phase(entry) in CONFIRMED
            ),
        )

    def obstacles(self) -> list[str]:
        """Why no key signs, a reason for each key; empty when one does."""
        if self.signing is not None:
            return []
        found = []
        for entry in sorted(self.entries.values(), key=age):
            phase = self.phase(entry)
            if entry.fault:
                found.append(f"keys: {entry.kid} cannot be used: {entry.fault}")
            elif phase is Phase.PENDING:
                found.append(f"keys: {entry.kid} is not published yet")
            elif phase is Phase.PUBLISHED and entry.record:
                wait_s = max(0.0, self.wait_s(entry))
                found.append(f"keys: {entry.kid} is published and signs in {wait_s:.0f} s")
        return found or ["keys: there is no key that can sign: make one with  tailbone keys generate"]

    def wait_s(self, entry: Entry) -> float:
        """How long a published key still waits until it signs, in seconds."""
        record = entry.record
        return self.remaining_s(entry, record.signs_from, record.signs_from - record.since) if record else 0.0

    def listing(self) -> tuple[KeyInfo, ...]:
        """The keys of the document and own ones on their way into it, the oldest first."""
        signing = self.signing
        own = [
            describe(
                entry,
                place=self.place,
                now=self.now,
                settings=self.settings,
                signing=signing.kid if signing else "",
            )
            for entry in self.entries.values()
            if (entry.key and self.phase(entry) in (*CONFIRMED, Phase.PENDING))
            or (entry.fault and self.document and self.document.has_kid(entry.kid))
        ]
        ours = {(entry.kid, entry.thumbprint) for entry in self.entries.values()}
        foreign = describe_foreign(self.document, ours) if self.document else []
        return tuple(sorted([*own, *foreign], key=lambda info: (info.created_at, info.key_id)))


def describe(
    entry: Entry, *, place: str, now: float, settings: KeySettings | None, signing: str = ""
) -> KeyInfo:
    """Describe an own key.

    Args:
        entry: the key in the folder.
        place: the document that counts; "" for whichever it was last published in.
        now: unix seconds.
        settings: as in force; None when unknown.
        signing: the kid that signs; "" when unknown.
    """
    created_at = int(entry.key.created_at) if entry.key else created_at_of(entry.kid) or 0
    algorithm = entry.key.algorithm if entry.key else ""
    if entry.key is None:
        return KeyInfo(
            key_id=entry.kid, algorithm=algorithm, created_at=created_at, state="faulty", fault=entry.fault
        )
    record = entry.record
    phase = Phase.PENDING
    if record is not None:
        phase = record.phase_at(place) if place else record.phase
    if phase is Phase.ACTIVE and signing and signing != entry.kid:
        phase = Phase.RETIRING
    return KeyInfo(
        key_id=entry.kid,
        algorithm=algorithm,
        created_at=created_at,
        state=phase.value,
        next_change=_next_change(entry, phase, settings, now),
    )


def describe_foreign(document: Document, own: set[tuple[str, str]]) -> list[KeyInfo]:
    """Describe the document's other keys; ``own`` holds kid and thumbprint of ours."""
    return [
        KeyInfo(
            key_id=key.kid,
            algorithm=key.algorithm,
            created_at=created_at_of(key.kid) or 0,
            state=Phase.PUBLISHED.value,
            foreign=True,
        )
        for key in document.keys
        if (key.kid, key.thumbprint) not in own
    ]


def list_folder(snapshot: Snapshot, *, now: float) -> list[KeyInfo]:
    """List the keys of a folder without its document, the oldest first, broken ones too."""
    entries = sorted(snapshot.entries.values(), key=age)
    return [describe(entry, place="", now=now, settings=None) for entry in entries]


def _next_change(
    entry: Entry, phase: Phase, settings: KeySettings | None, now: float
) -> tuple[str, float] | None:
    record = entry.record
    if record is None:
        # It has not been compared with the JWKS yet.
        return None
    if phase is Phase.PENDING:
        asked = record.origin == "asked" and not record.published_at
        if asked and now - record.since > UNSETTLED_S / 2:
            # No request waits for it any more; only a write in flight could still publish it.
            return ("given up", record.since + UNSETTLED_S)
        return ("published", 0.0)
    if phase is Phase.PUBLISHED:
        return ("signs", record.signs_from)
    if settings is None:
        return None
    rotates = bool(settings.rotate_every_s)
    if phase is Phase.ACTIVE and rotates:
        return ("retires", record.since + settings.rotate_every_s)
    if phase is Phase.RETIRING and record.ends_at:
        return ("removed" if rotates else "removable", record.ends_at)
    return None


class Observer:
    """What one process has seen of folder and document, from which it takes its views.

    Attributes:
        place: where the document is that counts: another process's where this one has no store, and the
            folder has records of one.
        ring: swapped as a whole by ``refresh``.
        copy: the last good read of a document that exists; None before one.
        first_wanted: a first key is to be made if no key can ever sign.
    """

    def __init__(
        self,
        *,
        place: str,
        settings: KeySettings,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        log: Logger,
    ) -> None:
        """Know nothing yet of the document at ``place``."""
        self._own_place = self.place = place
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._log = log
        self.ring = KeyRing()
        self.copy: Document | None = None
        self.first_wanted = False
        self._snapshot = Snapshot()
        self._noted = -math.inf
        self._watched: dict[str, Watch] = {}
        self._prior = ""
        # Kids that were put into the document by the change under way; and into one that held no key.
        self._put: set[str] = set()
        self._unread: set[str] = set()
        # Own kids that a good read did not show, and when that read began.
        self._absent: dict[str, float] = {}
        self._revoked: frozenset[str] = frozenset()
        self._own: tuple[tuple[SigningKey, ...], Document] = ((), Document.empty())

    @property
    def snapshot(self) -> Snapshot:
        """The folder as it was last read."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, read: Snapshot) -> None:
        self._snapshot = read
        if self._own_place == OWN_PLACE:
            self.place = _published_in(read) or OWN_PLACE

    @property
    def follows(self) -> bool:
        """Whether this process changes nothing, since the folder has records of a store that it lacks."""
        return self.place != self._own_place

    @property
    def is_own(self) -> bool:
        """Whether the document is made of the folder's keys, without a store."""
        return self.place == OWN_PLACE

    @property
    def missed(self) -> bool:
        """Whether a good read did not show a key that should be there."""
        return bool(self._absent)

    def view(self, seen: Read | None, *, asked: str = "") -> View:
        """What a plan starts from.

        Args:
            seen: the document, when it was read just now.
            asked: the key that is being generated.
        """
        if self.is_own:
            seen = Read(self.own_document())
        self._watched = watch(
            self._watched, self.snapshot, self.place, now=self._clock(), monotonic=self._monotonic()
        )
        return View(
            now=self._clock(),
            monotonic=self._monotonic(),
            place=self.place,
            settings=self._settings,
            entries=self.snapshot.entries,
            watched=self._watched,
            read=seen is not None,
            document=seen.document if seen else None,
            own_document=self.is_own,
            revoked=self._revoked,
            unread=frozenset(self._unread),
            asked=asked,
            prior=self._prior,
            first_wanted=self.first_wanted,
            follows=self.follows,
        )

    def refresh(self) -> None:
        """Swap the ring for the one that the folder gives."""
        before, self.ring = self.ring, self.view(None).ring()
        kid, old = (ring.signing.kid if ring.signing else "" for ring in (self.ring, before))
        # A key that vanished stays the prior one until another has been found.
        self._prior = kid or self._prior
        if kid != old:
            say = self._log.info if kid else self._log.warning
            say("signing key changed", kid=kid, before=old)

    def settled(self) -> None:
        """Nothing is left to be done: forget what only mattered until then."""
        self._prior = self.ring.signing.kid if self.ring.signing else ""
        if self.ring.published:
            self.first_wanted = False

    def put_into(self, before: Document | None, keys: tuple[SigningKey, ...]) -> None:
        """Remember keys that the change under way has put into the document ``before``."""
        kids = {key.kid for key in keys}
        self._put |= kids
        if before is None or not before.keys:
            self._unread |= kids

    def forget_change(self) -> None:
        """The change under way is over."""
        self._put.clear()
        self._unread.clear()

    def note(self, document: Document | None, started: float, started_at: float) -> bool:
        """Remember a good read, and own confirmed keys that it does not show.

        Args:
            document: None when there is certainly none.
            started: when the read began, on the monotonic clock.
            started_at: the same, in unix seconds.

        Returns:
            Whether it differs from the last copy.
        """
        if started < self._noted:
            # A later read was quicker, and knows more.
            return False
        self._noted = started
        now = self._clock()
        missing = (
            entry.kid
            for entry in self.snapshot.entries.values()
            if document is not None
            and entry.key
            and entry.record
            and entry.record.phase_at(self.place) in CONFIRMED
            # Confirmed since the read began, it need not be in what was read. A time that is yet to come
            # was written before the clock was set back.
            and not started_at <= entry.record.published_at <= now + 1
            and not document.has(entry.kid, entry.key.thumbprint)
        )
        self._absent = {kid: self._absent.get(kid, started) for kid in missing}
        self._revoked = frozenset(
            kid for kid, since in self._absent.items() if started - since >= TWO_LOOKS_S
        )
        if document is None or document == self.copy:
            return False
        self.copy = document
        return True

    def own_document(self) -> Document:
        """The folder's own published keys: the document itself without a bucket."""
        keys = tuple(
            entry.key
            for entry in sorted(self.snapshot.entries.values(), key=age)
            if entry.key
            and (
                (phase := entry.record.phase_at(self.place) if entry.record else Phase.PENDING) in CONFIRMED
                or (entry.kid in self._put and phase is Phase.PENDING)
            )
        )
        if keys != self._own[0]:
            self._own = (keys, Document({"keys": [key.public_jwk() for key in keys]}))
        return self._own[1]


def watch(
    before: dict[str, Watch], snapshot: Snapshot, place: str, *, now: float, monotonic: float
) -> dict[str, Watch]:
    """Since when each key has been seen in its phase, for one more look."""
    watched = {}
    for kid, entry in snapshot.entries.items():
        record = entry.record
        phase = (record.phase_at(place), record.since) if record else (Phase.PENDING, 0.0)
        known = before.get(kid)
        watched[kid] = known if known and known.phase == phase else Watch(phase, now, monotonic)
    return watched


def _published_in(snapshot: Snapshot) -> str:
    """The store and path where a process with a store has published the folder's keys, or will; or ""."""
    records = [entry.record for entry in snapshot.entries.values() if entry.record]
    elsewhere = [record for record in records if record.place not in ("", OWN_PLACE)]
    newest = max(elsewhere, key=lambda record: (record.phase in CONFIRMED, record.published_at), default=None)
    return newest.place if newest else ""
