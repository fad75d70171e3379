"""Refusals: what status an error has."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from tailbone import errors
from tailbone.errors import TailboneError, status_in
from tailbone.server.refusals import STATUSES


def below(kind: type[TailboneError]) -> list[type[TailboneError]]:
    """A class of errors and all that derive from it."""
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]


# Whatever the HTTP side raises itself, what identify may raise, and what the issuer raises.
REACHING = [*below(errors.RequestError), *below(errors.AccessError), *below(errors.TailnetError)]
REACHING += below(errors.OverloadError)
REACHING += [errors.NoSigningKeyError, errors.LogUnavailableError]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.MalformedRequestError, 400),
        (errors.BadParameterError, 400),
        (errors.BrowserRequestError, 403),
        (errors.UnknownCallerError, 403),
        (errors.ExpiredCallerError, 403),
        (errors.SharedCallerError, 403),
        (errors.AudienceNotAllowedError, 403),
        (errors.UnknownPathError, 404),
        (errors.MethodNotAllowedError, 405),
        (errors.RequestTimeoutError, 408),
        (errors.BodyTooLargeError, 413),
        (errors.WrongHostError, 421),
        (errors.RateLimitError, 429),
        (errors.SigningBusyError, 503),
        (errors.NoSigningKeyError, 503),
        (errors.NodeClosedError, 503),
        (errors.KeyFileError, 500),
        (TailboneError, 500),
    ],
)
def test_the_status_of_an_error(kind: type[TailboneError], status: int) -> None:
    """Scripts go by it."""
    assert status_in(STATUSES, kind) == status


@pytest.mark.parametrize("kind", REACHING)
def test_no_error_that_can_reach_http_is_a_500(kind: type[TailboneError]) -> None:
    """500 means a bug in the server."""
    assert status_in(STATUSES, kind) != 500


def test_each_status_is_one_of_http() -> None:
    """RFC 9110 section 15."""
    assert all(HTTPStatus(status) for status in STATUSES.values())
