"""Ask the running server: who calls, what it would get, who the issuer is, and which keys it publishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from tailbone.doctor.targets import is_placeholder
from tailbone.errors import IssuerRefusedError, TailboneError
from tailbone.jwks.document import Document
from tailbone.jwks.public_check import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tailbone.client.issuer import Issuer

_T = TypeVar("_T")


class _Claims(msgspec.Struct, frozen=True):
    """The claims that the checks rely on; every token has them."""

    iss: str
    sub: str
    exp: float
    tags: tuple[str, ...] = ()


class _Caller(msgspec.Struct, frozen=True):
    sub: str
    tags: tuple[str, ...] = ()


class _Discovery(msgspec.Struct, frozen=True):
    issuer: str


class RunningServer(msgspec.Struct, frozen=True, kw_only=True):
    """What the running server says; what it does not is empty.

    Attributes:
        finding: whether it would issue a token.
        claims: of a token that this machine would get; None if it is refused.
        issuer: the claim iss of its tokens, if it is a URL.
        subject: the caller's.
        tags: the caller's.
        jwks: what it serves on the tailnet.
    """

    finding: Finding
    claims: Mapping[str, Any] | None = None
    issuer: str = ""
    subject: str = ""
    tags: tuple[str, ...] = ()
    jwks: Document | None = None


def ask(server: Issuer, audience: str) -> RunningServer:
    """Ask the server about this machine and an audience; nothing is signed."""
    try:
        claims = server.explain("" if is_placeholder(audience) else audience).get("claims")
        known = msgspec.convert(claims, _Claims)
        urlsplit(known.iss)
    except ValueError as error:  # msgspec's errors are ValueErrors
        text = f"{server.url} did not answer as a tailbone issuer does: {error}"
        return RunningServer(finding=_finding("error", text, "name the issuer with --issuer-url"))
    except IssuerRefusedError as error:
        return _refused(server, error)
    except TailboneError as error:
        text = f"the caller's sub is unknown: {error.message}"
        fix = "run doctor on a machine of the tailnet, or name the server with --issuer-url"
        return RunningServer(finding=_finding("warning", text, fix))
    return RunningServer(
        finding=Finding(level="ok", check="server", text=f"{server.url} would issue a token to this machine"),
        claims=claims,
        issuer=known.iss,
        subject=known.sub,
        tags=known.tags,
        jwks=_try(lambda: Document.parse(server.jwks())),
    )


def _refused(server: Issuer, error: TailboneError) -> RunningServer:
    """Return what a server says to a caller that it refuses a token."""
    caller = _try(lambda: msgspec.convert(server.whoami(), _Caller))
    discovery = _try(lambda: msgspec.convert(server.discovery(), _Discovery))
    return RunningServer(
        finding=_finding("error", f"{server.url} refuses a token: {error.message}", "see tailbone explain"),
        issuer=discovery.issuer if discovery else "",
        subject=caller.sub if caller else "",
        tags=caller.tags if caller else (),
        jwks=_try(lambda: Document.parse(server.jwks())),
    )


def _finding(level: Any, text: str, fix: str) -> Finding:
    return Finding(level=level, check="server", text=text, fix=fix)


def _try(question: Callable[[], _T]) -> _T | None:
    """Return an answer; None if the server does not give it, such as before its first key."""
    try:
        return question()
    except (TailboneError, ValueError):
        return None
