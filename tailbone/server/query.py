"""The query of /issue: what a caller asks for. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from tailbone.config.durations import parse_duration
from tailbone.errors import BadParameterError
from tailbone.token.policy import TokenRequest

_AUDIENCE: Final = "audience"
_TTL: Final = "ttl"
_DRY_RUN: Final = "dry_run"
_NAMES: Final = (_AUDIENCE, _TTL, _DRY_RUN)
_KNOWN: Final = "audience, ttl and dry_run are known, each at most once"
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


# Clients repeat their queries.
@lru_cache(maxsize=256)
def parse_query(query: str) -> TokenRequest:
    """Parse a query string.

    Names and values are form-encoded, as browsers and HTTP libraries write them: ``+`` is a space.

    Args:
        query: what follows the ``?``, without it; ASCII.

    Raises:
        BadParameterError: a parameter is unknown, repeated, empty, not UTF-8, or has an invalid value.
    """
    if not query:
        return TokenRequest()
    given: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        name = _decoded(name)
        if name not in _NAMES:
            raise BadParameterError(f"unknown query parameter; {_KNOWN}")
        if name in given:
            raise BadParameterError(f"{name} is given twice; {_KNOWN}")
        given[name] = _decoded(value)
        if not given[name]:
            raise BadParameterError(f"{name} is empty")
    ttl = given.get(_TTL)
    dry_run = given.get(_DRY_RUN, "false")
    if dry_run not in ("true", "false"):
        raise BadParameterError("dry_run must be true or false")
    return TokenRequest(
        audience=given.get(_AUDIENCE),
        ttl_s=None if ttl is None else _seconds(ttl),
        dry_run=dry_run == "true",
    )


def _decoded(text: str) -> str:
    if _BAD_ESCAPE.search(text) is not None:
        raise BadParameterError("a % in the query is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise BadParameterError("the query is not UTF-8") from None


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise BadParameterError(f"ttl {error}; a duration such as 90s, 5m or 1h30m is allowed") from None
