"""Which Host fields mean this server."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailbone.server.hosts import AllowedHosts

HOSTS = AllowedHosts(
    [
        "100.64.0.1",
        "fd7a:115c:a1e0::1",
        "tailbone",
        "tailbone.dev.tailnet.test",
        "127.0.0.1:8080",
        "[::1]:8080",
        "",
    ]
)


@pytest.mark.parametrize(
    "host",
    [
        "tailbone",
        "TailBone",
        "tailbone.",
        "tailbone:80",
        "tailbone:8080",
        "tailbone:",
        "tailbone.:80",
        "tailbone.dev.tailnet.test",
        "TAILBONE.DEV.TAILNET.TEST.",
        "tailbone.dev.tailnet.test.:80",
        "100.64.0.1",
        "100.64.0.1:80",
        "[fd7a:115c:a1e0::1]",
        "[fd7a:115c:a1e0::1]:80",
        "[FD7A:115C:A1E0:0:0:0:0:1]",
        "[fd7a:115c:a1e0:0000::0001]:80",
        "127.0.0.1:8080",
        "127.0.0.1:08080",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]:8080",
    ],
)
def test_hosts_that_mean_this_server(host: str) -> None:
    """Names in any case, with or without final dot; addresses in any spelling; the port does not matter."""
    assert host in HOSTS


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":80",
        ".",
        "evil.example",
        "tailbone.evil.example",
        "evil-tailbone",
        "tailbone..",
        ".tailbone",
        "tailbone.dev",
        "tailbone.dev.tailnet.test.evil.example",
        "tailbone:80:80",
        "tailbone:http",
        "tailbone@evil.example",
        "100.64.0.2",
        "100.64.0.1.",
        "100.64.1",
        "0x64400001",
        "100.64.0.01",
        "[100.64.0.1]",
        "[::ffff:100.64.0.1]",
        "[fd7a:115c:a1e0::2]",
        "[fd7a:115c:a1e0::1%25eth0]",
        "[fd7a:115c:a1e0::1",
        "[]",
        "localhost",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:8081",
        "[::1]",
        "tailbone ",
        "tailb\u00f6ne",
        "\u24e3ailbone",
        "tailbon\u212f",
    ],
)
def test_hosts_that_do_not(host: str) -> None:
    """A name that somebody else can point here, a spelling that few resolvers know, another port."""
    assert host not in HOSTS


def test_the_answer_stays_the_same() -> None:
    """Remembering what was asked changes no answer, and nothing else is a host."""
    assert [host in HOSTS for host in ("tailbone", "evil", "tailbone", "evil")] == [True, False, True, False]
    assert None not in HOSTS


def test_a_port_of_80_is_what_no_port_means() -> None:
    """http:// without a port is port 80."""
    hosts = AllowedHosts(["a:80"])
    assert [host in hosts for host in ("a", "a:80", "a:", "a:81")] == [True, True, True, False]


def test_without_hosts_nothing_is_one() -> None:
    """An empty list is no wildcard."""
    assert "" not in AllowedHosts([])
    assert "" not in AllowedHosts(["", ":80", "."])


@given(st.text(max_size=30))
def test_any_text_is_a_host_or_not(text: str) -> None:
    """Whatever is sent, the answer is yes only for one of the names, whatever its case and final dot."""
    name = text.partition(":")[0].lower().removesuffix(".")
    if text in HOSTS and not text.startswith("["):
        assert name in ("tailbone", "tailbone.dev.tailnet.test", "100.64.0.1", "127.0.0.1")


@given(st.integers(0, 2**128 - 1), st.booleans(), st.none() | st.integers(0, 65535))
def test_every_spelling_of_an_address_is_the_address(number: int, exploded: bool, port: int | None) -> None:
    """Browsers shorten IPv6 addresses, people may not."""
    address = IPv6Address(number)
    spelling = f"[{address.exploded if exploded else address.compressed}]".upper()
    assert (spelling if port is None else f"{spelling}:{port}") in AllowedHosts([str(address)])


@given(st.text("abcXYZ019-.", min_size=1, max_size=20), st.none() | st.integers(0, 65535))
def test_a_name_is_itself_in_any_case(name: str, port: int | None) -> None:
    """A DNS name on the list is found as it stands, in other letters, and with any port."""
    hosts = AllowedHosts([name])
    suffix = "" if port is None else f":{port}"
    assert ((name.swapcase() + suffix) in hosts) == bool(name.removesuffix("."))
