"""Checks of values: what a text must look like beyond its kind, and which settings contradict each other.

The checks of texts raise ``ValueError`` as those of :mod:`tailbone.config.kinds` do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tailbone.config.durations import format_duration
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.config.model import Config


class SecretInValueError(ValueError):
    """A value was refused that may hold a secret: it is not to be shown."""


def binding(text: str) -> str:
    """``auto``, for each spelling of "the node's own addresses"; else an IP address in its usual form."""
    if text in ("auto", "0.0.0.0", "::"):  # noqa: S104 - understood, never bound to
        return "auto"
    return ip_address(text)


def ip_address(text: str) -> str:
    """An IP address in its usual form."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise ValueError("is not an IP address") from None


def host_name(text: str) -> str:
    """A host name in lower case without its final dot, or an IP address.

    Names follow RFC 1123 section 2.1, and may hold underscores, since containers' names do.
    """
    if ":" in text or text.startswith("["):
        if "/" in text or text.count(":") == 1:
            raise ValueError("is not a bare name: leave out scheme, port and path")
        return ip_address(text)
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not re.fullmatch(
        r"[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_][a-z0-9_-]{0,62})*", name
    ):
        raise ValueError("is not a host name")
    return name


def web_url(text: str) -> str:
    """An http or https URL, without user and password: it is logged, and shown in errors."""
    from urllib.parse import urlsplit

    if "@" in text:
        raise SecretInValueError("has a user or a password in it (an @)")
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises for a bad one
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in text:
        raise ValueError("is not an http or https URL")
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment")
    return text


def bucket(text: str) -> str:
    """An S3 bucket's name or access point ARN, or ``file://`` and an absolute path."""
    if text.startswith("file://"):
        if not text.startswith("file:///") or text == "file:///":
            raise ValueError("names no absolute folder: three slashes follow file:")
        return text
    if "://" in text:
        raise ValueError("is a URL: give the bucket's name alone")
    if text.startswith("arn:"):
        return text
    # AWS's rules of today, and the laxer ones of old buckets and of other servers.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", text):
        raise ValueError("is not a bucket's name")
    return text


def object_path(text: str) -> str:
    """A path inside a bucket: never out of it, since a bucket may be a folder."""
    if text.endswith("/"):
        raise ValueError("is a folder's path")
    parts = text.split("/")
    if ".." in parts:
        raise ValueError("leads out of the bucket")
    plain = "/".join(part for part in parts if part not in ("", "."))
    if text != plain:
        # A directory takes both for one file, S3 for two objects.
        raise ValueError(f"must be written {plain}" if plain else "does not name an object")
    return text


def tag(text: str) -> str:
    """A tag of the tailnet's policy: ``tag:ci``."""
    if not re.fullmatch(r"tag:[A-Za-z][A-Za-z0-9-]*", text):
        raise ValueError("is not a tag")
    return text


# --- settings together


def check_together(config: Config) -> None:
    """Refuse settings that are right alone and wrong together.

    Raises:
        ConfigError: the message names both.
    """
    _check_rotation(config)
    key, file = "server.tailscale.authkey", "server.tailscale.authkeyFile"
    if config.is_set(key) and config.is_set(file):
        raise ConfigError(
            f"{key} ({config.origin(key)}) and {file} ({config.origin(file)}) are both set: use one of them"
        )


def _check_rotation(config: Config) -> None:
    keys = config.keys
    wait_s = keys.max_age_s if keys.activate_after_s is None else keys.activate_after_s
    if 0 < keys.rotate_every_s < wait_s:
        path = "keys.maxAge" if keys.activate_after_s is None else "keys.activateAfter"
        raise ConfigError(
            f"keys.rotateEvery ({config.origin('keys.rotateEvery')}): {format_duration(keys.rotate_every_s)} "
            f"is shorter than the wait before a key signs ({path}, {format_duration(wait_s)}): "
            "no key would ever sign"
        )
