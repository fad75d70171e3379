"""The proxy that the usual variables name."""

from __future__ import annotations

import pytest

from tailbone import errors
from tailbone.admin.proxy import proxy_for


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://127.0.0.1:1056"}, "http://127.0.0.1:1056"),
        ({"https_proxy": "http://127.0.0.1:1056"}, "http://127.0.0.1:1056"),
        ({"GRPC_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:2"}, "http://p:1"),
        ({"HTTP_PROXY": "http://127.0.0.1:1056"}, ""),
        ({"HTTPS_PROXY": "127.0.0.1:1056"}, "http://127.0.0.1:1056"),
        ({"HTTPS_PROXY": ""}, ""),
    ],
)
@pytest.mark.usefixtures("no_proxy")
def test_the_proxy_is_the_one_of_go(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str
) -> None:
    """grpc_proxy, then HTTPS_PROXY, in either case; HTTP_PROXY is for HTTP."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for("tailbone", 50051) == proxy


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("tailbone", "tailbone", True),
        ("Tailbone", "a, TAILBONE ,b", True),
        ("tailbone", "tailbone:50051", True),
        ("tailbone", "tailbone:443", False),
        ("tailbone", "other", False),
        ("tailbone", "bone", False),
        ("tailbone", "", False),
        ("tailbone", "*", True),
        ("tailbone.x.ts.net", "ts.net", True),
        ("tailbone.x.ts.net", ".ts.net", True),
        ("tailbone.x.ts.net", "*.ts.net", True),
        ("tailbone.x.ts.net", "s.net", False),
        ("ts.net", "*.ts.net", False),
        ("100.64.0.2", "100.64.0.0/10", True),
        ("100.64.0.2", "100.64.0.2", True),
        ("192.0.2.1", "100.64.0.0/10", False),
        ("fd7a:115c:a1e0::2", "fd7a:115c:a1e0::/48", True),
        ("fd7a:115c:a1e0::2", "[fd7a:115c:a1e0::2]:50051", True),
        ("tailbone", "100.64.0.0/10", False),
    ],
)
@pytest.mark.usefixtures("no_proxy")
def test_exceptions_are_those_of_go(
    monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, direct: bool
) -> None:
    """NO_PROXY lists names with their subdomains, subdomains alone, addresses, networks, ports, or all."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(host, 50051) == ("" if direct else "http://p:1")


@pytest.mark.parametrize(
    "proxy", ["socks5://user:secret@p:1", "https://p:1", "\udcff", "http://\udcff", "http://"]
)
@pytest.mark.usefixtures("no_proxy")
def test_only_http_proxies_are_accepted(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """The message names the variable, and keeps its value secret."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(errors.ConfigError) as caught:
        proxy_for("tailbone", 50051)
    assert caught.value.message == (
        "variable HTTPS_PROXY: a proxy must be http://HOST:PORT; gRPC supports no other kind"
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_asked_directly(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """A local server is asked directly, whatever the environment says."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")
    assert proxy_for(host, 50051) == ""
