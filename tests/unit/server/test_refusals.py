"""Refusals: what status an error has."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from tailbone import errors
from tailbone.errors import TailboneError
from tailbone.server.refusals import STATUS_OF, status_of


def below(kind: type[TailboneError]) -> list[type[TailboneError]]:
    """A class of errors and all that derive from it."""
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]


# Whatever the HTTP side raises itself, what identify may raise, and what the issuer raises.
REACHING = [*below(errors.RequestError), *below(errors.AccessError), *below(errors.TailnetError)]
REACHING += [errors.NoSigningKeyError, TailboneError]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedRequestError("m"), 400),
        (errors.BadParameterError("m"), 400),
        (errors.BrowserRequestError("m"), 403),
        (errors.UnknownCallerError("m"), 403),
        (errors.ExpiredCallerError("m"), 403),
        (errors.SharedCallerError("m"), 403),
        (errors.AudienceNotAllowedError("m"), 403),
        (errors.UnknownPathError("m"), 404),
        (errors.MethodNotAllowedError("m"), 405),
        (errors.RequestTimeoutError("m"), 408),
        (errors.BodyTooLargeError("m"), 413),
        (errors.WrongHostError("m"), 421),
        (errors.NoSigningKeyError("m"), 503),
        (errors.NodeClosedError("m"), 503),
        (errors.KeyFileError("m"), 500),
        (TailboneError("m"), 500),
    ],
)
def test_the_status_of_an_error(error: TailboneError, status: int) -> None:
    """Scripts go by it."""
    assert status_of(error) == status


@pytest.mark.parametrize("kind", REACHING)
def test_every_error_that_can_reach_http_has_its_row(kind: type[TailboneError]) -> None:
    """By its own code, or, for the tailnet's, by the code of the family: none is a 500 by oversight."""
    families = {"tailnet_error"} if issubclass(kind, errors.TailnetError) else {kind.code}
    assert families & STATUS_OF.keys()


def test_no_row_is_stale() -> None:
    """Each code of the table is an error's code, and each status is one."""
    codes = {kind.code for kind in below(TailboneError)}
    assert STATUS_OF.keys() <= codes
    assert all(HTTPStatus(status) for status in STATUS_OF.values())
