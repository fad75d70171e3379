"""Native failures become typed exceptions; the native library is not loaded."""

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


def test_a_timeout_of_a_close_is_a_plain_tailnet_error() -> None:
    """The code timeout means JoinTimeoutError only for a join."""
    error = _error(b'{"code":"timeout","op":"close","message":"too slow"}')
    assert type(error) is errors.TailnetError
