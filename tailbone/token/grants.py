"""Decode the rules that the tailnet's policy grants a caller (capability ``tailbone.dev/cap/token``). Pure.

Each value of a capability is one self-contained rule, decoded alone and strictly: a value with an unknown
member, a wrong type or a reserved claim is void, grants nothing, and leaves the others valid.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tailbone.config.durations import parse_duration
from tailbone.text import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TOKEN_CAPABILITY: Final = "tailbone.dev/cap/token"  # noqa: S105 -- a name
"""The default of ``issuer.capability``."""

ANY_AUDIENCE: Final = "*"
AWS_TAGS_CLAIM: Final = "https://aws.amazon.com/tags"
SUBJECT_PREFIX: Final = "cap:"
"""What ``sub`` begins with where a rule names the subject, so that it never equals another caller's."""

MOST_CLAIMS: Final = 20
MOST_BYTES: Final = 4096
"""How many claims a rule may add, and their longest JSON; the same limits apply to a token."""

_LONGEST_SHOWN: Final = 500
"""How many characters of a void value are shown, and of the reason."""

OWN_CLAIMS: Final = frozenset(
    {"iss", "sub", "aud", "iat", "nbf", "exp", "jti"}
    | {"user", "display_name", "tags", "node", "node_id", "groups", "scope", AWS_TAGS_CLAIM}
)
"""The claims that tailbone writes itself; those of the first row are all of RFC 7519 section 4.1."""

# OpenID Connect Core 1.0, sections 2, 3.1.3.6, 5.1, 5.6.2 and 7.4: verifiers give them a meaning.
# fmt: off
_OPENID_CLAIMS: Final = frozenset({
    "nonce", "auth_time", "acr", "amr", "azp", "at_hash", "c_hash", "sub_jwk", "_claim_names",
    "_claim_sources", "name", "given_name", "family_name", "middle_name", "nickname", "preferred_username",
    "profile", "picture", "website", "email", "email_verified", "gender", "birthdate", "zoneinfo", "locale",
    "phone_number", "phone_number_verified", "address", "updated_at",
})
# fmt: on
RESERVED_CLAIMS: Final = OWN_CLAIMS | _OPENID_CLAIMS
"""The claims that no rule can set, in any case: Go's JSON decoder takes ``Exp`` for ``exp``."""

_RESERVED_PREFIX: Final = "https://aws.amazon.com/"
"""AWS reads its session tags and source identity from claims with this prefix, too."""

_CLAIM_NAME: Final = re.compile(r"[A-Za-z0-9_:/.-]{1,128}")
# Cloud providers treat * and ? in a subject as patterns.
_SUBJECT: Final = re.compile(r"[!-)+->@-~]{1,120}")
# RFC 6749 section 3.3.
_SCOPE: Final = re.compile(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*")
# What AWS accepts as a session tag (STS API reference, type Tag).
_AWS_TAG: Final = re.compile(r"[\w \u00a0.:/=+\-@]*")
_MOST_AWS_TAGS, _AWS_KEY_LENGTH, _AWS_VALUE_LENGTH = 50, 128, 256

_FORMS: Final = {
    "scope": 'must be words of ASCII separated by single spaces, without " and \\ (RFC 6749 section 3.3)',
    "subject": "must be 1 to 120 printable ASCII characters, without space, * and ?",
}

encode = msgspec.json.Encoder().encode

_T = TypeVar("_T")

_Word: TypeAlias = Annotated[str, Meta(min_length=1, max_length=600)]
# JSON readers agree on whole numbers up to 2**53 (RFC 8259 section 6).
_Whole: TypeAlias = Annotated[int, Meta(ge=-(2**53), le=2**53)]
ClaimValue: TypeAlias = str | bool | int | float | tuple[str, ...]


class _Object(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A rule as the policy spells it."""

    audiences: tuple[_Word, ...] | UnsetType = UNSET
    ttl: str | UnsetType = UNSET
    groups: tuple[_Word, ...] = ()
    scope: str | UnsetType = UNSET
    claims: dict[str, str | bool | _Whole | float | tuple[str, ...]] = {}
    aws_tags: dict[str, str] = {}
    subject: str | UnsetType = UNSET


class GrantRule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule; what it gives counts for its own audiences only.

    Attributes:
        source: the JSON value in the policy.
        audiences: the audiences it is for, ``*`` meaning any; empty means tokens without ``aud``.
        ttl_s: the longest lifetime in whole seconds; None leaves it to the others.
        groups: members of the claim ``groups``.
        scope: the claim ``scope``; empty for none.
        claims: further claims.
        aws_tags: AWS session tags.
        subject: the claim ``sub`` without its prefix; empty leaves the caller's own.
    """

    source: Any
    audiences: frozenset[str] = frozenset()
    ttl_s: int | None = None
    groups: tuple[str, ...] = ()
    scope: str = ""
    claims: Mapping[str, ClaimValue] = {}
    aws_tags: Mapping[str, str] = {}
    subject: str = ""

    def covers(self, audience: str | None) -> bool:
        """Return whether the rule is for tokens with this audience; None is a token without one."""
        if audience is None:
            return not self.audiences
        return audience in self.audiences or ANY_AUDIENCE in self.audiences


class Void(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a capability that grants nothing.

    Attributes:
        capability: its name.
        source: its JSON text, of any length.
        reason: what is wrong with it.
    """

    capability: str
    source: str
    reason: str

    @property
    def shown(self) -> str:
        """The text, shortened."""
        return shorten(self.source, _LONGEST_SHOWN)


class Granted(msgspec.Struct, frozen=True, kw_only=True):
    """What a capability grants a caller.

    Attributes:
        rules: the valid ones, in the policy's order.
        void: the others.
    """

    rules: tuple[GrantRule, ...] = ()
    void: tuple[Void, ...] = ()


NOTHING: Final = Granted()


def granted(capabilities: Mapping[str, Sequence[str]], capability: str) -> Granted:
    """Return what a caller's capabilities grant; values that were seen before are not decoded again.

    Args:
        capabilities: the caller's, from whois; each value is JSON text.
        capability: the name of the one that holds rules.
    """
    values = capabilities.get(capability)
    if not values:
        return NOTHING
    return _granted(capability, tuple(values))


@lru_cache(maxsize=1024)
def _granted(capability: str, values: tuple[str, ...]) -> Granted:
    rules, void = read(capability, values, parse_rule)
    return Granted(rules=rules, void=void)


def read(
    capability: str, values: Sequence[str], parse: Callable[[Any], _T]
) -> tuple[tuple[_T, ...], tuple[Void, ...]]:
    """Decode each value of a capability on its own: one that cannot be decoded leaves the others valid.

    Args:
        capability: its name.
        values: its values, each JSON text.
        parse: decodes one value; raises ValueError if it is void.

    Returns:
        What the valid values say, and the void ones.
    """
    valid, void = [], []
    for text in values:
        try:
            valid.append(parse(msgspec.json.decode(text)))
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            reason = shorten(str(error), _LONGEST_SHOWN)
            void.append(Void(capability=capability, source=text, reason=reason))
    return tuple(valid), tuple(void)


def parse_rule(value: Any) -> GrantRule:
    """Decode one value of the token capability.

    Raises:
        ValueError: the rule is void; the text says why.
    """
    written = msgspec.convert(value, _Object)
    audiences = () if written.audiences is UNSET else written.audiences
    if written.audiences == ():
        raise ValueError("audiences is empty: omit it for tokens without aud")
    for audience in audiences:
        if ANY_AUDIENCE in audience and audience != ANY_AUDIENCE:
            raise ValueError(f'audience {audience!a}: there are no patterns, only exact names and "*"')
    _check_claims(written.claims)
    _check_aws_tags(written.aws_tags)
    if reason := excess(written.claims, written.aws_tags, written):
        raise ValueError(f"the rule has {reason}")
    return GrantRule(
        source=value,
        audiences=frozenset(audiences),
        ttl_s=None if written.ttl is UNSET else _seconds(written.ttl),
        groups=written.groups,
        scope="" if written.scope is UNSET else _matching(_SCOPE, written.scope, "scope"),
        claims=written.claims,
        aws_tags=written.aws_tags,
        subject="" if written.subject is UNSET else _matching(_SUBJECT, written.subject, "subject"),
    )


def excess(claims: Mapping[str, ClaimValue], aws_tags: Mapping[str, str], members: Any) -> str:
    """Return which limit of a token is exceeded; empty for none.

    Args:
        claims: what rules add under names that they choose.
        aws_tags: the AWS session tags.
        members: everything that rules add, as it is encoded.
    """
    for count, most, what in (
        (len(claims), MOST_CLAIMS, "claims"),
        (len(aws_tags), _MOST_AWS_TAGS, "awsTags"),
        (len(encode(members)), MOST_BYTES, "bytes of JSON"),
    ):
        if count > most:
            return f"{count} {what}; at most {most} are allowed"
    return ""


def _check_claims(claims: Mapping[str, ClaimValue]) -> None:
    _check_spellings("claims", claims)
    for name in claims:
        lower = name.lower()
        if lower in RESERVED_CLAIMS or lower.startswith(_RESERVED_PREFIX):
            raise ValueError(f"claim {name} is reserved")
        if _CLAIM_NAME.fullmatch(name) is None:
            raise ValueError(f"claim {name!a}: a name has 1 to 128 letters, digits and _ : / . -")


def _check_spellings(what: str, names: Iterable[str]) -> None:
    """Check that the names differ in more than their case, which AWS and Go's JSON decoder ignore."""
    spellings: dict[str, str] = {}
    for name in names:
        if spellings.setdefault(name.lower(), name) != name:
            raise ValueError(f"{what} {spellings[name.lower()]!a} and {name!a} differ only in case")


def _check_aws_tags(tags: Mapping[str, str]) -> None:
    _check_spellings("awsTags", tags)
    for key, value in tags.items():
        if not key or len(key) > _AWS_KEY_LENGTH or len(value) > _AWS_VALUE_LENGTH:
            raise ValueError(
                f"awsTags {key!a}: a key has 1 to {_AWS_KEY_LENGTH} characters, "
                f"a value at most {_AWS_VALUE_LENGTH}"
            )
        if _AWS_TAG.fullmatch(key) is None or _AWS_TAG.fullmatch(value) is None:
            raise ValueError(f"awsTags {key!a}: letters, digits, spaces and _ . : / = + - @ are allowed")


def _seconds(ttl: str) -> int:
    try:
        seconds = parse_duration(ttl)
    except ValueError as error:
        raise ValueError(f"ttl {error}; a duration such as 5m or 1h30m is allowed") from None
    if seconds < 1 or seconds != int(seconds):
        raise ValueError("ttl must be whole seconds, at least 1s")
    return int(seconds)


def _matching(pattern: re.Pattern[str], text: str, name: str) -> str:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{name} {_FORMS[name]}")
    return text
