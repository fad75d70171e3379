"""Issue tokens: apply the policy, build the claims, sign."""

from __future__ import annotations

import os
import time
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.token import claims, policy

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.keys.signing_key import SigningKey
    from tailbone.keys.view import KeyRing
    from tailbone.token.identity import Identity

_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, and the facts about it that may be logged.

    Attributes:
        token: the JWS in compact form (RFC 7515 section 3.1). Never log it: its holder can act as the caller.
        expires_at: the claim ``exp``, Unix time in seconds.
    """

    token: str
    expires_at: int
    sub: str
    kid: str
    jti: str
    aud: str | None
    node: str

    def __repr__(self) -> str:
        """Omit the token, since a repr ends up in logs and tracebacks."""
        return f"IssuedToken(sub={self.sub!r}, kid={self.kid!r}, jti={self.jti!r})"


class Issuer:
    """Issues tokens. Its only state is the encoded header of the key that signed last."""

    def __init__(
        self,
        rules: policy.Rules,
        ring: Callable[[], KeyRing],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Create an issuer.

        Args:
            rules: what a token may contain.
            ring: returns the current key ring.
            clock: returns Unix time in seconds.
        """
        self.rules = rules
        self._ring = ring
        self._clock = clock
        self._header_key: SigningKey | None = None
        self._header = b""
        self._encode = msgspec.json.Encoder().encode

    def admit(self, identity: Identity) -> policy.Admitted:
        """Check that ``identity`` may request tokens; raises what ``policy.admit`` raises."""
        return policy.admit(identity, self.rules)

    async def issue(self, caller: policy.Admitted, request: policy.TokenRequest) -> IssuedToken:
        """Sign a token for ``caller``.

        Raises:
            AudienceNotAllowedError: the audience is not allowed.
            BadParameterError: the lifetime is not allowed.
            NoSigningKeyError: no key is ready to sign.
        """
        rules = self.rules
        grant = policy.decide(request, rules)
        ring = self._ring()
        key = ring.require()
        content = claims.build(
            caller.identity,
            issuer=rules.issuer,
            audience=grant.audience,
            ttl_s=int(min(grant.ttl_s, ring.expiry_s)),
            backdate_s=rules.backdate_s,
            now=self._clock(),
            jti=os.urandom(16).hex(),
        )
        signing_input = self._header_of(key) + _base64url(self._encode(content))
        signature = await key.sign(signing_input)
        return IssuedToken(
            token=(signing_input + b"." + _base64url(signature)).decode("ascii"),
            expires_at=content.exp,
            sub=content.sub,
            kid=key.kid,
            jti=content.jti,
            aud=grant.audience,
            node=content.node,
        )

    def _header_of(self, key: SigningKey) -> bytes:
        """Return the encoded JOSE header and its dot, the same for all tokens of a key."""
        if key is not self._header_key:
            header = self._encode({"alg": key.algorithm, "kid": key.kid, "typ": "JWT"})
            self._header = _base64url(header) + b"."
            self._header_key = key
        return self._header


def _base64url(data: bytes) -> bytes:
    """Encode as unpadded base64url (RFC 7515 section 2); the base64 module takes twice as long."""
    return b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")
