"""KeyRecord: what is kept on disk about a key, and the transitions of its life; pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from tailbone.errors import KeyFileError

Origin = Literal["first", "next", "asked", "adopted"]
Removal = Literal["delete", "set aside"]

OWN_PLACE: Final = "the server itself"
"""The place of the document without a bucket."""

SKEW_S: Final = 300.0
"""Added to the time that a retired key stays published, for clocks that disagree."""

UNSETTLED_S: Final = 60.0
"""A change is over within 30 s: a key that is unpublished after twice that will not be published."""


class Phase(StrEnum):
    """Where a key stands in its life; the names are the ones that people and the admin API see."""

    PENDING = "pending"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVING = "removing"
    UNPUBLISHED = "unpublished"
    """In the folder, absent from the JWKS: it never signs, and only housekeeping takes it away."""


CONFIRMED: Final = (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
"""The phases of a key whose public half has been read back from the document."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of ``<kid>.state.json``; times in unix seconds, 0 for never.

    Each method is one transition, and returns the next record.

    Attributes:
        thumbprint: of the key that this is about; it says nothing about another key under the same kid.
        origin: made as the first key, as the next one, on request, or found in the folder.
        phase: where the key stands, in the document at ``place``; in any other document it is pending.
        since: when that phase began.
        made_at: when the key was made or found.
        place: the store and path that ``phase`` is about; "" before one is known.
        published_at: when its public half was last read back, here or in an earlier place.
        signs_from: when the JWKS's caches have run out.
        expiry_s: the longest token life in force while it signed, in seconds; 0 when it never signed.
        ends_at: when its last token has expired everywhere; known once it no longer signs.
        removal: what the phase ``removing`` ends with; any process that finds it finishes it.
    """

    thumbprint: str
    origin: Origin
    phase: Phase
    since: float
    made_at: float
    place: str = ""
    published_at: float = 0.0
    signs_from: float = 0.0
    expiry_s: float = 0.0
    ends_at: float = 0.0
    removal: Removal = "delete"

    @classmethod
    def new(cls, thumbprint: str, origin: Origin, *, now: float, place: str = "") -> KeyRecord:
        """Make the record of a key that is made or found now, and is to be published at ``place``."""
        return cls(
            thumbprint=thumbprint, origin=origin, phase=Phase.PENDING, since=now, made_at=now, place=place
        )

    def published(self, place: str, *, now: float, signs_from: float) -> KeyRecord:
        """Record that the public half was read back at ``place``; a key retired elsewhere stays so."""
        return msgspec.structs.replace(
            self,
            phase=Phase.RETIRING if self.ends_at else Phase.PUBLISHED,
            since=now,
            place=place,
            published_at=now,
            signs_from=signs_from,
        )

    def active(self, *, now: float, expiry_s: float) -> KeyRecord:
        """Record that the key signs from now on, tokens of at most ``expiry_s`` seconds."""
        return msgspec.structs.replace(
            self,
            phase=Phase.ACTIVE,
            since=now,
            signs_from=min(self.signs_from, now),
            expiry_s=max(self.expiry_s, expiry_s),
            ends_at=0.0,
        )

    def with_expiry(self, expiry_s: float) -> KeyRecord:
        """Record that the key signs, or may have signed, tokens of up to ``expiry_s`` seconds."""
        return msgspec.structs.replace(self, expiry_s=max(self.expiry_s, expiry_s))

    def retiring(self, *, now: float, max_age_s: float) -> KeyRecord:
        """Record that the key no longer signs; it stays published until its last token has expired."""
        return msgspec.structs.replace(
            self, phase=Phase.RETIRING, since=now, ends_at=now + self.expiry_s + max_age_s + SKEW_S
        )

    def unpublished(self, place: str, *, now: float) -> KeyRecord:
        """Record that the document at ``place`` exists without this key, and does not get it."""
        return msgspec.structs.replace(self, phase=Phase.UNPUBLISHED, since=now, place=place)

    def removing(self, removal: Removal, *, now: float) -> KeyRecord:
        """Record that the key is on its way out: from now on no process signs with it."""
        return msgspec.structs.replace(self, phase=Phase.REMOVING, since=now, removal=removal)

    def phase_at(self, place: str) -> Phase:
        """Return the phase in the document at ``place``."""
        return self.phase if self.place == place or self.phase is Phase.REMOVING else Phase.PENDING

    def to_json(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> KeyRecord:
        """Read the file's content, also in the form without a phase; the next write gives it this one.

        Raises:
            KeyFileError: it is not a record.
        """
        try:
            with_phase = msgspec.json.decode(data, type=_HasPhase).phase is not None
            return _DECODER.decode(data) if with_phase else _OLD_DECODER.decode(data).record()
        except (msgspec.DecodeError, ValueError):
            raise KeyFileError("is not a key's record; was it cut short?") from None


class _HasPhase(msgspec.Struct):
    phase: str | None = None


class _OldState(msgspec.Struct, frozen=True, kw_only=True):
    """The record as it was before it had a phase, which followed from these members and the clock."""

    thumbprint: str
    origin: Origin
    since: float
    meant_for: str = ""
    place: str = ""
    confirmed_at: float = 0.0
    signs_from: float = 0.0
    signing_since: float = 0.0
    expiry_s: float = 0.0
    ends_at: float = 0.0
    refused: str = ""
    removing: Literal["", "delete", "set aside"] = ""

    def record(self) -> KeyRecord:
        if self.removing:
            phase, since, place = Phase.REMOVING, self.since, self.place
        elif self.refused:
            phase, since, place = Phase.UNPUBLISHED, self.since, self.refused
        elif not self.place:
            phase, since, place = Phase.PENDING, self.since, self.meant_for
        elif self.ends_at:
            phase, since, place = Phase.RETIRING, self.signing_since, self.place
        elif self.signing_since:
            phase, since, place = Phase.ACTIVE, self.signing_since, self.place
        else:
            phase, since, place = Phase.PUBLISHED, self.confirmed_at, self.place
        return KeyRecord(
            thumbprint=self.thumbprint,
            origin=self.origin,
            phase=phase,
            since=since,
            made_at=self.since,
            place=place,
            published_at=self.confirmed_at,
            signs_from=self.signs_from,
            expiry_s=self.expiry_s,
            ends_at=self.ends_at,
            removal=self.removing or "delete",
        )


_DECODER = msgspec.json.Decoder(KeyRecord)
_OLD_DECODER = msgspec.json.Decoder(_OldState)
