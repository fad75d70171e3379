"""KeyRing: which key signs now, and which are published."""

from __future__ import annotations

import math

import msgspec

from tailbone.errors import NoSigningKeyError
from tailbone.keys.signing_key import SigningKey  # noqa: TC001 -- msgspec resolves it


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
            NoSigningKeyError: none may.
        """
        if self.signing is None:
            raise NoSigningKeyError("no key can sign yet; try again in a moment")
        return self.signing
