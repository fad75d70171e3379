"""The one table from an error's code to a gRPC status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grpc import StatusCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.errors import TailboneError

# Which status means what: https://grpc.io/docs/guides/status-codes/. UNAVAILABLE is for what may pass by
# itself, FAILED_PRECONDITION for what a person has to fix first: only the former is worth a retry.
STATUS_OF: Final[Mapping[str, StatusCode]] = {
    "config_invalid": StatusCode.INVALID_ARGUMENT,
    "bad_request": StatusCode.INVALID_ARGUMENT,
    "malformed_request": StatusCode.INVALID_ARGUMENT,
    "bad_parameter": StatusCode.INVALID_ARGUMENT,
    "request_timeout": StatusCode.DEADLINE_EXCEEDED,
    "body_too_large": StatusCode.RESOURCE_EXHAUSTED,
    "not_found": StatusCode.NOT_FOUND,
    "method_not_allowed": StatusCode.UNIMPLEMENTED,
    "wrong_host": StatusCode.PERMISSION_DENIED,
    "forbidden": StatusCode.PERMISSION_DENIED,
    "browser_request": StatusCode.PERMISSION_DENIED,
    "unknown_caller": StatusCode.PERMISSION_DENIED,
    "expired_caller": StatusCode.PERMISSION_DENIED,
    "shared_caller": StatusCode.PERMISSION_DENIED,
    "audience_not_allowed": StatusCode.PERMISSION_DENIED,
    "key_error": StatusCode.INTERNAL,
    "no_signing_key": StatusCode.FAILED_PRECONDITION,
    "unknown_key": StatusCode.NOT_FOUND,
    "key_state": StatusCode.FAILED_PRECONDITION,
    "generation_under_way": StatusCode.RESOURCE_EXHAUSTED,
    "key_file": StatusCode.FAILED_PRECONDITION,
    "store_unavailable": StatusCode.UNAVAILABLE,
    "store_outcome_unknown": StatusCode.UNAVAILABLE,
    "store_missing": StatusCode.FAILED_PRECONDITION,
    "store_conflict": StatusCode.ABORTED,
    "store_denied": StatusCode.FAILED_PRECONDITION,
    "foreign_document": StatusCode.FAILED_PRECONDITION,
    "store_unconditional": StatusCode.FAILED_PRECONDITION,
}

CODE_METADATA: Final = "tailbone-code"
"""The trailing metadata that carries the error's own code; only a tailbone of this kind sends it."""


def status_of(error: TailboneError) -> StatusCode:
    """Give the gRPC status of an error: by its code, or by the nearest class above it that has a row."""
    for kind in type(error).__mro__:
        status = STATUS_OF.get(getattr(kind, "code", ""))
        if status is not None:
            return status
    return StatusCode.INTERNAL
