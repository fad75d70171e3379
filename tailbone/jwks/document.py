"""The JWKS document (RFC 7517 section 5): parsing, merging, removal and rendering. Pure."""

from __future__ import annotations

import base64
import json
import re
from decimal import Decimal
from functools import cached_property
from typing import Final

import msgspec
from jwcrypto import jwk
from jwcrypto.common import JWException, base64url_decode

from tailbone.errors import ForeignDocumentError, KeyStateError
from tailbone.jwks.store import LARGEST

MOST_KEYS: Final = 100
"""No key is added to a document that contains this many."""
MOST_READ_KEYS: Final = 1000
"""A document with more keys is refused."""
MANY_KEYS: Final = 10
"""From this number on, some verifiers refuse the set."""

MOST_WARNINGS: Final = 10

CONTENT_TYPE: Final = "application/json"

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})
# The length of a coordinate in bytes, by curve (RFC 7518 section 6.2.1.2, RFC 8037 section 2).
_CURVES: Final = {"EC": {"P-256": 32, "P-384": 48, "P-521": 66}, "OKP": {"Ed25519": 32}}
_KEY_MEMBERS: Final = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")


class PublishedKey:
    """One key of the document, from any writer.

    Attributes:
        members: the JWK in the document. It must not be changed.
        kid: its kid; "" if it has none, or one that is not text.
    """

    def __init__(self, members: dict[str, object]) -> None:
        """Wrap the parsed members of a JWK."""
        self.members = members
        kid = members.get("kid")
        self.kid: str = kid if isinstance(kid, str) else ""

    @cached_property
    def thumbprint(self) -> str:
        """Its RFC 7638 thumbprint; "" for a key of an unknown kind."""
        try:
            return str(jwk.JWK(**self.members).thumbprint())
        except (JWException, ValueError, TypeError, KeyError):
            return ""

    @property
    def algorithm(self) -> str:
        """Its member ``alg``; "" if it has none, or one that is not text."""
        algorithm = self.members.get("alg")
        return algorithm if isinstance(algorithm, str) else ""


class Document:
    """An immutable JWKS. Unknown members stay unchanged."""

    def __init__(self, members: dict[str, object]) -> None:
        """Wrap a parsed JSON object, whose ``keys`` must be a list of objects."""
        self._members = members
        keys: list[dict[str, object]] = members["keys"]  # type: ignore[assignment]
        self.keys: tuple[PublishedKey, ...] = tuple(PublishedKey(key) for key in keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Document) and self._members == other._members

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Document({[key.kid for key in self.keys]})"

    @classmethod
    def empty(cls) -> Document:
        """Return the document without keys."""
        return cls({"keys": []})

    @classmethod
    def parse(cls, data: bytes) -> Document:
        """Read a document.

        Raises:
            ForeignDocumentError: these bytes are not a complete JWKS, and must not be overwritten.
        """
        if len(data) > LARGEST:
            raise _foreign(f"is longer than {LARGEST} bytes")
        try:
            members = json.loads(
                data.decode(),
                object_pairs_hook=_unique,
                parse_constant=_no_constant,
                parse_float=_exact,
                parse_int=_exact,
            )
        except (ValueError, RecursionError):
            raise _foreign("is not JSON, or was cut short") from None
        try:
            _ENCODER.encode(members)
        except UnicodeEncodeError:
            # An escaped half of a surrogate pair: a merge could not write it as UTF-8.
            raise _foreign("holds text that is not Unicode") from None
        if not isinstance(members, dict) or not isinstance(members.get("keys"), list):
            raise _foreign('has no list "keys"')
        if len(members["keys"]) > MOST_READ_KEYS:
            raise _foreign(f"holds more than {MOST_READ_KEYS} keys")
        if not all(isinstance(key, dict) for key in members["keys"]):
            raise _foreign("lists something that is not a key")
        return cls(members)

    def render(self) -> bytes:
        """Return the document as JSON. A long one has no line breaks, so that ``parse`` accepts it."""
        compact = _ENCODER.encode(self._members)
        data = msgspec.json.format(compact, indent=2) + b"\n"
        return data if len(data) <= LARGEST else compact

    def to_publish(self) -> bytes:
        """Render the document for publication.

        Raises:
            KeyStateError: the document is so long that ``parse`` would refuse it.
        """
        data = self.render()
        if len(data) > LARGEST:
            raise KeyStateError(
                f"the JWKS would be {len(data)} bytes long, at most {LARGEST} are allowed: "
                "remove what is not needed"
            )
        return data

    def has(self, kid: str, thumbprint: str) -> bool:
        """Return whether the document contains the key with this kid and thumbprint."""
        return any(key.kid == kid and key.thumbprint == thumbprint for key in self.keys)

    def has_kid(self, kid: str) -> bool:
        """Return whether the document contains a key with this kid."""
        return any(key.kid == kid for key in self.keys)

    def lacks_members(self, kid: str, thumbprint: str, members: dict[str, str]) -> bool:
        """Return whether this key's entry lacks any of ``members``, as entries of the Go program do."""
        return any(
            key.kid == kid and key.thumbprint == thumbprint and not members.items() <= key.members.items()
            for key in self.keys
        )

    def with_key(self, members: dict[str, str], thumbprint: str) -> Document:
        """Return a document that also contains the key. An existing entry of the key keeps its other members.

        Raises:
            KeyStateError: another key has that kid, or there are too many keys.
        """
        kid = members["kid"]
        if self.has(kid, thumbprint):
            return self._with(
                [
                    {**key.members, **members}
                    if (key.kid, key.thumbprint) == (kid, thumbprint)
                    else key.members
                    for key in self.keys
                ]
            )
        if self.has_kid(kid):
            raise KeyStateError(f"the JWKS holds another key under the kid {kid}")
        if len(self.keys) >= MOST_KEYS:
            raise KeyStateError(
                f"the JWKS holds {len(self.keys)} keys, at most {MOST_KEYS} are allowed: remove some first"
            )
        return self._with([*(key.members for key in self.keys), {**members}])

    def without(self, kid: str, thumbprint: str = "") -> Document:
        """Return a document without this key; if no thumbprint is given, without all keys of this kid."""
        return self._with(
            [
                key.members
                for key in self.keys
                if key.kid != kid or (thumbprint and key.thumbprint != thumbprint)
            ]
        )

    def warnings(self) -> list[str]:
        """Return problems for verifiers, which foreign keys may cause: one sentence each, at most ten."""
        found: list[str] = []
        if len(self.keys) >= MANY_KEYS:
            found.append(
                f"the JWKS holds {len(self.keys)} keys; from {MANY_KEYS} on some verifiers refuse all of them"
            )
        seen: set[str] = set()
        for number, key in enumerate(self.keys, 1):
            name = key.kid or f"number {number}"
            found.extend(f"key {name} of the JWKS {problem}" for problem in _problems(key))
            if key.kid in seen:
                found.append(
                    f"key {name} of the JWKS comes after another of that kid; verifiers look at the first"
                )
            if key.kid:
                seen.add(key.kid)
        if len(found) > MOST_WARNINGS:
            found[MOST_WARNINGS:] = [f"and {len(found) - MOST_WARNINGS} more problems of keys of the JWKS"]
        return found

    def _with(self, keys: list[dict[str, object]]) -> Document:
        return Document({**self._members, "keys": keys})


def _problems(key: PublishedKey) -> list[str]:
    members = key.members
    kty, crv = members.get("kty"), members.get("crv")
    problems: list[str] = []
    if _PRIVATE_MEMBERS & members.keys():
        problems.append("shows its PRIVATE half to everybody: remove it, and trust it nowhere")
    if not isinstance(kty, str) or (kty != "RSA" and str(crv) not in _CURVES.get(kty, ())):
        problems.append("is of a kind that makes some verifiers refuse the whole set, our keys too")
        return problems
    if not key.kid:
        problems.append("has no kid")
    if any("=" in str(members.get(name)) for name in _KEY_MEMBERS[kty]):
        problems.append("is written with padding, which some verifiers refuse")
    elif reason := _unreadable(members, kty):
        problems.append(f"cannot be read by some verifiers, which then refuse the whole set: {reason}")
    return problems


def _unreadable(members: dict[str, object], kty: str) -> str:
    """Return why a common library cannot read a key; "" if all can."""
    for name in ("use", "alg", "x5u", "x5t", "x5t#S256"):
        if not isinstance(members.get(name, ""), str):
            return f"its {name} is not text"
    if not _is_chain(members.get("x5c", [])):
        return "its x5c is not a list of certificates"
    values = {name: members.get(name) for name in _KEY_MEMBERS[kty]}
    size = _CURVES.get(kty, {}).get(str(members.get("crv")))
    for name, value in values.items():
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value) or len(value) % 4 == 1:
            return f"its {name} is not base64url"
        if size is not None and len(base64url_decode(value)) != size:
            return f"its {name} is not {size} bytes long"
    try:
        curve = {"crv": members["crv"]} if kty != "RSA" else {}
        jwk.JWK(kty=kty, **curve, **values).get_op_key("verify")
    except (JWException, ValueError, TypeError):
        return "it is not a valid public key"
    return ""


def _is_chain(value: object) -> bool:
    """Return whether a value is a chain of certificates, as in ``x5c`` (RFC 7517 section 4.7)."""
    from cryptography import x509

    if not isinstance(value, list):
        return False
    try:
        for certificate in value:
            x509.load_der_x509_certificate(base64.b64decode(certificate, validate=True))
    except (ValueError, TypeError):
        return False
    return True


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse duplicate member names, which parsers read differently (RFC 8259 section 4)."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _exact(text: str) -> Decimal:
    """Parse a number with all its digits, since a merge must not change it."""
    try:
        return Decimal(text)
    except ArithmeticError:
        raise ValueError("the number is too large") from None


def _no_constant(_: str) -> object:
    """Refuse NaN and Infinity, which are not JSON (RFC 8259 section 6)."""
    raise ValueError


def _foreign(why: str) -> ForeignDocumentError:
    return ForeignDocumentError(
        f"the published JWKS {why}; it is left as it is: correct or delete it, or set keys.keyPath to another"
    )
