"""View: the folder, the document and the clocks at one moment, and what follows from them. Pure."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from tailbone.errors import NoSigningKeyError, Problem
from tailbone.jwks.document import Document
from tailbone.keys.folder import Entry, Snapshot, age
from tailbone.keys.record import CONFIRMED, OWN_LOCATION, Phase
from tailbone.keys.settings import KeySettings  # noqa: TC001 -- msgspec resolves it
from tailbone.keys.signing_key import SigningKey  # noqa: TC001 -- msgspec resolves it

REVOCATION_CONFIRM_S: Final = 30.0
"""Minimum interval between two reads before a missing key counts as revoked."""

_NO_KEY: Final = "keys: there is no key that can sign: make one with  tailbone keys generate"


class KeyRing(msgspec.Struct, frozen=True, kw_only=True):
    """The key that signs and the published keys. Immutable, so readers need no lock.

    Attributes:
        signing: the key that signs now; None if no key may sign.
        expiry_s: the longest lifetime of its tokens, in seconds: ``keys.expiry`` from that key's record, from
            which another process may compute when the key ends.
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


class Read(msgspec.Struct, frozen=True):
    """A successful read of the document.

    Attributes:
        document: None if there certainly is none.
        fresh: kids that this process has just added to a document without keys, so that no cache lacks them.
    """

    document: Document | None
    fresh: frozenset[str] = frozenset()


class Watch(msgspec.Struct, frozen=True):
    """When this process first saw a key in its phase.

    Attributes:
        phase: the phase, and since when the record has it.
        clock: unix seconds.
        monotonic: seconds on the monotonic clock.
    """

    phase: tuple[Phase, float]
    clock: float
    monotonic: float


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a plan depends on.

    Attributes:
        now: unix seconds.
        monotonic: seconds on the monotonic clock.
        location: the location of the document. A record for another location does not confirm a key.
        settings: the current settings.
        entries: the folder's keys.
        watched: when this process first saw each key in its phase.
        last_read: the last successful read; if None, only steps that need no read are planned.
        saved_copy: the copy of the document in the folder, for a start while the store is unreachable.
        revoked: own confirmed keys that two successful reads did not show.
        had_signer: whether a key signed in this process before the last change of the folder.
        needs_first_key: whether to generate a key if no key can ever sign.
    """

    now: float
    monotonic: float
    location: str
    settings: KeySettings
    entries: dict[str, Entry]
    watched: dict[str, Watch] = {}
    last_read: Read | None = None
    saved_copy: Document | None = None
    revoked: frozenset[str] = frozenset()
    had_signer: bool = False
    needs_first_key: bool = False

    @property
    def document(self) -> Document | None:
        """The published document; None if there is none, or it has not been read."""
        return self.last_read.document if self.last_read else None

    def phase(self, entry: Entry) -> Phase:
        """Return the entry's phase in this document."""
        return entry.phase_at(self.location)

    def in_document(self, entry: Entry) -> bool:
        """Return whether the document contains this key, with the same thumbprint."""
        return self.document is not None and self.document.has(entry.kid, entry.thumbprint)

    def missing(self, document: Document | None, started: float) -> list[str]:
        """Return own confirmed keys that a successful read does not show.

        Args:
            document: None if there certainly is none; then no key is missing.
            started: when the read began, on the monotonic clock. A key confirmed later may be absent from it.
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
        """The entries whose key can be used, oldest first."""
        return sorted((entry for entry in self.entries.values() if entry.key is not None), key=age)

    @property
    def signing(self) -> Entry | None:
        """The entry that signs: the newest of the active keys."""
        active = [entry for entry in self.usable if self.phase(entry) is Phase.ACTIVE]
        return active[-1] if active else None

    def remaining_s(self, entry: Entry, end: float, full_s: float, *, at_least_s: float = 0.0) -> float:
        """Return how long the entry still waits in its phase, in seconds; the wait is over if not positive.

        A wait ends when wall clock and monotonic clock agree that it has ended. By the monotonic clock, it
        never takes longer than its full length. Time before this process started can be measured only by the
        wall clock.

        Args:
            entry: a key that is watched.
            end: the recorded end of the wait, in unix seconds.
            full_s: the full length of the wait, in seconds.
            at_least_s: how long this process waits in any case, in seconds.
        """
        watch = self.watched[entry.kid]
        passed_s = self.monotonic - watch.monotonic
        left_s = max(end - watch.clock, at_least_s)
        return min(max(end - self.now, left_s - passed_s), max(full_s, at_least_s) - passed_s)

    def ring(self) -> KeyRing:
        """Return the key that signs and the published keys."""
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
        """Return why no key signs, with a reason for each key; empty if a key signs."""
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
        """Return how long a published key still waits before it signs, in seconds."""
        record = entry.record
        return self.remaining_s(entry, record.signs_from, record.signs_from - record.since) if record else 0.0


def published_in(snapshot: Snapshot) -> str:
    """Return where processes with a store publish the folder's keys; ``OWN_LOCATION`` if there are none."""
    records = [entry.record for entry in snapshot.entries.values() if entry.record]
    elsewhere = [record for record in records if record.location not in ("", OWN_LOCATION)]
    newest = max(elsewhere, key=lambda record: (record.phase in CONFIRMED, record.published_at), default=None)
    return newest.location if newest else OWN_LOCATION


def own_document(snapshot: Snapshot, location: str) -> Document:
    """Return the document of the folder's own keys. Without a bucket, new keys are in it at once."""
    shown = (*CONFIRMED, Phase.PENDING) if location == OWN_LOCATION else CONFIRMED
    entries = sorted(snapshot.entries.values(), key=age)
    keys = [entry.key for entry in entries if entry.key and entry.phase_at(location) in shown]
    return Document({"keys": [key.public_jwk() for key in keys]})


def watch(
    before: dict[str, Watch], snapshot: Snapshot, location: str, *, now: float, monotonic: float
) -> dict[str, Watch]:
    """Return since when each key has been in its phase, given the earlier answer and the folder now."""
    watched = {}
    for kid, entry in snapshot.entries.items():
        phase = (entry.phase_at(location), entry.record.since if entry.record else 0.0)
        known = before.get(kid)
        watched[kid] = known if known and known.phase == phase else Watch(phase, now, monotonic)
    return watched
