"""One HTTP request to another service, and its answer."""

from __future__ import annotations

import http.client
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S: Final = 15.0
_ANSWER_LIMIT: Final = 1 << 18


class Answer(NamedTuple):
    """An answer over HTTP, of any status.

    Attributes:
        status: the status code.
        body: its first 256 KiB.
    """

    status: int
    body: bytes


class _EveryStatus(urllib.request.HTTPErrorProcessor):
    """Returns every answer. A redirect is not followed: its target would get the field Authorization."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:  # noqa: ARG002
        return response

    https_response = http_response


def post(url: str, body: bytes, fields: Mapping[str, str] | None = None) -> Answer:
    """Send a POST request.

    Args:
        url: an http or https URL; the caller checks the scheme.
        body: a form, unless the fields say otherwise.
        fields: header fields.

    Raises:
        OSError: there is no answer over HTTP in time, or the URL cannot be requested.
    """
    return _send(url, body, fields or {}, _EveryStatus)


def get(url: str, fields: Mapping[str, str], *, by_proxy: bool = True) -> Answer:
    """Send a GET request.

    Args:
        url: an http or https URL; the caller checks the scheme.
        fields: header fields.
        by_proxy: whether the proxies of the environment are used.

    Raises:
        OSError: as for ``post``.
    """
    return _send(url, None, fields, _EveryStatus, *(() if by_proxy else (urllib.request.ProxyHandler({}),)))


def _send(url: str, body: bytes | None, fields: Mapping[str, str], *handlers: Any) -> Answer:
    try:
        request = urllib.request.Request(url, body, dict(fields))  # noqa: S310 -- the caller checks it
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as response:
            return Answer(response.status, _read(response))
    except (ValueError, http.client.HTTPException) as error:
        raise OSError("no answer over HTTP") from error


def _read(response: Any) -> bytes:
    """Return the body of an answer, whose parts may not arrive slower and slower without end."""
    end = time.monotonic() + _TIMEOUT_S
    body = b""
    while len(body) < _ANSWER_LIMIT and (part := response.read1(_ANSWER_LIMIT - len(body))):
        body += part
        if time.monotonic() > end:
            raise TimeoutError("the answer takes too long")
    return body
