"""STS: exchange a token for the credentials of an AWS role, without the AWS SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from tailbone.client.aws import Credentials
from tailbone.config.checks import web_url
from tailbone.errors import ConfigError, ExchangeError
from tailbone.http_request import post
from tailbone.text import redact

if TYPE_CHECKING:
    from tailbone.client.aws import Role

_NAMESPACE: Final = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_DURATIONS_S: Final = (900, 43200)


def assume(role: Role, token: str) -> Credentials:
    """Call AssumeRoleWithWebIdentity, which needs no signature.

    Raises:
        ConfigError: ARN, region, duration or URL is invalid.
        ExchangeError: STS cannot be reached, or refuses; the message has its code and text.
    """
    least, most = _DURATIONS_S
    if not least <= role.duration_s <= most:
        raise ConfigError(f"the duration must be {least} to {most} seconds")
    url = role.url
    try:
        web_url(url)
    except ValueError as error:
        raise ConfigError(f"the URL of STS {error}") from None
    form = urlencode(
        {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": role.arn,
            "RoleSessionName": role.legal_session_name,
            "DurationSeconds": role.duration_s,
            "WebIdentityToken": token,
        }
    ).encode()
    try:
        status, answer = post(url, form)
    except OSError:
        raise ExchangeError(f"STS at {url} cannot be reached") from None
    if status >= 300:
        raise ExchangeError(_refusal(answer, status))
    found = {element.tag.removeprefix(_NAMESPACE): element.text or "" for element in _elements(answer)}
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    if not all(found.get(name) for name in names):
        raise ExchangeError(f"STS at {url} did not answer with credentials")
    return Credentials(*(found[name] for name in names))


def _elements(xml: bytes) -> list[ET.Element]:
    try:
        # Expat resolves no external entities, and limits how far internal ones may grow.
        return list(ET.fromstring(xml).iter())  # noqa: S314
    except ET.ParseError:
        return []


def _refusal(xml: bytes, status: int) -> str:
    found = {element.tag.rpartition("}")[2]: element.text or "" for element in _elements(xml)}
    code = found.get("Code") or f"status {status}"
    text = redact(" ".join(found.get("Message", "").split()))[:500]
    return f"STS refused the token: {text} ({code})"
