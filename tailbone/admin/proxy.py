"""The proxy between ``tailbone keys`` and a server, from the usual variables, as Go programs read them.

grpc itself reads them only in lower case, uses http_proxy as well, connects even to loopback through the
proxy, and does not know ``*.domain`` in no_proxy.
"""

from __future__ import annotations

import contextlib
import os
import re
from ipaddress import ip_address, ip_network

from tailbone.errors import ConfigError
from tailbone.text import host_port


def proxy_for(host: str, port: int) -> str:
    """Return the URL of the proxy for a server, from grpc_proxy or HTTPS_PROXY; "" for none.

    Raises:
        ConfigError: the proxy is not an HTTP proxy.
    """
    names = ("grpc_proxy", "GRPC_PROXY", "https_proxy", "HTTPS_PROXY")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None or _is_direct(host, port):
        return ""
    proxy = os.environ[name]
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if not re.fullmatch("http://[!-~]+", proxy):
        # The value may contain a password.
        raise ConfigError(f"variable {name}: a proxy must be http://HOST:PORT; gRPC supports no other kind")
    return proxy


def _is_direct(host: str, port: int) -> bool:
    """Return whether a server is on this machine or in NO_PROXY."""
    try:
        address = ip_address(host)
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
    for entry in no_proxy.lower().replace(" ", "").split(","):
        if entry in ("*", host.lower(), host_port(host, port).lower()):
            return True
        domain = entry.removeprefix("*").removeprefix(".")
        if domain and host.lower().endswith(f".{domain}"):
            return True
        with contextlib.suppress(ValueError):
            if address is not None and address in ip_network(entry, strict=False):
                return True
    return False


def address_of_proxy(proxy: str) -> str:
    """Return a proxy's host and port, without the password that its URL may contain."""
    return proxy.rpartition("//")[2].rpartition("@")[2].rstrip("/")
