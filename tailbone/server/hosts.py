"""The Host fields that this server accepts, which stops DNS rebinding. Pure."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.errors import BrowserRequestError, WrongHostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tailbone.server.request_head import Head

# An IPv6 address without brackets has no port: it comes from the node, never from a Host field.
_HOST_PORT: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
_KNOWN_LIMIT: Final = 256
_ANY_PORT: Final = "any"
_HTTP_PORT: Final = "80"


class AllowedHosts:
    """The names and addresses of this server.

    In DNS rebinding, a web page makes its own name resolve to this node, so that its visitor's browser sends
    the visitor's requests here. The browser sends the page's name as Host (RFC 9110 section 7.2).
    """

    def __init__(self, hosts: Iterable[str], *, any_address: bool = False) -> None:
        """Allow each of ``hosts``: a DNS name or an IP address; with a port, only that port; without, any.

        Args:
            hosts: the names and addresses.
            any_address: allow all IP addresses too. A web page's own name is never one.
        """
        self._any_address = any_address
        normal = (_normal(host) for host in hosts)
        self._allowed = frozenset((name, port or _ANY_PORT) for name, port in normal if name)
        # Clients send the same few spellings again and again.
        self._known: set[str] = set()

    def __contains__(self, host: object) -> bool:
        """Return whether a Host field is one of them, in any case, with or without a final dot."""
        if host in self._known:
            return True
        if not isinstance(host, str) or not self._matches(host):
            return False
        if len(self._known) < _KNOWN_LIMIT:
            self._known.add(host)
        return True

    def _matches(self, host: str) -> bool:
        name, port = _normal(host)
        if self._any_address and _is_address(name):
            return True
        return (name, _ANY_PORT) in self._allowed or (name, port or _HTTP_PORT) in self._allowed


def check_source(head: Head, hosts: AllowedHosts) -> None:
    """Refuse a request that a web page may have sent.

    Raises:
        WrongHostError: its Host field is not in ``hosts``.
        BrowserRequestError: it has fields of browsers.
    """
    if head.host not in hosts:
        raise WrongHostError("Host is neither an address nor a name of this server, nor an allowed host")
    if head.origin or head.fetch_site != "none":
        raise BrowserRequestError("a web page may not ask for its visitor's token (Origin, Sec-Fetch-Site)")


def check_visit(head: Head, hosts: AllowedHosts, destination: str) -> None:
    """Check a request for the page, as ``check_source`` does, but accept links from elsewhere.

    A browser that follows a link opens the page in a tab, where only its user reads it: there is no CORS
    and no framing. Scripts, images and frames of other sites have other destinations. A browser sends
    these fields to https and loopback addresses only; by plain http, the page relies on its own fields.

    Args:
        head: the request's.
        hosts: the accepted Host fields.
        destination: the Sec-Fetch-Dest field, which web pages cannot set (W3C Fetch Metadata, section 2.1).

    Raises:
        WrongHostError: its Host field is not in ``hosts``.
        BrowserRequestError: a web page sent it, to use the answer itself.
    """
    if destination == "document":
        head = msgspec.structs.replace(head, fetch_site="none")
    check_source(head, hosts)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _normal(host: str) -> tuple[str, str]:
    """Return one spelling of a host, and its port without leading zeros; both empty if it is not a host."""
    bare_ipv6 = _ipv6(host)
    if bare_ipv6:
        return bare_ipv6, ""
    match = _HOST_PORT.fullmatch(host)
    if match is None:
        return "", ""
    name, port = match["host"].lower(), match["port"] or ""
    if name.startswith("["):
        name = _ipv6(name[1:-1])
    # One final dot makes a DNS name absolute; an address has none.
    elif name.endswith(".") and not name[:-1].replace(".", "").isdigit():
        name = name[:-1]
    return (name, port.lstrip("0") if port else "") if name else ("", "")


def _ipv6(text: str) -> str:
    """Return the shortest spelling of an IPv6 address (RFC 5952); empty for anything else."""
    if ":" not in text:
        return ""
    try:
        return IPv6Address(text).compressed
    except AddressValueError:
        return ""
