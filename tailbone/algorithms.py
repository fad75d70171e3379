"""The signature algorithms (RFC 7518 section 3.1) of keys and tokens, and the sizes of RSA keys."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Algorithm: TypeAlias = Literal["RS256", "ES256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "ES256")

NEW_RSA_BITS: Final = (2048, 3072, 4096)
"""The sizes of new keys."""

RSA_BITS: Final = range(2048, 8193)
"""The sizes of keys that are used. RFC 7518 section 3.3 asks for 2048 bits or more. A much larger key takes
so long for a signature that it stops the service."""

P256_BYTES: Final = 32
"""The length of each half of an ES256 signature (RFC 7518 section 3.4)."""
