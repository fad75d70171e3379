"""KeyState: what is kept on disk about a key beside its two halves, and the phase that follows from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from tailbone.errors import KeyFileError

Origin = Literal["first", "next", "asked", "adopted"]
Removing = Literal["", "delete", "set aside"]

OWN_PLACE: Final = "the server itself"
"""The place of the document without a bucket."""

SKEW_S: Final = 300.0
"""Added to the time that a retired key stays published, for clocks that disagree."""

UNSETTLED_S: Final = 60.0
"""A change is over within 30 s: what is unpublished after twice that was never going to be."""


class Phase(StrEnum):
    """Where a key stands in its life; the names are the ones that people and the admin API see."""

    PENDING = "pending"
    PUBLISHED = "published"
    ACTIVE = "active"
    RETIRING = "retiring"
    REMOVED = "removed"
    UNPUBLISHED = "unpublished"
    """In the folder, absent from the JWKS: it never signs, and only housekeeping takes it away."""


class KeyState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The content of ``<kid>.state.json``; times in unix seconds, 0 for never.

    Attributes:
        thumbprint: of the key that this is about; for another key under the same kid it counts for nothing.
        origin: made as the first key, as the next one, because somebody asked, or found in the folder.
        since: when it was made or found.
        meant_for: the store and path for which it was made; "" for a document that the server itself makes.
        place: the store and path where the public half was read back; "" before that.
        confirmed_at: when that was.
        signs_from: when the JWKS's caches have run out.
        signing_since: when it began to sign.
        expiry_s: the longest token life in force while it signed.
        ends_at: when its last token has expired everywhere; written when it stops signing.
        refused: the place whose document existed without this adopted key.
        removing: what is being done with it; whoever finds this finishes it.
    """

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
    removing: Removing = ""

    def phase(self, place: str, now: float) -> Phase:
        """The phase that follows, for the document at ``place`` and the time ``now`` (unix seconds)."""
        if self.removing:
            return Phase.REMOVED
        if self.place != place:
            return Phase.UNPUBLISHED if self.refused == place else Phase.PENDING
        if self.ends_at:
            return Phase.RETIRING
        # Having signed counts more than the clock, which may have been set back.
        if self.signing_since or self.signs_from <= now:
            return Phase.ACTIVE
        return Phase.PUBLISHED

    def to_json(self) -> bytes:
        """The file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> KeyState:
        """Read the file's content.

        Raises:
            KeyFileError: it is none.
        """
        try:
            return _DECODER.decode(data)
        except (msgspec.DecodeError, ValueError):
            raise KeyFileError("is no state of a key; was it cut short?") from None


_DECODER = msgspec.json.Decoder(KeyState)
