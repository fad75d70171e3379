"""Knowledge: what is known of folder and document now, and the ring that follows; no I/O."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.jwks.document import Document
from tailbone.keys.facts import Facts, age, signing_entry
from tailbone.keys.folder import Snapshot
from tailbone.keys.listing import KeyInfo, describe, describe_foreign
from tailbone.keys.record import OWN_PLACE, Phase
from tailbone.keys.ring import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.keys.folder import Entry
    from tailbone.keys.settings import KeySettings
    from tailbone.keys.signing_key import SigningKey
    from tailbone.process.log import Logger

REVOKED_AFTER_S: Final = 30.0
"""How far apart two good reads have to be that together show a key to be revoked."""

_CONFIRMED: Final = (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)


class Read(msgspec.Struct, frozen=True):
    """A good read of the document: None when there is certainly none."""

    document: Document | None

    def has(self, key: SigningKey) -> bool:
        """Whether this very key is in it."""
        return self.document is not None and self.document.has(key.kid, key.thumbprint)


class Knowledge:
    """Everything that a plan depends on, in one process.

    Attributes:
        place: where the document is that counts.
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
        self._own_place = place
        self._followed = ""
        self._snapshot = Snapshot()
        self._noted = 0.0
        self.ring = KeyRing()
        self.copy: Document | None = None
        self.first_wanted = False
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        # Kid to its phase, and since when it has been seen in that.
        self._observed: dict[str, tuple[Phase, float]] = {}
        self._log = log
        self._prior = ""
        # Kids that were put into the document by the change under way; and into one that held no key.
        self._put: set[str] = set()
        self._unread: set[str] = set()
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
        self._followed = ""
        if self._own_place == OWN_PLACE:
            self._followed = _published_by_others(read)

    @property
    def place(self) -> str:
        """Where the document is: another process's where this one has no store, and that one publishes."""
        return self._followed or self._own_place

    @property
    def follows(self) -> bool:
        """Whether other processes publish this folder's keys, and this one only signs with them."""
        return bool(self._followed)

    @property
    def is_own(self) -> bool:
        """Whether the document is made of the folder's keys, without a store."""
        return self.place == OWN_PLACE

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What is in the folder, the oldest first."""
        return tuple(sorted(self.snapshot.entries.values(), key=age))

    @property
    def missed(self) -> bool:
        """Whether a good read did not show a key that should be there."""
        return bool(self._absent)

    def phase(self, entry: Entry) -> Phase:
        """An entry's phase now; pending without a state."""
        return entry.state.phase(self.place, self._clock()) if entry.state else Phase.PENDING

    def facts(self, seen: Read | None, *, asked: str = "") -> Facts:
        """What a plan starts from.

        Args:
            seen: the document, when it was read just now.
            asked: the key that is being generated.
        """
        if self.is_own:
            seen = Read(self.own_document())
        return Facts(
            now=self._clock(),
            place=self.place,
            settings=self._settings,
            entries=self.snapshot.entries,
            read=seen is not None,
            document=seen.document if seen else None,
            own_document=self.is_own,
            revoked=self._revoked,
            unread=frozenset(self._unread),
            asked=asked,
            prior=self._prior,
            first_wanted=self.first_wanted,
            observed_s=self._observe(),
            follows=self.follows,
        )

    def _observe(self) -> dict[str, float]:
        now = self._monotonic()
        before, self._observed = self._observed, {}
        for kid, entry in self.snapshot.entries.items():
            phase = self.phase(entry)
            known = before.get(kid)
            self._observed[kid] = known if known and known[0] is phase else (phase, now)
        return {kid: now - since for kid, (_, since) in self._observed.items()}

    def refresh(self) -> None:
        """Swap the ring for the one that folder and time give."""
        entry = signing_entry(self.facts(None))
        signing = entry.key if entry else None
        published = (other.key for other in reversed(self.entries) if self.phase(other) in _CONFIRMED)
        before, self.ring = (
            self.ring.signing,
            KeyRing(
                signing=signing,
                expiry_s=entry.state.expiry_s if entry and entry.state else math.inf,
                published=tuple(key for key in published if key is not None),
            ),
        )
        kid, old = (key.kid if key else "" for key in (signing, before))
        # A key that vanished stays the prior one until settled has found another.
        self._prior = kid or self._prior
        if kid != old:
            say = self._log.info if kid else self._log.warning
            say("signing key changed", kid=kid, before=old)

    def settled(self) -> None:
        """There is nothing left to be done: forget what only mattered until then."""
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
            ()
            if document is None
            else (
                entry.kid
                for entry in self.entries
                if entry.key
                and entry.state
                and self.phase(entry) in _CONFIRMED
                # Confirmed since the read began, it need not be in what was read. A time that is yet to come
                # was written before the clock was set back.
                and not started_at <= entry.state.confirmed_at <= now + 1
                and not document.has(entry.kid, entry.key.thumbprint)
            )
        )
        self._absent = {kid: self._absent.get(kid, started) for kid in missing}
        self._revoked = frozenset(
            kid for kid, since in self._absent.items() if started - since >= REVOKED_AFTER_S
        )
        if document is None or document == self.copy:
            return False
        self.copy = document
        return True

    def own_document(self) -> Document:
        """The folder's own published keys: the document itself without a bucket."""
        keys = tuple(
            entry.key
            for entry in self.entries
            if entry.key
            and (
                self.phase(entry) in _CONFIRMED
                or (entry.kid in self._put and self.phase(entry) is Phase.PENDING)
            )
        )
        if keys != self._own[0]:
            self._own = (keys, Document({"keys": [key.public_jwk() for key in keys]}))
        return self._own[1]

    def listing(self, document: Document | None) -> tuple[KeyInfo, ...]:
        """The keys of the document and own ones on their way into it, the oldest first."""
        now, signing = self._clock(), self.ring.signing
        own = [
            describe(
                entry,
                place=self.place,
                now=now,
                settings=self._settings,
                signing=signing.kid if signing else "",
            )
            for entry in self.entries
            if (entry.key and self.phase(entry) in (*_CONFIRMED, Phase.PENDING))
            or (entry.fault and document and document.has_kid(entry.kid))
        ]
        ours = {(entry.kid, entry.thumbprint) for entry in self.entries}
        foreign = describe_foreign(document, ours) if document else []
        return tuple(sorted([*own, *foreign], key=lambda info: (info.created_at, info.key_id)))

    def obstacles(self) -> list[str]:
        """Why no key signs, a reason a key."""
        if self.ring.signing is not None:
            return []
        found = []
        for entry in self.entries:
            phase = self.phase(entry)
            if entry.fault:
                found.append(f"keys: {entry.kid} cannot be used: {entry.fault}")
            elif phase is Phase.PENDING:
                found.append(f"keys: {entry.kid} is not published yet")
            elif phase is Phase.PUBLISHED and entry.state:
                wait_s = max(0.0, entry.state.signs_from - self._clock())
                found.append(f"keys: {entry.kid} is published and signs in {wait_s:.0f} s")
        return found or ["keys: there is no key that can sign: make one with  tailbone keys generate"]


def _published_by_others(snapshot: Snapshot) -> str:
    """The place where a process with a store has published the folder's keys last, or will; "" for none."""
    states = [entry.state for entry in snapshot.entries.values() if entry.state]
    published = [state for state in states if state.place not in ("", OWN_PLACE)]
    if published:
        return max(published, key=lambda state: state.confirmed_at).place
    return next((state.meant_for for state in states if state.meant_for and not state.place), "")
