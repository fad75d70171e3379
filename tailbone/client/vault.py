"""Vault and OpenBao: log in with a token (auth method jwt)."""

from __future__ import annotations

import json
from typing import Final, NamedTuple
from urllib.parse import quote as quote_path

from tailbone.config.checks import web_url
from tailbone.errors import ConfigError, ExchangeError
from tailbone.http_request import post
from tailbone.json_object import parse_object
from tailbone.text import redact

AUDIENCE: Final = "vault"


class Login(NamedTuple):
    """A login. ``repr`` does not show its token.

    Attributes:
        token: Vault's token.
        lease_s: how long it is valid, in seconds; 0 for ever.
        renewable: whether it can be renewed.
    """

    token: str
    lease_s: int
    renewable: bool

    def __repr__(self) -> str:
        return f"Login(lease_s={self.lease_s})"


def log_in(address: str, role: str, jwt: str, *, mount: str = "jwt") -> Login:
    """Log in.

    Args:
        address: Vault's URL.
        role: a role of the auth method.
        jwt: a token with the role's audience.
        mount: where the auth method is enabled.

    Raises:
        ConfigError: the address is not a URL.
        ExchangeError: Vault cannot be reached, or refuses; the message has its text.
    """
    try:
        web_url(address)
    except ValueError as error:
        raise ConfigError(f"Vault's address {error}") from None
    url = f"{address.rstrip('/')}/v1/auth/{quote_path(mount.strip('/'))}/login"
    body = json.dumps({"role": role, "jwt": jwt}).encode()
    try:
        status, content = post(url, body, {"Content-Type": "application/json"})
    except OSError:
        raise ExchangeError(f"Vault at {address} cannot be reached") from None
    answer = parse_object(content) or {}
    if status >= 300:
        texts = answer.get("errors")
        if not isinstance(texts, list) or not texts:
            texts = [f"status {status}"]
        text = redact(" ".join(" ".join(map(str, texts)).split()))[:500]
        raise ExchangeError(f"Vault refused the token: {text}")
    auth = answer.get("auth")
    if not isinstance(auth, dict) or not isinstance(auth.get("client_token"), str):
        raise ExchangeError(f"Vault at {address} did not answer with a token")
    lease_s = auth.get("lease_duration")
    return Login(
        auth["client_token"], lease_s if isinstance(lease_s, int) else 0, bool(auth.get("renewable"))
    )
