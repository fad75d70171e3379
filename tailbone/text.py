"""Masks auth keys and tokens in text that is about to be shown or logged.

A second line of defence: no code here shows a secret on purpose, but people put values into the
wrong setting, and other libraries log what they like.
"""

from __future__ import annotations

MASK = "[redacted]"
_LONGEST_QUOTED = 60

# tskey-: Tailscale's keys of every kind; hskey-: Headscale's; eyJ: base64url of '{"', how a JWT begins.
MARKS = ("tskey-", "hskey-", "eyJ")
"""What every such secret contains: a text without them needs no closer look."""

_SECRETS = (
    r"(?:ts|hs)key-[A-Za-z0-9_-]+(?:\?[^\s\"'\\]*)?"
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"
)


def redact(text: str) -> str:
    """Return *text* with auth keys and JWTs replaced by a mark."""
    for mark in MARKS:
        if mark in text:
            # Rarely needed, and the compiled expression is in re's own cache from then on.
            import re

            return re.sub(_SECRETS, MASK, text)
    return text


def quote(text: str) -> str:
    """Return *text* in quotes, as an error may show it: without secrets, on one line, and not too long."""
    text = redact(text)
    if len(text) > _LONGEST_QUOTED:
        text = f"{text[:_LONGEST_QUOTED]}…"
    # Escapes of control characters: a value can neither break the line nor command the terminal.
    return f'"{text}"' if text.isprintable() else ascii(text)
