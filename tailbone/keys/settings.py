"""KeySettings: the settings that a key's life depends on."""

from __future__ import annotations

import msgspec

from tailbone.algorithms import Algorithm  # noqa: TC001 -- msgspec resolves it


class KeySettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that a key's life depends on.

    Attributes:
        prefix: of new kids, as the setting key.prefix allows it.
        algorithm: of new keys.
        size: of new RSA keys, in bits.
        expiry_s: longest lifetime of a token, in seconds.
        max_age_s: how long caches may keep the JWKS, in seconds.
        activate_after_s: how long a published key waits before it signs, in seconds.
        rotate_every_s: how long a key signs before the next one replaces it, in seconds; 0 disables rotation.
        conditional_writes: False if this is the only writer to a store that ignores conditions.
    """

    prefix: str
    algorithm: Algorithm
    size: int
    expiry_s: float
    max_age_s: float
    activate_after_s: float
    rotate_every_s: float
    conditional_writes: bool
