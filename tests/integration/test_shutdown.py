"""A server ends in order, in time, and without losing an answer."""

from __future__ import annotations

import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from harness.clients import Clients

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Caller, Route, Tailnet


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_answer_arrives_under_load(
    server: Callable[..., Server], caller: Callable[..., Caller], number: signal.Signals
) -> None:
    """Every token in the log has reached its caller, on new and on kept connections."""
    started = server()
    route = caller().to(started.name)
    assert route.issue().status == 200
    clients = Clients(route)
    began = time.monotonic()
    started.program.send(number)
    assert started.program.wait() == 0
    assert time.monotonic() - began < 8
    clients.join()
    [first] = {line["jti"] for line in started.events("token issued")} - clients.jtis
    assert first == started.events("token issued")[0]["jti"]
    assert clients.jtis <= {line["jti"] for line in started.events("token issued")}


def test_pooled_connections_do_not_hold_it_up(
    server: Callable[..., Server], caller: Callable[..., Caller]
) -> None:
    """The server does not wait for clients with idle connections."""
    started = server()
    route = caller().to(started.name)
    pooled = [route.connect() for _ in range(10)]
    try:
        for connection in pooled:
            connection.sendall(f"GET /_healthz HTTP/1.1\r\nHost: {route.host}\r\n\r\n".encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert started.program.stop() == 0
        assert time.monotonic() - began < 4
    finally:
        for connection in pooled:
            connection.close()


@contextmanager
def half_sent(route: Route) -> Iterator[socket.socket]:
    """Open a connection on which the server has received two of four bytes of a body."""
    with route.connect() as connection:
        connection.sendall(
            f"POST /issue HTTP/1.1\r\nHost: {route.host}\r\nContent-Length: 4\r\n\r\nab".encode()
        )
        # An answer to another request shows that the first one has been received.
        assert route.get("/_healthz").status == 200
        yield connection


def test_request_in_progress_is_answered(
    server: Callable[..., Server], caller: Callable[..., Caller]
) -> None:
    """A request whose body is incomplete at the signal still gets its token."""
    started = server()
    route = caller().to(started.name)
    with half_sent(route) as connection:
        started.program.send(signal.SIGTERM)
        started.program.wait_for('"event":"stopping"')
        connection.sendall(b"cd")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in answer
    assert started.program.wait() == 0


def test_unfinished_request_is_cut_off_after_the_grace(
    server: Callable[..., Server], caller: Callable[..., Caller]
) -> None:
    """An unfinished request delays the end by the grace period of 5 s, not longer."""
    started = server()
    route = caller().to(started.name)
    with half_sent(route):
        began = time.monotonic()
        assert started.program.stop() == 0
        assert 4.5 < time.monotonic() - began < 8


def test_kill(server: Callable[..., Server], tmp_path: Path) -> None:
    """The next start removes the socket folder of a killed server, but not that of a running one."""
    temporary = tmp_path / "t"
    temporary.mkdir()
    killed = server(TMPDIR=str(temporary))
    living = server(TMPDIR=str(temporary))
    assert killed.program.stop(signal.SIGKILL) == 128 + signal.SIGKILL
    assert len(list(temporary.iterdir())) == 2
    assert server(TMPDIR=str(temporary)).program.stop() == 0
    assert len(list(temporary.iterdir())) == 1
    assert living.program.stop() == 0
    assert list(temporary.iterdir()) == []


def test_second_signal_ends_it_at_once(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """While the server waits for a request, a second signal ends it, with 128 plus the signal's number."""
    started = server()
    route = caller().to(started.name)
    with half_sent(route):
        started.program.send(signal.SIGTERM)
        started.program.wait_for('"event":"stopping"')
        began = time.monotonic()
        assert started.program.stop(signal.SIGINT) == 130
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_it_joins(
    server: Callable[..., Server], tailnet: Tailnet, number: signal.Signals
) -> None:
    """A signal ends the server in order and soon while it waits for the control server or a login."""
    key = tailnet.key("tag:tailbone")
    tailnet.do("pause_control")
    try:
        silent = server(authkey=key, ready=False)
        silent.program.wait_for("the control server does not answer; trying again")
        assert _stops_soon(silent.program, number) == 0
    finally:
        tailnet.do("resume_control")
    waiting = server(authkey="", ready=False)
    waiting.program.wait_for("To join the tailnet, open: ")
    assert _stops_soon(waiting.program, number) == 0
    assert waiting.program.event("stopped before it was up") is not None


def _stops_soon(program: Program, number: signal.Signals) -> int:
    began = time.monotonic()
    code = program.stop(number)
    assert time.monotonic() - began < 3, program.output()
    return code


def test_signal_at_every_moment(server: Callable[..., Server]) -> None:
    """SIGTERM at any moment of the start ends the server, which can start again from its folders."""
    for step in range(6):
        started = server(hostname="hurried", ready=False)
        with pytest.raises(AssertionError, match="still running"):
            started.program.wait(0.15 * step + 0.05)
        assert started.program.stop() in (0, 143), started.program.output()
    again = server(hostname="hurried")
    assert again.program.stop() == 0


def test_an_orderly_end_logs_no_warning(server: Callable[..., Server], caller: Callable[..., Caller]) -> None:
    """An orderly end logs no warning, and writes nothing to standard error."""
    started = server()
    assert caller().to(started.name).issue().status == 200
    assert started.program.stop() == 0
    records = started.program.records()
    end = records[[record["event"] for record in records].index("stopping") :]
    assert {record["level"] for record in end} == {"info"}
    assert started.program.err == []
