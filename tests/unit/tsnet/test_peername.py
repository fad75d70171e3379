"""Peer names: those of bridged connections are parsed, others are refused."""

from __future__ import annotations

import pytest

from tailbone.errors import UnknownCallerError
from tailbone.tsnet.peername import PeerName, Slot, address_of, parse

PREFIX = "tailnet/0123456789abcdef/"


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        (b"\0tailnet/0123456789abcdef/issuer/100.64.0.2:4711/1", "100.64.0.2:4711"),
        (b"\0tailnet/0123456789abcdef/issuer/[fd7a::1]:4711/zz", "[fd7a::1]:4711"),
        ("unix-abstract:tailnet/0123456789abcdef/admin/100.64.0.2:4711/1", "100.64.0.2:4711"),
        ("unix-abstract:tailnet/0123456789abcdef/admin/%5Bfd7a::1%5D:4711/1", "[fd7a::1]:4711"),
        ("unix-abstract:%00tailnet/0123456789abcdef/admin/100.64.0.2:1/1", "100.64.0.2:1"),
    ],
)
def test_the_source_of_a_bridged_connection(peer: object, source: str) -> None:
    """It is between listener and slot, in the forms of both Sanic and gRPC."""
    assert parse(peer, PREFIX) == PeerName(source, None)
    assert address_of(peer) == source


@pytest.mark.parametrize(
    ("last", "slot"),
    [
        ("0.1", Slot(0, 1)),
        ("34n.zz", Slot(4055, 1295)),
        ("z", None),
        (".1", None),
        ("1.", None),
        ("1.2.3", None),
        ("-1.2", None),
        ("1.zzzzzzzz", None),
        ("١.1", None),
    ],
)
def test_the_slot_of_a_bridged_connection(last: str, slot: Slot | None) -> None:
    """It is number and generation in base 36; a connection without a slot has a single number."""
    assert parse(f"tailnet/0123456789abcdef/issuer/100.64.0.2:4711/{last}", PREFIX).slot == slot


@pytest.mark.parametrize(
    "peer",
    [
        None,
        b"",
        "",
        42,
        "ipv4:127.0.0.1:80",
        "unix:",
        b"\0tailnet/ffffffffffffffff/issuer/100.64.0.2:1/1",
        b"\0xtailnet/0123456789abcdef/issuer/100.64.0.2:1/1",
        b"\0tailnet/0123456789abcdef/issuer/100.64.0.2:1",
        b"\0tailnet/0123456789abcdef/issuer/100.64.0.2:1/1/1",
        b"\0tailnet/0123456789abcdef/\xff/\xff",
    ],
)
def test_any_other_peer_is_unknown(peer: object) -> None:
    """It lacks the prefix of this process, or has another form."""
    with pytest.raises(UnknownCallerError) as unknown:
        parse(peer, PREFIX)
    assert "0123456789abcdef" not in unknown.value.detail


def test_the_prefix_of_a_node_that_was_not_entered_matches_no_peer() -> None:
    """It begins with a NUL, which no peer name has there."""
    with pytest.raises(UnknownCallerError):
        parse(b"\0\0", "\0")


@pytest.mark.parametrize(
    ("peer", "address"), [(("127.0.0.1", 4711), "127.0.0.1:4711"), (("::1", 4711, 0, 0), "[::1]:4711")]
)
def test_the_address_of_a_tcp_peer(peer: object, address: str) -> None:
    """As sockets give it, for ports outside the tailnet."""
    assert address_of(peer) == address
