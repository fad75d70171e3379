"""What the services that are asked for an ID token or an auth key answer, for errors and as a token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from tailbone.errors import LoginRefusedError
from tailbone.text import MASK, redact, shorten

if TYPE_CHECKING:
    from collections.abc import Collection

SETTING: Final = "server.tailscale.idTokenFrom"
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_LONGEST_WORDS: Final = 500


def words(message: object, secrets: Collection[str]) -> str:
    """Return the message of another service, on one line, shortened, and with secrets masked."""
    text = " ".join(str(message or "").split())
    for secret in secrets:
        text = text.replace(secret, MASK)
    return shorten(redact(text), _LONGEST_WORDS)


def checked(asked: str, text: str) -> str:
    """Return *text* if it looks like an ID token.

    Raises:
        LoginRefusedError: it does not.
    """
    if not _JWT.fullmatch(text):
        raise LoginRefusedError(f"{asked} did not answer with an ID token")
    return text
