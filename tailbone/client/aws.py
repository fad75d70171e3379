"""AWS: exchange a token for a role's credentials at STS, without the AWS SDK."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from typing import Final, NamedTuple
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from tailbone.errors import ConfigError, ExchangeError
from tailbone.text import quote

AUDIENCE: Final = "sts.amazonaws.com"
DURATION_S: Final = 3600
"""AWS SDKs renew credentials from 15 min before their end, so shorter ones would be renewed at each call."""

_ANSWER_LIMIT: Final = 1 << 18
_TIMEOUT_S: Final = 15.0
_NAMESPACE: Final = "{https://sts.amazonaws.com/doc/2011-06-15/}"
_ARN: Final = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/[\w+=,.@/-]+", re.ASCII)
_DURATIONS_S: Final = (900, 43200)


class Credentials(NamedTuple):
    """Credentials of a role. ``repr`` does not show them.

    Attributes:
        expiration: their end, as STS wrote it (ISO 8601).
    """

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: str

    def __repr__(self) -> str:
        return f"Credentials(expiration={self.expiration!r})"


class Role(NamedTuple):
    """A role, and where to assume it.

    Attributes:
        arn: ``arn:aws:iam::ACCOUNT:role/NAME``.
        region: of the STS endpoint; empty for the global one.
        audience: the audience of its tokens.
        duration_s: how long the credentials live.
        session_name: shown in CloudTrail; made legal here.
        endpoint: URL of another STS server; empty for AWS.
    """

    arn: str
    region: str = ""
    audience: str = AUDIENCE
    duration_s: int = DURATION_S
    session_name: str = "tailbone"
    endpoint: str = ""

    @property
    def account(self) -> str:
        """The account's number. Raises ConfigError if the ARN is not a role's."""
        return self._parsed().group(2)

    def _parsed(self) -> re.Match[str]:
        match = _ARN.fullmatch(self.arn)
        if not match:
            raise ConfigError(
                f"the role must be an ARN such as arn:aws:iam::123456789012:role/NAME, not {quote(self.arn)}"
            )
        return match

    @property
    def url(self) -> str:
        """The URL of STS."""
        partition = self._parsed().group(1)
        if self.endpoint:
            return self.endpoint
        if not re.fullmatch(r"[a-z0-9-]*", self.region):
            raise ConfigError(f"the region must be a name such as eu-central-1, not {quote(self.region)}")
        domain = "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"
        return f"https://sts.{self.region}.{domain}/" if self.region else f"https://sts.{domain}/"

    @property
    def legal_session_name(self) -> str:
        """The session name with other characters replaced: 2 to 64 of ``[A-Za-z0-9_+=,.@-]``."""
        return re.sub(r"[^\w+=,.@-]", "-", self.session_name, flags=re.ASCII)[:64].ljust(2, "-")


def assume(role: Role, token: str) -> Credentials:
    """Call AssumeRoleWithWebIdentity, which needs no signature.

    Raises:
        ConfigError: ARN, region or duration is invalid.
        ExchangeError: STS cannot be reached, or refuses; the message has its code and text.
    """
    least, most = _DURATIONS_S
    if not least <= role.duration_s <= most:
        raise ConfigError(f"the duration must be {least} to {most} seconds")
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
    request = urllib.request.Request(role.url, form)  # noqa: S310 -- the scheme is https, or the user's own
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            answer = response.read(_ANSWER_LIMIT)
    except urllib.error.HTTPError as error:
        with error:
            raise ExchangeError(_refusal(error.read(_ANSWER_LIMIT), error.code)) from None
    except OSError:
        raise ExchangeError(f"STS at {role.url} cannot be reached") from None
    found = {element.tag.removeprefix(_NAMESPACE): element.text or "" for element in _elements(answer)}
    names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    if not all(found.get(name) for name in names):
        raise ExchangeError(f"STS at {role.url} did not answer with credentials")
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
    return f"STS refused the token: {' '.join(found.get('Message', '').split())[:500]} ({code})"
