"""SigningKey: a private JSON Web Key that signs tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, Self, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwcrypto import jwk
from jwcrypto.common import JWException

from tailbone.algorithms import P256_BYTES, RSA_BITS, Algorithm
from tailbone.errors import KeyFileError
from tailbone.json_object import parse_object

_SHA256: Final = hashes.SHA256()
_PKCS1: Final = padding.PKCS1v15()
_ECDSA: Final = ec.ECDSA(_SHA256)
_TRIAL: Final = b"does this key verify what it signs?"
# Measured: a round trip to a thread takes 0.1 ms, a 2048-bit signature 0.3 to 0.9 ms, a 3072-bit one over
# 2 ms.
_INLINE_RSA_BITS: Final = 2048
# At least nine digits: "key-2" does not contain a time, and neither does a kid's random suffix.
_KID_TIME: Final = re.compile(r".*-(?P<seconds>[0-9]{9,12})(?:-[0-9a-f]{4})?", re.DOTALL)

# By thumbprint.
_UNDER_WAY: Final[dict[str, set[asyncio.Future[bytes]]]] = {}

_PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class SigningKey:
    """A private key with its kid. Its repr and errors do not contain the private half.

    Attributes:
        kid: the key's id, as in file names, JWKS and token headers.
        algorithm: JWS algorithm (RFC 7518 section 3.1).
        size: bits of the modulus or curve.
        created_at: unix seconds.
        signs_inline: whether signatures are made on the event loop, not in threads.
        thumbprint: SHA-256 thumbprint of the public half (RFC 7638), base64url without padding.
    """

    __slots__ = (
        "_private",
        "_public",
        "algorithm",
        "created_at",
        "kid",
        "signs_inline",
        "size",
        "thumbprint",
    )

    def __init__(self, *, kid: str, private: _PrivateKey, created_at: float) -> None:
        """Wrap a loaded key; ``created_at`` in unix seconds."""
        self.kid = kid
        self.created_at = created_at
        self.size: int = private.key_size
        self.algorithm: Algorithm = "RS256" if isinstance(private, rsa.RSAPrivateKey) else "ES256"
        self._private = private
        self.signs_inline = self.algorithm == "ES256" or self.size <= _INLINE_RSA_BITS
        public = jwk.JWK.from_pyca(private.public_key())
        self.thumbprint: str = public.thumbprint()
        members = cast("dict[str, str]", public.export_public(as_dict=True))
        members.pop("kid", None)
        self._public = {"kty": members.pop("kty"), "use": "sig", "alg": self.algorithm, "kid": kid, **members}

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r}, {self.algorithm}, {self.size})"

    @classmethod
    def generate(cls, kid: str, *, algorithm: Algorithm, size: int, created_at: float) -> Self:
        """Generate a key. Large ones take seconds, so call it in a thread (the GIL is released).

        Args:
            kid: the new key's id.
            algorithm: RS256 or ES256.
            size: bits of an RSA key; ignored for ES256.
            created_at: unix seconds.
        """
        private: _PrivateKey
        if algorithm == "RS256":
            private = rsa.generate_private_key(65537, size)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        return cls(kid=kid, private=private, created_at=created_at)

    @classmethod
    def from_jwk(cls, data: bytes, *, fallback_created_at: float) -> Self:
        """Read a private JWK (RFC 7517), as this program and the Go program write it.

        Args:
            data: the JSON text.
            fallback_created_at: unix seconds, for a kid that does not contain a time.

        Raises:
            KeyFileError: malformed, of an unsupported kind, or its members do not match.
        """
        members = parse_jwk(data)
        kid = members.get("kid")
        if not isinstance(kid, str) or not kid:
            raise KeyFileError("has no kid")
        if members.get("use", "sig") != "sig":
            raise KeyFileError('has another use than "sig"')
        private = _load(members)
        created_at = created_at_of(kid)
        key = cls(
            kid=kid, private=private, created_at=fallback_created_at if created_at is None else created_at
        )
        if members.get("alg", key.algorithm) != key.algorithm:
            kind = "RSA" if key.algorithm == "RS256" else "P-256"
            raise KeyFileError(f"has the wrong alg: {kind} keys must be {key.algorithm}")
        key._try_out()
        return key

    def renamed(self, kid: str, *, created_at: float) -> Self:
        """Return the same key with another kid and creation time (unix seconds)."""
        return type(self)(kid=kid, private=self._private, created_at=created_at)

    def private_jwk(self) -> bytes:
        """Return the private JWK as JSON text, in the form of the Go program's files."""
        members = cast("dict[str, str]", jwk.JWK.from_pyca(self._private).export_private(as_dict=True))
        members.update(kid=self.kid, alg=self.algorithm)
        return (json.dumps(members, indent=2, sort_keys=True) + "\n").encode()

    def public_jwk(self) -> dict[str, str]:
        """Return the public JWK (RFC 7517 section 4): ``kty``, ``use``, ``alg``, ``kid``, then the key."""
        return dict(self._public)

    async def sign(self, data: bytes) -> bytes:
        """Sign, as a JWS signature (RFC 7518 sections 3.3 and 3.4).

        Small keys sign on the event loop, where a signature costs less than a round trip to a thread.
        Large keys sign in a thread, so that other callers do not wait.
        """
        if self.signs_inline:
            return self._sign(data)
        signature = asyncio.get_running_loop().run_in_executor(_signers(), self._sign, data)
        under_way = _UNDER_WAY.setdefault(self.thumbprint, set())
        under_way.add(signature)
        signature.add_done_callback(under_way.discard)
        return await signature

    async def wait_for_signatures(self, within_s: float) -> None:
        """Wait at most ``within_s`` seconds for signatures with this key that are in progress in threads.

        The file may have been read again in the meantime, so signatures by all instances count.
        """
        under_way = _UNDER_WAY.get(self.thumbprint)
        if under_way:
            await asyncio.wait(set(under_way), timeout=within_s)

    def _sign(self, data: bytes) -> bytes:
        private = self._private
        if isinstance(private, rsa.RSAPrivateKey):
            return private.sign(data, _PKCS1, _SHA256)
        r, s = decode_dss_signature(private.sign(data, _ECDSA))
        return r.to_bytes(P256_BYTES, "big") + s.to_bytes(P256_BYTES, "big")

    def _try_out(self) -> None:
        private = self._private
        try:
            if isinstance(private, rsa.RSAPrivateKey):
                private.public_key().verify(self._sign(_TRIAL), _TRIAL, _PKCS1, _SHA256)
            else:
                private.public_key().verify(private.sign(_TRIAL, _ECDSA), _TRIAL, _ECDSA)
        except (InvalidSignature, ValueError):
            raise KeyFileError("does not verify what it signs: its members do not belong together") from None


def parse_jwk(data: bytes) -> dict[str, object]:
    """Read one JWK's members.

    Raises:
        KeyFileError: not a JSON object in UTF-8.
    """
    members = parse_object(data)
    if members is None:
        raise KeyFileError("is not a JSON object; was it cut short?")
    return members


def thumbprint_of(members: dict[str, object]) -> str:
    """Return the RFC 7638 thumbprint of a JWK.

    Raises:
        KeyFileError: a member is missing or malformed, or the kind is unknown.
    """
    try:
        return str(jwk.JWK(**members).thumbprint())
    except (JWException, ValueError, TypeError, KeyError):
        raise KeyFileError("is not a JSON Web Key of a known kind") from None


def created_at_of(kid: str) -> int | None:
    """Return the creation time in a kid of the form ``<prefix>-<seconds>[-<4 hex digits>]``.

    Parsed from the right, since a prefix may contain dashes.

    Returns:
        Unix seconds, or None for a kid of another form.
    """
    match = _KID_TIME.fullmatch(kid)
    return int(match["seconds"]) if match else None


def _load(members: dict[str, object]) -> _PrivateKey:
    try:
        key = jwk.JWK(**members)
        # OpenSSL's check of a 4096-bit key takes 0.3 s and holds the GIL for it: _belongs_together and a
        # trial signature find the same damage in a millisecond.
        key.unsafe_skip_rsa_key_validation = True
        private = key.get_op_key("sign")
    except (JWException, ValueError, TypeError, KeyError):
        raise KeyFileError("is not a private RSA or P-256 key") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if not _belongs_together(private.private_numbers()):
            raise KeyFileError("has members that do not belong together")
        if private.key_size not in RSA_BITS:
            raise KeyFileError(
                f"has {private.key_size} bits; from {RSA_BITS[0]} to {RSA_BITS[-1]} are allowed "
                "(RFC 7518 section 3.3)"
            )
        return private
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return private
    raise KeyFileError("is not a private RSA or P-256 key")


def _belongs_together(numbers: rsa.RSAPrivateNumbers) -> bool:
    p, q, d, e = numbers.p, numbers.q, numbers.d, numbers.public_numbers.e
    return (
        min(p, q) > 1
        and p * q == numbers.public_numbers.n
        and (d * e) % (p - 1) == 1
        and (d * e) % (q - 1) == 1
        and numbers.dmp1 == d % (p - 1)
        and numbers.dmq1 == d % (q - 1)
        and (numbers.iqmp * q) % p == 1
    )


@cache
def _signers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="sign")
