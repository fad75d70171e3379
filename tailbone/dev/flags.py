"""Check the flags of ``tailbone dev``, and refuse anything that may be production's. No I/O."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tailbone.config.checks import TAG, is_loopback, parse_host_port
from tailbone.errors import ConfigError
from tailbone.text import host_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tailbone.config.model import Config

DEFAULT_IDENTITIES = ("dev@example.com", "tag:ci")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
IGNORE_ENDPOINTS = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"

_LOGIN = re.compile(r"[^@\s/:*,]+@[^@\s/:*,]+")
_LONGEST_NAME = 40


class Endpoint(NamedTuple):
    """A loopback address to listen on; port 0 picks a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_port(self.host, self.port)

    def next(self, steps: int) -> Endpoint:
        """Return the endpoint ``steps`` ports higher; port 0 stays 0."""
        return self._replace(port=self.port + steps) if self.port else self


class DevSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of ``tailbone dev``.

    Attributes:
        identities: the callers' identities: logins (``dev@example.com``) or tags (``tag:ci``).
        listen: the address of the first caller; each further one gets the next port.
        jwks_listen: the address of the JWKS.
        admin_listen: the address of the admin API.
        state_dir: keeps tailnet, nodes and keys between runs; None means a temporary folder.
        bucket: an S3 bucket for the JWKS, on a loopback ``AWS_ENDPOINT_URL``; empty means a folder.
    """

    identities: tuple[str, ...] = DEFAULT_IDENTITIES
    listen: Endpoint = Endpoint("127.0.0.1", 8080)
    jwks_listen: Endpoint = Endpoint("127.0.0.1", 8090)
    admin_listen: Endpoint = Endpoint("127.0.0.1", 50051)
    state_dir: Path | None = None
    bucket: str = ""


def parse_endpoint(text: str, flag: str) -> Endpoint:
    """Parse the ``HOST:PORT`` of a flag.

    Raises:
        ConfigError: the text does not have that form, or is not a loopback address.
    """
    try:
        host, port = parse_host_port(text)
    except ValueError as error:
        raise ConfigError(f"flag {flag}: {text!r} {error}; allowed: 127.0.0.1:0 to 127.0.0.1:65535") from None
    if not is_loopback(host):
        raise ConfigError(
            f"flag {flag}: {host!r} is not a loopback address; allowed: {', '.join(LOOPBACK_NAMES)}"
        )
    return Endpoint(host, port)


def check_identities(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the callers' identities; the default ones if there are none.

    Raises:
        ConfigError: one is neither a login nor a tag, or occurs twice.
    """
    for number, text in enumerate(texts):
        if not text.isprintable() or not (_LOGIN.fullmatch(text) or re.fullmatch(TAG, text)):
            raise ConfigError(
                f"flag --as: {text!r} is not a valid identity; "
                "allowed: a login (dev@example.com) or a tag (tag:ci)"
            )
        if text in texts[:number]:
            raise ConfigError(f"flag --as: {text!r} is given twice; use each identity once")
    return tuple(texts) or DEFAULT_IDENTITIES


def node_name(identity: str) -> str:
    """Return the hostname of an identity's node: ``dev-example-com``. Two identities may have the same."""
    name = re.sub(r"[^a-z0-9]+", "-", identity.lower())[:_LONGEST_NAME].strip("-")
    return name or "caller"


def check_bucket(config: Config, environ: Mapping[str, str] = os.environ) -> str:
    """Return the name of the S3 bucket on this machine that dev may use; empty if none is set.

    Raises:
        ConfigError: it is not a name, or not all AWS variables point at this machine, so that the bucket may
            be production's.
    """
    bucket, origin = config.keys.bucket, config.origin("keys.bucket")
    if not bucket:
        return ""
    if "://" in bucket:
        raise ConfigError(
            f"keys.bucket ({origin}): {bucket!r} is not a bucket's name; without a bucket, dev uses a folder"
        )
    endpoints = {name: environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")}
    for name, url in endpoints.items():
        if (url or name == "AWS_ENDPOINT_URL") and not is_loopback(_host_of(url)):
            raise ConfigError(
                f"keys.bucket ({origin}): dev only uses a bucket on this machine; "
                f"{name} must be a URL on loopback, such as http://127.0.0.1:7070"
            )
    if environ.get(IGNORE_ENDPOINTS, "").lower() not in ("", "false"):
        raise ConfigError(f"variable {IGNORE_ENDPOINTS}: it disables AWS_ENDPOINT_URL; unset it")
    return bucket


def _host_of(url: str) -> str:
    """Return the host of a URL; empty if it is not a URL."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
