"""Request tokens from an issuer, directly or through tailscaled, a proxy or a Unix socket."""

from __future__ import annotations

import http.client
import os
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

from tailbone.client import URL_VARIABLE
from tailbone.client.dialing import (
    dial_directly,
    dial_through_tailscaled,
    dial_unix,
    reason_of,
    tailscaled_socket,
)
from tailbone.client.token import Token
from tailbone.errors import (
    ConfigError,
    IssuerAnswerError,
    IssuerRefusedError,
    IssuerUnavailableError,
    IssuerUnreachableError,
)
from tailbone.json_object import parse_object
from tailbone.text import bracketed, quote, redact

if TYPE_CHECKING:
    import socket
    from pathlib import Path

DEFAULT_URL: Final = "http://tailbone"
_TIMEOUT_S: Final = 10.0
_ANSWER_LIMIT: Final = 1 << 18


class Tokens(Protocol):
    """Something that can be asked for a token: an issuer, or an agent."""

    def issue(self, audience: str = "", ttl: float | None = None) -> Token:
        """Return a token; see ``Issuer.issue``."""


def parse_url(url: str, name: str) -> tuple[str, int]:
    """Return host and port of a URL, which may have only the path of the endpoint.

    Raises:
        ConfigError: it is not such a URL; the message begins with ``name``.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 80
    plain = parts.path in ("", "/", "/issue") and not (parts.query or parts.fragment or parts.username)
    if parts.scheme != "http" or not parts.hostname or not plain or not _is_visible(url):
        raise ConfigError(f"{name} must be a URL such as {DEFAULT_URL}, not {quote(url)}")
    return parts.hostname, port


def _is_visible(text: str) -> bool:
    """Return whether text has only visible ASCII characters, as a URL does; urlsplit removes some others."""
    return text.isascii() and text.isprintable() and " " not in text


class Issuer:
    """An issuer, and how to reach it.

    Requests go directly to the host, else through tailscaled's LocalAPI. ``http_proxy`` is ignored: it would
    send the request out of the tailnet.
    """

    def __init__(
        self,
        url: str = "",
        *,
        proxy: str = "",
        any_address: bool = False,
        unix_path: Path | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Describe the issuer; nothing is connected yet.

        Args:
            url: ``http://HOST[:PORT]``, with or without ``/issue``; by default the variable
                ``TAILBONE_ISSUE_URL``, else ``http://tailbone``.
            proxy: URL of an HTTP proxy, such as tailscaled's; only a proxy that is named here is used.
            any_address: allow addresses that are neither a tailnet's nor loopback ones.
            unix_path: a Unix socket that leads to the issuer; used instead of the network.
            timeout_s: for connecting, and for each read and write, in seconds.

        Raises:
            ConfigError: a URL is malformed.
        """
        self.url = (
            (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).removesuffix("/").removesuffix("/issue")
        )
        self.host, self.port = parse_url(self.url, "the issuer's URL")
        self._proxy = parse_url(proxy, "the proxy") if proxy else None
        self._any_address = any_address
        self._unix_path = unix_path
        self._timeout_s = timeout_s

    def issue(self, audience: str = "", ttl: float | None = None) -> Token:
        """Request a token.

        Args:
            audience: the claim ``aud``; empty for a token without it.
            ttl: the requested lifetime in whole seconds; by default the issuer's.

        Raises:
            IssuerUnreachableError: it cannot be reached, or did not answer.
            IssuerRefusedError: it refuses; the message is its own.
            IssuerUnavailableError: it cannot issue tokens now.
            IssuerAnswerError: the answer is not a tailbone issuer's.
        """
        response = self._post(_query(audience, ttl))
        answer = decode_answer(response, self.url)
        value, expires_at = answer.get("token"), answer.get("expires_at")
        if not isinstance(value, str) or not isinstance(expires_at, int) or not _is_compact(value):
            raise IssuerAnswerError(f"{self.url} did not answer as a tailbone issuer does")
        return Token(value, expires_at, max(0.0, expires_at - response.date))

    def explain(self, audience: str = "", ttl: float | None = None) -> dict[str, Any]:
        """Return what a token would contain, and which rules apply; nothing is signed.

        Raises as ``issue`` does.
        """
        return decode_answer(self._post({**_query(audience, ttl), "dry_run": "true"}), self.url)

    def jwks(self) -> bytes:
        """Return the JWKS that the issuer serves on the tailnet.

        Raises as ``issue`` does.
        """
        response = self._request("GET", "/.well-known/jwks.json")
        decode_answer(response, self.url)
        return response.body

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document that the issuer serves on the tailnet.

        Raises as ``issue`` does; a refusal means that its name is not a URL.
        """
        return decode_answer(self._request("GET", "/.well-known/openid-configuration"), self.url)

    def whoami(self) -> dict[str, Any]:
        """Return who the issuer says this machine is, and what it may request.

        Raises as ``issue`` does.
        """
        return decode_answer(self._request("GET", "/whoami"), self.url)

    def _post(self, query: dict[str, str]) -> Response:
        return self._request("POST", f"/issue?{urlencode(query)}" if query else "/issue")

    def _request(self, method: str, target: str) -> Response:
        if self._proxy:
            target = f"{self.url}{target}"
        try:
            return request(
                self._connect(), method, target, host=f"{bracketed(self.host)}{_port_suffix(self.port)}"
            )
        except OSError as error:
            raise IssuerUnreachableError(f"no answer from {self.url}: {reason_of(error)}") from None
        except http.client.HTTPException:
            raise IssuerAnswerError(f"{self.url} did not answer with HTTP") from None

    def _connect(self) -> socket.socket:
        """Connect directly, else through tailscaled, unless a socket or a proxy is named."""
        if self._unix_path is not None:
            return dial_unix(self._unix_path, timeout_s=self._timeout_s)
        if self._proxy is not None:
            return dial_directly(*self._proxy, any_address=True, timeout_s=self._timeout_s)
        try:
            return dial_directly(
                self.host, self.port, any_address=self._any_address, timeout_s=self._timeout_s
            )
        except IssuerUnreachableError as direct:
            local_api = tailscaled_socket()
            if local_api is None:
                raise
            try:
                return dial_through_tailscaled(local_api, self.host, self.port, timeout_s=self._timeout_s)
            except IssuerUnreachableError as indirect:
                raise type(direct)(f"{direct.message}; {indirect.message}") from None


def _query(audience: str, ttl: float | None) -> dict[str, str]:
    query = {"audience": audience} if audience else {}
    return query if ttl is None else {**query, "ttl": f"{int(ttl)}s"}


def _port_suffix(port: int) -> str:
    return "" if port == 80 else f":{port}"


def _is_compact(jwt: str) -> bool:
    """Return whether text has the form of a signed JWT, which is safe in headers and files (RFC 7515)."""
    parts = jwt.split(".")
    return len(parts) == 3 and all(
        part and part.isascii() and part.replace("-", "").replace("_", "").isalnum() for part in parts
    )


class Response(NamedTuple):
    """An answer over HTTP.

    Attributes:
        status: the status code.
        body: the whole body.
        date: when it was sent, in Unix seconds of the server's clock (RFC 9110 section 6.6.1); this machine's
            time if the server does not say.
    """

    status: int
    body: bytes
    date: float


def request(connection: socket.socket, method: str, target: str, *, host: str) -> Response:
    """Send one request without a body on a connection, close it, and return the answer.

    Raises:
        OSError: the connection failed.
        http.client.HTTPException: the answer is not HTTP, or is too long.
    """
    client = http.client.HTTPConnection("localhost")
    client.sock = connection
    try:
        client.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        client.putheader("Host", host)
        client.putheader("Content-Length", "0")
        client.endheaders()
        response = client.getresponse()
        body = response.read(_ANSWER_LIMIT + 1)
    finally:
        client.close()
    if len(body) > _ANSWER_LIMIT:
        raise http.client.HTTPException
    return Response(response.status, body, _sent_at(response.getheader("Date", "")))


def _sent_at(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return time.time()


def decode_answer(response: Response, url: str) -> dict[str, Any]:
    """Return a successful answer's JSON object.

    Raises:
        IssuerRefusedError, IssuerUnavailableError: with the issuer's own text.
        IssuerAnswerError: the answer is not a tailbone issuer's.
    """
    answer = parse_object(response.body)
    if response.status == 200 and answer is not None:
        return answer
    if answer is not None and isinstance(answer.get("error"), str):
        text = f"{answer.get('message')} ({answer['error']})"
        later = response.status == 429 or response.status >= 500
        kind = IssuerUnavailableError if later else IssuerRefusedError
        raise kind(redact(" ".join(text.split())))
    raise IssuerAnswerError(f"{url} did not answer as a tailbone issuer does (status {response.status})")
