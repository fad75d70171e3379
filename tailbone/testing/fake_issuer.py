"""FakeIssuer: tokens as tailbone issues them, without a tailnet, and tokens that must be refused."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Self, cast

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tailbone import base64url
from tailbone.jwks.discovery import DISCOVERY_PATH, JWKS_PATH, Discovery
from tailbone.jwks.document import Document
from tailbone.jwks.serving import serve_documents
from tailbone.keys.signing_key import SigningKey
from tailbone.token import claims as token_claims
from tailbone.token.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.algorithms import Algorithm

_SHA256: Final = hashes.SHA256()
_P256_BYTES: Final = 32
_BACKDATE_S: Final = 5.0
_FAKE_USER_ID: Final = 1


class FakeIssuer:
    """An issuer in this process, whose JWKS and discovery document are on a loopback port.

    ``with FakeIssuer() as issuer: token = issuer.token(audience="my-service", as_="tag:ci")``.

    Attributes:
        url: the claim ``iss`` of its tokens, at which any verifier can discover it.
        jwks_url: its JWKS.
    """

    def __init__(self, *, algorithm: Algorithm = "RS256", clock: Callable[[], float] = time.time) -> None:
        """Create an issuer; entering it listens.

        Args:
            algorithm: of its keys.
            clock: returns Unix time in seconds.
        """
        self._algorithm: Algorithm = algorithm
        self._clock = clock
        self._number = 1
        self._published = [1]
        self._stack = ExitStack()
        self.url = ""
        self.jwks_url = ""

    def __enter__(self) -> Self:
        documents = {JWKS_PATH: self._jwks_text, DISCOVERY_PATH: self._discovery_text}
        port = self._stack.enter_context(serve_documents(("127.0.0.1", 0), documents, max_age_s=300.0))
        self.url = f"http://127.0.0.1:{port}"
        self.jwks_url = self.url + JWKS_PATH
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def token(
        self,
        *,
        audience: str | None = None,
        as_: str = "dev@example.com",
        ttl_s: int = 1200,
        expired: bool = False,
        wrong_key: bool = False,
        **claims: Any,
    ) -> str:
        """Return a token. For one that must be refused, use another audience, ``expired`` or ``wrong_key``.

        Args:
            audience: the claim ``aud``; None omits it.
            as_: the caller: a login (``dev@example.com``) or a tag (``tag:ci``).
            ttl_s: lifetime in seconds.
            expired: issue it so long ago that it expired an hour ago.
            wrong_key: sign it with a key that is not published, under the kid of the one that is.
            claims: further claims, such as ``groups`` and ``scope``.
        """
        now = self._clock() - (ttl_s + 3600 if expired else 0)
        content = token_claims.build(
            _identity(as_),
            issuer=self.url,
            audience=audience,
            ttl_s=ttl_s,
            backdate_s=_BACKDATE_S,
            now=now,
            jti=os.urandom(16).hex(),
        )
        header = {"alg": self._algorithm, "kid": _kid(self._number), "typ": "JWT"}
        signed = b".".join(
            base64url.encode(part)
            for part in (msgspec.json.encode(header), token_claims.encode(content, claims))
        )
        signature = _sign(_private(self._algorithm, 0 if wrong_key else self._number), signed)
        return (signed + b"." + base64url.encode(signature)).decode("ascii")

    def rotate(self, *, remove_old: bool = False) -> None:
        """Sign with another key from now on.

        Args:
            remove_old: no longer publish the earlier keys, as after a revocation.
        """
        self._number += 1
        self._published = [*([] if remove_old else self._published), self._number]

    def _jwks(self) -> Document:
        keys = [_public(self._algorithm, number) for number in self._published]
        return Document({"keys": keys})

    def _jwks_text(self) -> bytes:
        return self._jwks().render()

    def _discovery_text(self) -> bytes:
        return Discovery(self.url).render(self._jwks())


def _identity(text: str) -> Identity:
    name = "".join(char if char.isalnum() else "-" for char in text.lower())
    node = f"{name}.fake.tailnet.test"
    if text.startswith("tag:"):
        return Identity(node_id=f"nFake{name}", node=node, tags=(text,))
    return Identity(
        node_id=f"nFake{name}",
        node=node,
        user_id=_FAKE_USER_ID,
        login=text,
        display_name=text.partition("@")[0],
    )


@cache
def _private(algorithm: Algorithm, number: int) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:  # noqa: ARG001 -- one key a number
    """Return a key; all issuers of a process share them, since an RSA key takes 0.1 s."""
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


def _kid(number: int) -> str:
    return f"fake-{number}"


def _public(algorithm: Algorithm, number: int) -> dict[str, object]:
    key = SigningKey(kid=_kid(number), private=_private(algorithm, number), created_at=0.0)
    return cast("dict[str, object]", key.public_jwk())


def _sign(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    if isinstance(private, rsa.RSAPrivateKey):
        return private.sign(signed, padding.PKCS1v15(), _SHA256)
    r, s = decode_dss_signature(private.sign(signed, ec.ECDSA(_SHA256)))
    return r.to_bytes(_P256_BYTES, "big") + s.to_bytes(_P256_BYTES, "big")
