"""A role of AWS, and its credentials."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tailbone.errors import ConfigError
from tailbone.text import quote

AUDIENCE: Final = "sts.amazonaws.com"
DURATION_S: Final = 3600
"""AWS SDKs renew credentials from 15 min before their end, so shorter ones would be renewed at each call."""

_ARN: Final = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/[\w+=,.@/-]+", re.ASCII)


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
