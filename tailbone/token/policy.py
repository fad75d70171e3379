"""The policy: ``admit`` checks who calls, ``decide`` checks what is requested. Pure."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- msgspec resolves it
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import json

from tailbone.config.durations import format_duration
from tailbone.errors import (
    AccessError,
    AudienceNotAllowedError,
    BadParameterError,
    DeniedError,
    GrantConflictError,
    NoGrantError,
)
from tailbone.text import shorten
from tailbone.token.grants import ANY_AUDIENCE, AWS_TAGS_CLAIM, SUBJECT_PREFIX, excess
from tailbone.token.identity import Identity  # noqa: TC001 -- msgspec resolves it

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.token.grants import ClaimValue, GrantRule

_MOST_NAMED: Final = 20
"""How many audiences a refusal names."""

_LONGEST_SHOWN: Final = 200
"""How many characters of a value the log shows."""

_CONFLICT: Final = (
    "the tailnet's grants for this audience contradict each other; an administrator finds the reason in the "
    "server's log"
)


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that decide what a token may contain.

    Attributes:
        issuer: the claim ``iss``.
        expiry_s: the longest lifetime in seconds, which also applies if none is requested.
        backdate_s: how far ``iat`` and ``nbf`` are before now, in seconds.
        audiences: which audiences may be requested.
        allow_shared: whether a node that is shared in from another tailnet gets a token.
        access: ``acl``: every caller gets tokens, and grants add audiences and claims; ``grant``: a token
            needs a grant, and ``audiences``, unless empty, limits which audiences can be granted.
        capability: the name of the capability that holds the grants' rules.
        deny: who gets nothing: ``user:`` and a user id or a login name in lower case, ``node:`` and a stable
            node id, or a tag.
    """

    issuer: str
    expiry_s: int
    backdate_s: float
    audiences: tuple[str, ...]
    allow_shared: bool
    access: Literal["acl", "grant"]
    capability: str
    deny: frozenset[str]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller requests.

    Attributes:
        audience: the one audience of the token; None requests no ``aud``.
        ttl_s: lifetime in seconds; None requests the longest.
        dry_run: show what the token would contain, instead of signing one.
    """

    audience: str | None = None
    ttl_s: float | None = None
    dry_run: bool = False


class Admitted(msgspec.Struct, frozen=True):
    """A caller that ``admit`` has accepted, so that the type checker finds an unchecked one."""

    identity: Identity


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller gets.

    Attributes:
        audience: the claim ``aud``; None omits it.
        ttl_s: lifetime in whole seconds, at least 1.
        subject: the claim ``sub``; empty leaves the caller's own.
        claims: further claims, in the order they are written.
    """

    audience: str | None
    ttl_s: int
    subject: str = ""
    claims: Mapping[str, Any] = {}


class Available(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may request.

    Attributes:
        audiences: which audiences, sorted; ``*`` means any.
        without_audience: whether a token without ``aud``.
        refusal: why it gets nothing at all; None if it gets something.
    """

    audiences: tuple[str, ...]
    without_audience: bool
    refusal: AccessError | None = None


def admit(identity: Identity, settings: IssuerSettings) -> Admitted:
    """Check that this caller may request tokens at all.

    Raises:
        ExpiredCallerError: the node's key has expired.
        SharedCallerError: the node is shared in from another tailnet, which is not allowed.
        DeniedError: the caller is in ``settings.deny``.
    """
    identity.check_membership(allow_shared=settings.allow_shared)
    if settings.deny and not settings.deny.isdisjoint(_names(identity)):
        raise DeniedError("this server's settings deny you tokens (issuer.deny)")
    return Admitted(identity)


def _names(identity: Identity) -> tuple[str, ...]:
    node = f"node:{identity.node_id}"
    if identity.tags:
        return node, *identity.tags
    return node, f"user:{identity.user_id}", f"user:{identity.login.lower()}"


def decide(request: TokenRequest, settings: IssuerSettings, granted: Sequence[GrantRule] = ()) -> Decision:
    """Decide what an admitted caller gets for ``request``.

    The order of the granted rules does not matter. A rule that is for another audience adds nothing.

    Args:
        request: what the caller requests.
        settings: the issuer's.
        granted: the rules that the tailnet's policy grants the caller.

    Raises:
        BadParameterError: the lifetime is not whole seconds up to the longest.
        AudienceNotAllowedError: the audience is neither granted nor one of ``settings.audiences``.
        NoGrantError: tokens need a grant, and there is none for this audience.
        GrantConflictError: the rules for this audience contradict each other, or add up to too much.
    """
    audience = request.audience
    matching = [rule for rule in granted if rule.covers(audience)] if granted else ()
    if settings.access == "grant":
        _check_granted(audience, settings, matching)
    ttl_s = _lifetime(request.ttl_s, longest_s(matching, settings))
    ungranted = settings.access == "acl" and not matching
    if ungranted and audience is not None and audience not in settings.audiences:
        raise AudienceNotAllowedError(f"this audience is not allowed; {_allowed(settings, granted)}")
    return combine(matching, audience, ttl_s) if matching else Decision(audience=audience, ttl_s=ttl_s)


def available(identity: Identity, settings: IssuerSettings, granted: Sequence[GrantRule] = ()) -> Available:
    """Return which audiences a caller may request."""
    try:
        admit(identity, settings)
    except AccessError as error:
        return Available(audiences=(), without_audience=False, refusal=error)
    names = {name for rule in granted for name in rule.audiences}
    without = any(rule.covers(None) for rule in granted)
    if settings.access == "acl":
        names.update(settings.audiences)
        without = True
    elif settings.audiences:
        names = {name for name in settings.audiences if ANY_AUDIENCE in names or name in names}
    if not names and not without:
        refusal = NoGrantError("no grant of the tailnet's policy gives you a token")
        return Available(audiences=(), without_audience=False, refusal=refusal)
    return Available(audiences=tuple(sorted(names)), without_audience=without)


def longest_s(matching: Sequence[GrantRule], settings: IssuerSettings) -> int:
    """Return the longest lifetime: the greatest ``ttl`` of matching rules, up to ``settings.expiry_s``."""
    stated = [rule.ttl_s for rule in matching if rule.ttl_s is not None]
    return min(max(stated), settings.expiry_s) if stated else settings.expiry_s


def _check_granted(audience: str | None, settings: IssuerSettings, matching: Sequence[GrantRule]) -> None:
    if audience is not None and settings.audiences and audience not in settings.audiences:
        raise AudienceNotAllowedError("this audience is not allowed; the server's settings exclude it")
    if not matching:
        what = "this audience" if audience is not None else "tokens without an audience"
        raise NoGrantError(
            f"no grant of the tailnet's policy gives you {what}; GET /whoami shows what you may request"
        )


def _allowed(settings: IssuerSettings, granted: Sequence[GrantRule]) -> str:
    names = [*dict.fromkeys((*settings.audiences, *sorted({n for rule in granted for n in rule.audiences})))]
    more = len(names) - _MOST_NAMED
    named = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more (GET /whoami)" if more > 0 else "")
    return f"allowed: {named or 'none: issuer.audiences is empty'}"


def combine(matching: Sequence[GrantRule], audience: str | None, ttl_s: int) -> Decision:
    """Add up the rules that a caller has for one audience.

    Raises:
        GrantConflictError: they contradict each other, or add up to too much.
    """
    groups: set[str] = set()
    one: dict[str, str] = {}
    claims: dict[str, ClaimValue] = {}
    aws_tags: dict[str, str] = {}
    for rule in matching:
        groups.update(rule.groups)
        if rule.subject:
            _put(one, "sub", rule.subject)
        if rule.scope:
            _put(one, "scope", rule.scope)
        for name, value in rule.claims.items():
            _put(claims, name, value)
        for key, tag in rule.aws_tags.items():
            _put(aws_tags, key, tag, "awsTags ")
    further: dict[str, Any] = {}
    if groups:
        further["groups"] = sorted(groups)
    if "scope" in one:
        further["scope"] = one["scope"]
    further |= sorted(claims.items())
    if aws_tags:
        keys = sorted(aws_tags)
        further[AWS_TAGS_CLAIM] = {
            "principal_tags": {key: [aws_tags[key]] for key in keys},
            "transitive_tag_keys": keys,
        }
    if reason := excess(claims, aws_tags, further):
        raise GrantConflictError(_CONFLICT, detail=f"the rules for this audience add up to {reason}")
    subject = SUBJECT_PREFIX + one["sub"] if "sub" in one else ""
    return Decision(audience=audience, ttl_s=ttl_s, subject=subject, claims=further)


def _put(into: dict[str, Any], name: str, value: ClaimValue, kind: str = "claim ") -> None:
    """Add a value; lists add up, and anything else must agree with what is there.

    Raises:
        GrantConflictError: it does not.
    """
    other = next((key for key in into if key.lower() == name.lower()), name)
    if other != name:
        raise GrantConflictError(_CONFLICT, detail=f"{kind}{name} is also spelled {other}")
    before = into.setdefault(name, value)
    if isinstance(before, tuple) and isinstance(value, tuple):
        into[name] = tuple(sorted({*before, *value}))
    elif type(before) is not type(value) or before != value:  # in Python, 1 equals True
        both = " and ".join(
            sorted(shorten(json.encode(each).decode(), _LONGEST_SHOWN) for each in (before, value))
        )
        raise GrantConflictError(_CONFLICT, detail=f"{kind}{name} has two values: {both}")


def _lifetime(requested_s: float | None, longest_s: int) -> int:
    if requested_s is None:
        return longest_s
    # exp is in whole seconds, so a token cannot have a lifetime with a fraction.
    if not (1 <= requested_s <= longest_s) or requested_s != int(requested_s):
        longest = format_duration(longest_s)
        raise BadParameterError(f"ttl must be whole seconds from 1s to {longest_s}s ({longest})")
    return int(requested_s)
