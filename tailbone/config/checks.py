"""Checks of text values beyond their kind.

A check of a text value returns its normal form, or raises ``ValueError`` as :mod:`tailbone.config.kinds`
does.
"""

from __future__ import annotations

import re

from tailbone.text import bracketed, host_port

# RFC 3986 section 3.3.
_URL_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:/-]|%[0-9A-Fa-f]{2})*")


TAG = r"tag:[A-Za-z][A-Za-z0-9-]*"
"""The form of a tag of the tailnet's policy."""


TAILNET = "tailnet"
"""In server.metricsBinding: the issuer's own port on the tailnet."""


class SecretInValueError(ValueError):
    """The refused value may contain a secret and must not be shown."""


def binding(text: str) -> str:
    """Return ``auto`` for each spelling of "all of the node's addresses", else check an IP address."""
    if text in ("auto", "0.0.0.0", "::"):  # noqa: S104 - never bound to
        return "auto"
    return ip_address(text)


def ip_address(text: str) -> str:
    """Check an IP address, which may be in brackets."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError("is not an IP address") from None


def host_name(text: str) -> str:
    """Check a host name or an IP address; return a name in lower case, without its final dot.

    Names follow RFC 1123 section 2.1. They may also contain underscores, as the names of containers do.
    """
    if ":" in text or text.startswith("["):
        if "/" in text or text.count(":") == 1:
            raise ValueError("is not a bare name: omit scheme, port and path")
        return ip_address(text)
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not re.fullmatch(
        r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*", name
    ):
        raise ValueError("is not a host name")
    return name


def web_url(text: str) -> str:
    """Check an http or https URL. It must not contain a password, since it is logged and shown in errors."""
    from urllib.parse import urlsplit

    if "@" in text:
        raise SecretInValueError("contains a user or a password (an @)")
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises ValueError if invalid
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in text:
        raise ValueError("is not an http or https URL")
    if parts.query or parts.fragment:
        raise ValueError("contains a query or a fragment")
    return text


def issuer(text: str) -> str:
    """Check the claim iss: a URL in its only spelling, or a name that is not a URL."""
    return public_url(text) if re.match(r"https?:|([a-z0-9+.-]+:)?//", text, re.IGNORECASE) else text


def public_url(text: str) -> str:
    """Check the URL of a public document, or where such URLs begin: it must be in its only spelling.

    Verifiers compare it byte by byte with the discovery document and with what is registered with them, and
    some refuse a port, a query or a trailing slash.
    """
    from urllib.parse import urlsplit

    # A user name may come with a password.
    refused = SecretInValueError if "@" in text else ValueError
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise refused("is not a URL") from None
    host = (url.hostname or "").removesuffix(".")
    # HTTP clients resolve dots, and some servers merge slashes.
    path = "".join(f"/{part}" for part in url.path.split("/") if part not in ("", "."))
    if not _is_host(host) or not _URL_PATH.fullmatch(path) or "/../" in f"{path}/":
        raise refused("is not a URL")
    local = is_loopback(host)
    scheme = "http" if local and url.scheme == "http" else "https"
    right = f"{scheme}://{bracketed(host)}{f':{port}' if local and port else ''}{path}"
    if text != right:
        raise refused(f"must be written {right}")
    return text


def _is_host(text: str) -> bool:
    """Return whether the host of a URL is a name or a whole IP address."""
    try:
        # Clients read a name that ends with a number as an IPv4 address (URL Standard section 3.5).
        check = ip_address if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", text.rpartition(".")[2]) else host_name
        check(text)
    except ValueError:
        return False
    return "%" not in text


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address means this machine; nothing is looked up."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bucket(text: str) -> str:
    """Check an S3 bucket's name, an access point ARN, or the file URL (RFC 8089) of a folder."""
    if text.startswith("file:"):
        if not re.fullmatch(r"file:///[^?#]+", text):
            raise ValueError("must name an absolute folder: write three slashes after file:, and no ? or #")
        return text
    if "://" in text:
        raise ValueError("is a URL: write only the bucket's name")
    if text.startswith("arn:"):
        return text
    # AWS's current rules, and the laxer ones of old buckets and of other servers.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", text):
        raise ValueError("is not a bucket's name")
    return text


def object_path(text: str) -> str:
    """Check an object's path. It must not lead out of the bucket, since a bucket may be a folder."""
    if text.endswith("/"):
        raise ValueError("is a folder's path")
    parts = text.split("/")
    if ".." in parts:
        raise ValueError("leads out of the bucket")
    plain = "/".join(part for part in parts if part not in ("", "."))
    if text != plain:
        # A directory treats both spellings as one file, S3 as two objects.
        raise ValueError(f"must be written {plain}" if plain else "does not name an object")
    return text


def tag(text: str) -> str:
    """Check a tag of the tailnet's policy, such as ``tag:ci``."""
    if not re.fullmatch(TAG, text):
        raise ValueError("is not a tag")
    return text


def caller(text: str) -> str:
    """Check what names callers in ``issuer.deny``; return a login name in lower case.

    A node is named by its stable id alone, since its owner can change its name.
    """
    kind, _, name = text.partition(":")
    if kind == "tag":
        return tag(text)
    if kind == "user" and re.fullmatch(r"\S+", name):
        return text.lower()
    if kind == "node":
        if not re.fullmatch(r"[A-Za-z0-9]{1,64}", name):
            raise ValueError("is not a node's stable id, such as node:nABC123CNTRL; GET /whoami shows it")
        return text
    raise ValueError("is not user:ID, user:LOGIN, node:ID or tag:NAME")


def parse_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``, where an IPv6 address may be in brackets; the host is not checked."""
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("is not HOST:PORT")
    return host.strip("[]"), int(port)


def metrics_binding(text: str) -> str:
    """Check ``tailnet``, or a loopback host and port."""
    if text == TAILNET:
        return text
    host, port = parse_host_port(text)
    if not is_loopback(host):
        raise ValueError("is neither tailnet nor a loopback address with a port")
    return host_port(host, port)


def probe_binding(text: str) -> str:
    """Check a host and a port."""
    host, port = parse_host_port(text)
    return host_port(host_name(host), port)
