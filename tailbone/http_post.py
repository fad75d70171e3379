"""One POST request to the API of another service, and its answer."""

from __future__ import annotations

import http.client
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
    """Send a request.

    Args:
        url: an http or https URL; the caller checks the scheme.
        body: a form, unless the fields say otherwise.
        fields: header fields.

    Raises:
        OSError: there is no answer over HTTP, or the URL cannot be requested.
    """
    try:
        request = urllib.request.Request(url, body, dict(fields or {}))  # noqa: S310 -- the caller checks it
        with urllib.request.build_opener(_EveryStatus).open(request, timeout=_TIMEOUT_S) as response:
            return Answer(response.status, response.read(_ANSWER_LIMIT))
    except (ValueError, http.client.HTTPException) as error:
        raise OSError("no answer over HTTP") from error
