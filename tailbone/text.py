"""Make untrusted text safe to show: mask secrets, replace or escape deceptive characters.

- ``redact`` masks auth keys and tokens.
- ``escape`` keeps every character and shows the invisible ones: for logs and error messages.
- ``safe_text`` replaces deceptive characters: for names that are put into a token.
- ``shorten`` truncates long text and ends it with an ellipsis.
- ``host_port`` and ``bracketed`` write an address, IPv6 in brackets.
- ``quote`` puts a value into an error message: redacted, shortened, escaped, in quotes.
- ``moment`` and ``about`` write a time and a duration for people.
"""

from __future__ import annotations

from typing import Final

MASK: Final = "[redacted]"
TEXT_LIMIT: Final = 512
"""The longest name, in characters. An e-mail address has at most 254 (RFC 5321 section 4.5.3.1)."""

# tskey-: Tailscale's keys of every kind; hskey-: Headscale's; eyJ: base64url of '{"', how a JWT begins.
MARKS: Final = ("tskey-", "hskey-", "eyJ")
"""Every auth key and JWT contains one of these, so text without them need not be searched."""

_SECRETS: Final = (
    r"(?:ts|hs)key-[A-Za-z0-9_-]+(?:\?[^\s\"'\\]*)?"
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*"
)
UNKNOWN: Final = "unknown"
"""What ``moment`` returns for a time that is not known."""

_LONGEST_QUOTED: Final = 60
_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_REPLACEMENT: Final = "\ufffd"
# Cc controls, Cf invisible and direction-changing characters, Cs unpaired surrogates, Zl and Zp separators:
# they could make one name look like another, or break a log line or a header into which a verifier copies
# the name.
_DECEPTIVE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def redact(text: str) -> str:
    """Replace auth keys and JWTs with a mask.

    A second line of defence: no code here shows a secret on purpose, but people put values into the wrong
    setting, and libraries log what they receive.
    """
    for mark in MARKS:
        if mark in text:
            # Rarely needed; re caches the compiled expression.
            import re

            return re.sub(_SECRETS, MASK, text)
    return text


def escape(text: str) -> str:
    """Escape control and invisible characters, so that no value can forge a line or control a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def safe_text(text: str, allowed: frozenset[str] = frozenset()) -> str:
    """Replace each deceptive character with U+FFFD, and truncate to ``TEXT_LIMIT`` characters.

    Args:
        text: any text.
        allowed: deceptive characters to keep.
    """
    if text.isprintable() and len(text) <= TEXT_LIMIT:
        return text
    # Almost all text is printable, so short commands need not load this.
    from unicodedata import category

    cut = text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + _REPLACEMENT
    return "".join(
        _REPLACEMENT if category(char) in _DECEPTIVE and char not in allowed else char for char in cut
    )


def bracketed(host: str) -> str:
    """Return a host as URLs have it: IPv6 addresses in brackets (RFC 3986 section 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def host_port(host: str, port: int) -> str:
    """Return ``HOST:PORT``, an IPv6 address in brackets."""
    return f"{bracketed(host)}:{port}"


def shorten(text: str, limit: int) -> str:
    """Return the first *limit* characters, with an ellipsis in place of the others."""
    return text if len(text) <= limit else f"{text[:limit]}…"


def quote(text: str, *, limit: int = _LONGEST_QUOTED) -> str:
    """Return *text* in quotes for an error message: secrets masked, on one line, shortened to *limit*."""
    return f'"{escape(shorten(redact(text), limit))}"'


def moment(at: float) -> str:
    """Return Unix seconds as date and time; a kid or an older server may contain an impossible time."""
    # The verifier, which shows no time, need not load this.
    from datetime import UTC, datetime

    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z" if at else UNKNOWN
    except (ValueError, OverflowError, OSError):
        return UNKNOWN


def about(seconds: float) -> str:
    """Return a duration in its two largest units, in whole seconds: ``4m10s``, ``22m``, ``12d``."""
    left = max(0, round(seconds))
    for place, (unit, length) in enumerate(_UNITS):
        count, rest = divmod(left, length)
        if not count:
            continue
        if place + 1 < len(_UNITS):
            small, small_length = _UNITS[place + 1]
            if rest >= small_length:
                return f"{count}{unit}{rest // small_length}{small}"
        return f"{count}{unit}"
    return "0s"
