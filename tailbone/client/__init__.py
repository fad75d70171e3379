"""The client: gets tokens from an issuer, and keeps them fresh, for Python programs and for the commands.

    from tailbone.client import TokenSource

    tokens = TokenSource(audience="sts.example")
    headers = {"Authorization": f"Bearer {tokens.get()}"}

It needs neither the native library nor any framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tailbone.client.issuer import Issuer, Tokens
    from tailbone.client.source import AsyncTokenSource, TokenSource
    from tailbone.client.token import Token

__all__ = ["AsyncTokenSource", "Issuer", "Token", "TokenSource", "Tokens"]

URL_VARIABLE: Final = "TAILBONE_ISSUE_URL"
"""The environment variable with the issuer's URL."""

SOCKET_VARIABLE: Final = "TAILBONE_AGENT"
"""The environment variable with the path of an agent's socket."""

_MODULES: Final = {
    "AsyncTokenSource": "source",
    "Issuer": "issuer",
    "Token": "token",
    "TokenSource": "source",
    "Tokens": "issuer",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: commands that run for each request must start quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
