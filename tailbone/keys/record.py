"""KeyRecord: the state of a key as stored on disk, and the transitions of its life. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from tailbone.errors import KeyFileError

Origin = Literal["first", "next", "asked", "adopted"]
Removal = Literal["delete", "set aside"]

OWN_LOCATION: Final = "the server itself"
"""The location of the document when no bucket is set."""

SKEW_S: Final = 300.0
"""Added to the time that a retired key stays published, to allow for clock skew."""

PENDING_TIMEOUT_S: Final = 60.0
"""When a pending key counts as never published: a change ends within 30 s, and this is twice that."""


class Phase(StrEnum):
    """The phases of a key's life. Users and the admin API see these names."""

    PENDING = "pending"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVING = "removing"
    UNPUBLISHED = "unpublished"
    """In the folder, absent from the JWKS: it never signs, and only housekeeping removes it."""


CONFIRMED: Final = (Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING)
"""The phases of a key whose public half has been read back from the document."""


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"location": "place"}):
    """The content of ``<kid>.state.json``. Times are in unix seconds, 0 for never.

    Each transition is a method that returns the next record.

    Attributes:
        thumbprint: the key's thumbprint. The record does not apply to another key with the same kid.
        origin: generated as the first key, as the next one, on request ("asked"), or found in the folder.
        phase: the key's phase in the document at ``location``. In any other document it is pending.
        since: when that phase began.
        made_at: when the key was generated or found.
        location: the store and path of the document; "" while unknown. Called ``place`` on disk.
        published_at: when its public half was last read back, at this or an earlier location.
        signs_from: when every cache of the JWKS has expired, so that the key may sign.
        expiry_s: the longest token lifetime in force while it signed, in seconds; 0 if it never signed.
        ends_at: when its last token has expired everywhere; 0 until it stops signing.
        removal: what happens to the files at the end of ``removing``; any process may finish it.
    """

    thumbprint: str
    origin: Origin
    phase: Phase
    since: float
    made_at: float
    location: str = ""
    published_at: float = 0.0
    signs_from: float = 0.0
    expiry_s: float = 0.0
    ends_at: float = 0.0
    removal: Removal = "delete"

    @classmethod
    def new(cls, thumbprint: str, origin: Origin, *, now: float, location: str = "") -> KeyRecord:
        """Return the record of a key that is generated or found now, for the document at ``location``."""
        return cls(
            thumbprint=thumbprint,
            origin=origin,
            phase=Phase.PENDING,
            since=now,
            made_at=now,
            location=location,
        )

    def published(self, location: str, *, now: float, signs_from: float) -> KeyRecord:
        """Record that the public half was read back at ``location``; a retired key stays retired."""
        return msgspec.structs.replace(
            self,
            phase=Phase.RETIRING if self.ends_at else Phase.PUBLISHED,
            since=now,
            location=location,
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
        """Record that the key no longer signs. It stays published until its last token has expired."""
        return msgspec.structs.replace(
            self, phase=Phase.RETIRING, since=now, ends_at=now + self.expiry_s + max_age_s + SKEW_S
        )

    def unpublished(self, location: str, *, now: float) -> KeyRecord:
        """Record that the document at ``location`` lacks this key, which will not be added to it."""
        return msgspec.structs.replace(self, phase=Phase.UNPUBLISHED, since=now, location=location)

    def removing(self, removal: Removal, *, now: float) -> KeyRecord:
        """Record that the key is being removed: from now on no process signs with it."""
        return msgspec.structs.replace(self, phase=Phase.REMOVING, since=now, removal=removal)

    def phase_at(self, location: str) -> Phase:
        """Return the phase in the document at ``location``."""
        return self.phase if self.location == location or self.phase is Phase.REMOVING else Phase.PENDING

    def to_json(self) -> bytes:
        """Return the file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> KeyRecord:
        """Read the file's content. The old form without a phase is accepted and converted.

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


class _OldState(msgspec.Struct, frozen=True, kw_only=True, rename={"location": "place"}):
    """The record before it had a phase, which was derived from these members and the clock."""

    thumbprint: str
    origin: Origin
    since: float
    meant_for: str = ""
    location: str = ""
    confirmed_at: float = 0.0
    signs_from: float = 0.0
    signing_since: float = 0.0
    expiry_s: float = 0.0
    ends_at: float = 0.0
    refused: str = ""
    removing: Literal["", "delete", "set aside"] = ""

    def record(self) -> KeyRecord:
        if self.removing:
            phase, since, location = Phase.REMOVING, self.since, self.location
        elif self.refused:
            phase, since, location = Phase.UNPUBLISHED, self.since, self.refused
        elif not self.location:
            phase, since, location = Phase.PENDING, self.since, self.meant_for
        elif self.ends_at:
            phase, since, location = Phase.RETIRING, self.signing_since, self.location
        elif self.signing_since:
            phase, since, location = Phase.ACTIVE, self.signing_since, self.location
        else:
            phase, since, location = Phase.PUBLISHED, self.confirmed_at, self.location
        return KeyRecord(
            thumbprint=self.thumbprint,
            origin=self.origin,
            phase=phase,
            since=since,
            made_at=self.since,
            location=location,
            published_at=self.confirmed_at,
            signs_from=self.signs_from,
            expiry_s=self.expiry_s,
            ends_at=self.ends_at,
            removal=self.removing or "delete",
        )


_DECODER = msgspec.json.Decoder(KeyRecord)
_OLD_DECODER = msgspec.json.Decoder(_OldState)
