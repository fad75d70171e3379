"""The one table from an error's code to an HTTP status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.errors import TailboneError

# RFC 9110 section 15. 503 is for what may pass by itself: repeating the request is right for it only.
STATUS_OF: Final[Mapping[str, int]] = {
    "bad_request": 400,
    "malformed_request": 400,
    "bad_parameter": 400,
    "forbidden": 403,
    "browser_request": 403,
    "unknown_caller": 403,
    "expired_caller": 403,
    "shared_caller": 403,
    "audience_not_allowed": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "body_too_large": 413,
    "wrong_host": 421,
    "internal": 500,
    "log_unavailable": 503,
    "no_signing_key": 503,
    "tailnet_error": 503,
}


def status_of(error: TailboneError) -> int:
    """Give the HTTP status of an error: by its code, or by the nearest class above it that has a row."""
    for kind in type(error).__mro__:
        status = STATUS_OF.get(getattr(kind, "code", ""))
        if status is not None:
            return status
    return 500
