"""The log line of one call: which log receives it, at which level, with which fields."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
from harness.admin import DEV, CallLines

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin.call_line import CallLine
from tailbone.errors import LogUnavailableError, StoreError
from tailbone.process.refusal_log import RefusalLog

if TYPE_CHECKING:
    from tailbone.process.log import Logger

REMOVE = "/proto.AdminService/RemoveKey"
HEALTH = "/grpc.health.v1.Health/Check"
PEER = "unix-abstract:tailnet/00112233aabbccdd/admin/%5Bfd7a:115c:a1e0::2%5D:41234/1.1"
WHERE = {"method": "RemoveKey", "address": "[fd7a:115c:a1e0::2]:41234"}


class Full:
    """A log on a full disk."""

    def info(self, event: str, **facts: Any) -> None:
        raise OSError(28, "no space left")


class Logs:
    """What one server logs.

    Attributes:
        log: the lines of failures, cancelled calls and health checks.
        audit: the lines of changes and successful calls.
    """

    def __init__(self) -> None:
        self.log = CallLines()
        self.audit = CallLines()
        self.counts: Counter[str] = Counter()
        self.refusals = RefusalLog(cast("Logger", self.log))

    def line(self, method: str = REMOVE, audit: Any = None) -> CallLine:
        log = cast("Logger", self.log)
        return CallLine(log, audit or self.audit, self.refusals, self.counts, method, PEER)


def only(lines: CallLines) -> tuple[str, str, dict[str, Any]]:
    """Return the only line, without the time that its call took."""
    ((level, event, facts),) = lines.lines
    return level, event, {name: value for name, value in facts.items() if name != "took_ms"}


def test_a_successful_call() -> None:
    """Its one line has the caller and the fields of the request."""
    logs = Logs()
    line = logs.line()
    line.add_caller(DEV)
    line.add_request(pb.RemoveKeyRequest(key_id="tb-1\n"))
    line.answered(pb.RemoveKeyResponse())
    who = {"caller": DEV.login_or_tags, "sub": DEV.subject, "node": DEV.node}
    fields = WHERE | who | {"key_id": "tb-1\ufffd", "outcome": "ok"}
    assert (only(logs.audit), logs.log.lines) == (("info", "admin call", fields), [])


def test_a_request_does_not_replace_who_calls() -> None:
    """A viewer who asks about another node is still the one who calls."""
    logs = Logs()
    line = logs.line("/proto.AdminService/Explain")
    line.add_caller(DEV)
    line.add_request(pb.ExplainRequest(node="other", audience="a"))
    line.answered()
    fields = only(logs.audit)[2]
    assert (fields["node"], fields["requested_node"], fields["audience"]) == (DEV.node, "other", "a")


def test_a_generated_key_is_named() -> None:
    """The request does not contain its kid."""
    logs = Logs()
    answer = pb.GenerateNewKeysResponse()
    answer.key.key_id = "tb-1795518232"
    logs.line("/proto.AdminService/GenerateNewKeys").answered(answer)
    assert only(logs.audit)[2]["key_id"] == "tb-1795518232"


def test_a_change_that_begins() -> None:
    """Its outcome is that it begins."""
    logs = Logs()
    logs.line().begins()
    assert only(logs.audit) == ("info", "admin call begins", {"outcome": "begins", **WHERE})


@pytest.mark.parametrize(
    ("begins", "message"),
    [
        (True, "the server cannot log the call, and changes nothing"),
        (False, "the server cannot log the call, which was carried out"),
    ],
)
def test_a_line_that_cannot_be_written(begins: bool, message: str) -> None:
    """The error says whether the change was made, and keeps the cause for the log."""
    line = Logs().line(audit=Full())
    with pytest.raises(LogUnavailableError) as error:
        (line.begins if begins else line.answered)()
    assert (error.value.message, error.value.detail) == (message, "[Errno 28] no space left")


def test_a_cancelled_call() -> None:
    """It is a warning: the caller does not know what became of its call."""
    logs = Logs()
    logs.line().cancelled()
    assert only(logs.log) == ("warning", "admin call", WHERE | {"outcome": "cancelled"})


async def test_a_refused_call() -> None:
    """The line has the error's code as the outcome, and the detail that the caller does not get."""
    logs = Logs()
    logs.line().failed(StoreError("the bucket does not answer", detail="s3://place"))
    why = {"outcome": StoreError.code, "message": "the bucket does not answer", "detail": "s3://place"}
    assert only(logs.log) == ("warning", "admin call", WHERE | why)


async def test_an_unexpected_exception() -> None:
    """It is an error, with the exception."""
    logs, error = Logs(), RuntimeError("the inner text")
    logs.line().failed(error)
    assert only(logs.log) == ("error", "admin call", WHERE | {"outcome": "internal", "exc_info": error})


async def test_repeated_failures_are_one_line_and_a_count() -> None:
    """A caller cannot fill the disk with refused calls."""
    logs = Logs()
    for _ in range(5):
        logs.line().failed(StoreError("away"))
    logs.refusals.close()
    assert [facts.get("count") for facts in logs.log.calls] == [None, 4]


async def test_calls_are_counted_by_outcome() -> None:
    """Each once at its end; a call whose line cannot be written has failed. Health checks are not counted."""
    logs = Logs()
    logs.line().answered()
    logs.line().cancelled()
    logs.line().failed(StoreError("away"))
    unlogged = logs.line(audit=Full())
    with pytest.raises(LogUnavailableError) as error:
        unlogged.answered()
    unlogged.failed(error.value)
    for finish in ("answered", "cancelled"):
        getattr(logs.line(HEALTH), finish)()
    assert logs.counts == {"ok": 1, "cancelled": 1, "store_unavailable": 1, "log_unavailable": 1}


@pytest.mark.parametrize("outcome", ["answered", "cancelled"])
def test_a_health_check_is_logged_at_debug(outcome: str) -> None:
    """Monitors ask every few seconds, and need no audit log."""
    logs = Logs()
    getattr(logs.line(HEALTH, audit=Full()), outcome)()
    assert [level for level, _, _ in logs.log.lines] == ["debug"]
