"""View: what follows from folder, document and clocks at one moment; no I/O."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from tailbone.errors import NoSigningKeyError, Problem
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, Snapshot, age
from tailbone.keys.record import CONFIRMED, OWN_PLACE, UNSETTLED_S, Phase
from tailbone.keys.settings import KeySettings  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.signing_key import SigningKey, created_at_of

TWO_LOOKS_S: Final = 30.0
"""How far apart two looks have to be that together show what one alone does not."""

_NO_KEY: Final = "keys: there is no key that can sign: make one with  tailbone keys generate"


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
        """Return the key that signs now.

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
    """A good read of the document.

    Attributes:
        document: None when there is certainly none.
        fresh: kids that this process has just put into a document without a key: no cache can lack them.
    """

    document: Document | None
    fresh: frozenset[str] = frozenset()


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
        seen: a good read of the document; without one only what needs none is planned.
        kept: the document as the folder keeps it for a start without the store.
        revoked: own confirmed keys that two good reads did not show.
        asked: the key that is being generated at this moment.
        unwanted: the kid that is being removed at this moment.
        prior: a key signs in this process, or did until this change of the folder.
        first_wanted: a first key is to be made if no key can ever sign.
        follows: this process has no store and the folder has records of one, so that it changes nothing.
    """

    now: float
    monotonic: float
    place: str
    settings: KeySettings
    entries: dict[str, Entry]
    watched: dict[str, Watch] = {}
    seen: Read | None = None
    kept: Document | None = None
    revoked: frozenset[str] = frozenset()
    asked: str = ""
    unwanted: str = ""
    prior: bool = False
    first_wanted: bool = False
    follows: bool = False

    @property
    def document(self) -> Document | None:
        """The published document; None when there is none, or it has not been read."""
        return self.seen.document if self.seen else None

    def phase(self, entry: Entry) -> Phase:
        """Return the entry's phase in the document that is meant."""
        return entry.phase_at(self.place)

    def in_document(self, entry: Entry) -> bool:
        """Tell whether this very key is in the document."""
        return self.document is not None and self.document.has(entry.kid, entry.thumbprint)

    def missing(self, document: Document | None, started: float) -> list[str]:
        """Return own confirmed keys that a good read does not show.

        Args:
            document: None when there is certainly none; then nothing is missing.
            started: when the read began, on the monotonic clock; a key confirmed later need not be in it.
        """
        return [
            entry.kid
            for entry in self.usable
            if document is not None
            and self.phase(entry) in CONFIRMED
            and self.watched[entry.kid].monotonic <= started
            and not document.has(entry.kid, entry.thumbprint)
        ]

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
        """Return how long the entry's wait in its phase goes on, in seconds; over when not positive.

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
        """Return which key signs, and which are published."""
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

    def obstacles(self) -> list[Problem]:
        """Return why no key signs, a reason for each key; empty when one does."""
        if self.signing is not None:
            return []
        found = []
        for entry in sorted(self.entries.values(), key=age):
            phase = self.phase(entry)
            if entry.fault:
                found.append(Problem("key_faulty", f"keys: {entry.kid} cannot be used: {entry.fault}"))
            elif phase is Phase.PENDING:
                found.append(Problem("key_not_published", f"keys: {entry.kid} is not published yet"))
            elif phase is Phase.PUBLISHED and entry.record:
                wait_s = max(0.0, self.wait_s(entry))
                text = f"keys: {entry.kid} is published and signs in {wait_s:.0f} s"
                found.append(Problem("key_waiting", text))
        return found or [Problem("no_key", _NO_KEY)]

    def wait_s(self, entry: Entry) -> float:
        """Return how long a published key still waits until it signs, in seconds."""
        record = entry.record
        return self.remaining_s(entry, record.signs_from, record.signs_from - record.since) if record else 0.0

    def listing(self) -> tuple[KeyInfo, ...]:
        """List the keys of the document and own ones on their way into it, the oldest first."""
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


def published_in(snapshot: Snapshot) -> str:
    """Return where a process with a store publishes the folder's keys; ``OWN_PLACE`` where none does."""
    records = [entry.record for entry in snapshot.entries.values() if entry.record]
    elsewhere = [record for record in records if record.place not in ("", OWN_PLACE)]
    newest = max(elsewhere, key=lambda record: (record.phase in CONFIRMED, record.published_at), default=None)
    return newest.place if newest else OWN_PLACE


def own_document(snapshot: Snapshot, place: str) -> Document:
    """Return the folder's published keys: the document without a bucket, where a new key is in it at once."""
    shown = (*CONFIRMED, Phase.PENDING) if place == OWN_PLACE else CONFIRMED
    entries = sorted(snapshot.entries.values(), key=age)
    keys = [entry.key for entry in entries if entry.key and entry.phase_at(place) in shown]
    return Document({"keys": [key.public_jwk() for key in keys]})


def watch(
    before: dict[str, Watch], snapshot: Snapshot, place: str, *, now: float, monotonic: float
) -> dict[str, Watch]:
    """Return since when each key has been seen in its phase, after one more look."""
    watched = {}
    for kid, entry in snapshot.entries.items():
        phase = (entry.phase_at(place), entry.record.since if entry.record else 0.0)
        known = before.get(kid)
        watched[kid] = known if known and known.phase == phase else Watch(phase, now, monotonic)
    return watched


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
    phase = entry.phase_at(place or (entry.record.place if entry.record else ""))
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
