"""Facts about how a native failure becomes an exception; the native library itself is not loaded."""

from __future__ import annotations

import json

import pytest

from tailbone import errors
from tailbone.tsnet.library import _error


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("address_in_use", errors.AddressInUseError),
        ("approval_needed", errors.ApprovalNeededError),
        ("cancelled", errors.JoinCancelledError),
        ("closed", errors.NodeClosedError),
        ("control_unreachable", errors.ControlUnreachableError),
        ("login_needed", errors.LoginNeededError),
        ("login_refused", errors.LoginRefusedError),
        ("not_found", errors.UnknownCallerError),
        ("peer_not_found", errors.PeerNotFoundError),
        ("timeout", errors.JoinTimeoutError),
        ("panic", errors.TailnetError),
        ("something_new", errors.TailnetError),
    ],
)
def test_each_code_has_its_exception(code: str, kind: type[errors.TailboneError]) -> None:
    """An unknown code is a TailnetError; the message is Go's, the operation is for the log."""
    error = _error(json.dumps({"code": code, "op": "up", "message": "it did not"}).encode())
    assert type(error) is kind
    assert isinstance(error, errors.TailboneError)
    assert error.message == "it did not"
    assert error.detail == f"up: {code}"


def test_a_close_that_takes_too_long_is_no_join_that_does() -> None:
    """The same code means another thing elsewhere."""
    error = _error(b'{"code":"timeout","op":"close","message":"too slow"}')
    assert type(error) is errors.TailnetError
