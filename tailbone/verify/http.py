"""Fetch the issuer's documents: https unless loopback, no redirects, no proxies, limited size and time."""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import threading
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import msgspec

from tailbone.text import quote
from tailbone.verify.errors import KeysUnavailableError
from tailbone.verify.keys import parse_jwks

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.verify.keys import Keys

LARGEST_DOCUMENT: Final = 64 * 1024
"""The largest document, in bytes."""

FETCH_S: Final = 10.0
"""How long one document may take, in seconds."""

_DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
_DEFAULT_MAX_AGE_S: Final = 300.0
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})", re.IGNORECASE)
_UNCACHED: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)", re.IGNORECASE)


class Response(NamedTuple):
    """A document, with the seconds for which it may be cached."""

    body: bytes
    max_age_s: float


class PublishedKeys(NamedTuple):
    """The issuer's keys, with the seconds for which they may be cached."""

    keys: Keys
    max_age_s: float


Get: TypeAlias = "Callable[[str], Response]"
"""Gets the document of a URL; raises KeysUnavailableError."""


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


def check_url(url: str) -> None:
    """Check that a URL is https, or http on loopback.

    Raises:
        ValueError: it is not; the text says what is allowed.
    """
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.fragment or not url.isascii() or not url.isprintable():
        raise ValueError(f"{quote(url)} is not the URL of an issuer's document")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise ValueError(f"{quote(url)} must be an https URL, or an http URL on loopback")
    _ = parts.port  # raises ValueError if it is not a port


def get(url: str, *, context: ssl.SSLContext | None = None) -> Response:
    """Get a document with the standard library's client.

    Args:
        url: its URL.
        context: which certificates are trusted; None trusts the system's CAs.

    Raises:
        KeysUnavailableError: it cannot be fetched.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        HTTPSConnection(host, port, timeout=FETCH_S, context=context or ssl.create_default_context())
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=FETCH_S)
    )
    with closing(connection), _Deadline(connection):
        try:
            connection.request(
                "GET", url.split(parts.netloc, 1)[1] or "/", headers={"Accept": "application/json"}
            )
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                raise KeysUnavailableError(f"{quote(url)} answered with status {response.status}, not 200")
            body = response.read(LARGEST_DOCUMENT + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise KeysUnavailableError(f"{quote(url)} cannot be fetched", detail=str(error)) from None
    if len(body) > LARGEST_DOCUMENT:
        raise KeysUnavailableError(f"{quote(url)} is larger than {LARGEST_DOCUMENT} bytes")
    return Response(body, _max_age(response.headers.get("Cache-Control", "")))


def fetch_keys(issuer: str, jwks_url: str | None, http: Get) -> PublishedKeys:
    """Fetch the issuer's keys.

    Args:
        issuer: its URL, at which its discovery document is; unused if ``jwks_url`` is set.
        jwks_url: the URL of the JWKS; None finds it by discovery (OpenID Connect Discovery 1.0 section 4).
        http: gets a document.

    Raises:
        KeysUnavailableError: a document cannot be fetched, or is malformed.
    """
    if jwks_url is None:
        jwks_url = _discover(issuer, http)
    answer = http(jwks_url)
    return PublishedKeys(parse_jwks(answer.body), answer.max_age_s)


def _discover(issuer: str, http: Get) -> str:
    url = issuer.removesuffix("/") + _DISCOVERY_PATH
    try:
        document = msgspec.json.decode(http(url).body, type=_Discovery)
        check_url(document.jwks_uri)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise KeysUnavailableError(f"{quote(url)} is not a discovery document", detail=str(error)) from None
    if document.issuer != issuer:
        raise KeysUnavailableError(f"{quote(url)} is the discovery document of another issuer")
    if url.startswith("https:") and not document.jwks_uri.startswith("https:"):
        raise KeysUnavailableError(f"{quote(url)} names a JWKS that is not on https")
    return document.jwks_uri


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _max_age(cache_control: str) -> float:
    if _UNCACHED.search(cache_control):
        return 0.0
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else _DEFAULT_MAX_AGE_S


class _Deadline:
    """Ends a connection after ``FETCH_S``: a socket's own time limit counts from each byte that arrives."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._timer = threading.Timer(FETCH_S, self._end)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        with suppress(OSError, AttributeError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
