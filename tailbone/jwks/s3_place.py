"""The name of an S3 store: the same however its address is spelt, and known without the SDK."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_HERE: Final = "127.0.0.1"
_SPELLINGS_OF_HERE: Final = ("localhost", "::1")
_PORTS: Final = {"http": 80, "https": 443}
_INDENTED: Final = "\n"

_Section = dict[str, str]


def place_of(bucket: str, environ: Mapping[str, str]) -> str:
    """Name a bucket and the server that it lies on.

    Args:
        bucket: its name.
        environ: the variables that lead to the server, and to the files of AWS profiles.

    Returns:
        ``s3://BUCKET`` on AWS, else ``s3://BUCKET at http://HOST:PORT``. Never a user or password of the URL.
    """
    endpoint = endpoint_of(environ)
    return f"s3://{bucket}" + (f" at {normalised(endpoint)}" if endpoint else "")


def normalised(endpoint: str) -> str:
    """One spelling of a server's URL; what is no URL stays as it is."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
    except ValueError:
        return endpoint
    if not url.scheme or not host:
        return endpoint.rstrip("/")
    host = _HERE if host in _SPELLINGS_OF_HERE else f"[{host}]" if ":" in host else host
    shown = f":{port}" if port is not None and port != _PORTS.get(url.scheme) else ""
    return f"{url.scheme}://{host}{shown}{url.path.rstrip('/')}"


def endpoint_of(environ: Mapping[str, str]) -> str:
    """Find the URL of the S3 server where botocore's ConfiguredEndpointProvider does; "" for AWS's own.

    botocore would tell, but importing it takes half a second, and whoever asks for the place cannot wait.
    """
    profiles, services = _files(environ)
    # In this order; the first that is set counts, also when it is empty.
    names = (environ[name] for name in ("AWS_DEFAULT_PROFILE", "AWS_PROFILE") if name in environ)
    profile = profiles.get(next(names, "default"), {})
    ignore = environ.get(
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", profile.get("ignore_configured_endpoint_urls")
    )
    if (ignore or "").lower() == "true":
        return ""
    return (
        environ.get("AWS_ENDPOINT_URL_S3", "")
        or environ.get("AWS_ENDPOINT_URL", "")
        or _nested(services.get(profile.get("services", ""), {}).get("s3", "")).get("endpoint_url", "")
        or profile.get("endpoint_url", "")
    )


def _files(environ: Mapping[str, str]) -> tuple[dict[str, _Section], dict[str, _Section]]:
    """The profiles and the sections of services in the AWS files."""
    profiles: dict[str, _Section] = {}
    services: dict[str, _Section] = {}
    for title, section in _sections(environ.get("AWS_CONFIG_FILE", "~/.aws/config")).items():
        kind, name = _parts(title)
        if title == "default":
            profiles[title] = section
        elif kind.startswith("profile"):
            profiles[name] = section
        elif kind.startswith("services"):
            services[name] = section
    for name, section in _sections(environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")).items():
        profiles[name] = profiles.get(name, {}) | section
    return profiles, services


def _sections(file: str) -> dict[str, _Section]:
    """An AWS file; nothing of one that cannot be read, which the first call to S3 tells of."""
    path = os.path.expanduser(os.path.expandvars(file))  # noqa: PTH111 -- as botocore does it
    if not os.path.isfile(path):  # noqa: PTH113 -- False for what is no path at all
        return {}
    import configparser

    parser = configparser.RawConfigParser()
    try:
        parser.read([path])
    except (configparser.Error, UnicodeDecodeError, OSError):
        return {}
    return {title: dict(parser.items(title)) for title in parser.sections()}


def _parts(title: str) -> tuple[str, str]:
    """A section's kind and name, which may be quoted; twice nothing when it has not both."""
    try:
        kind, name = shlex.split(title)
    except ValueError:
        return "", ""
    return kind, name


def _nested(text: str) -> _Section:
    """The settings of one service, which stand indented below its name."""
    if not text.startswith(_INDENTED):
        return {}
    pairs = (line.partition("=") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
