"""Explain what a caller would get: every rule, whether it matches, and the claims or the refusal. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone.config.durations import format_duration
from tailbone.errors import TailboneError
from tailbone.token import claims, policy
from tailbone.token.grants import granted

if TYPE_CHECKING:
    from tailbone.token.grants import GrantRule
    from tailbone.token.identity import Identity


_MOST_SHOWN: Final = 50
"""How many rules are shown, so that an answer stays below the limit of the client."""


class ExplainedRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value of the token capability.

    Attributes:
        rule: as the policy spells it; the JSON text, shortened, of a void one.
        matches: whether it is for the requested audience.
        void: why it grants nothing at all; empty if it is valid.
    """

    rule: Any
    matches: bool
    void: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller would get for a request.

    Attributes:
        claims: of the token, without ``jti``; empty if it is refused.
        lifetime_s: of the token, in seconds; 0 if it is refused.
        rules: the caller's, the valid ones first; fifty at most, and a note says how many there are.
        notes: facts that explain the result.
        refusal: why there is no token; None if there would be one.
    """

    claims: dict[str, Any]
    lifetime_s: int
    rules: list[ExplainedRule]
    notes: list[str]
    refusal: TailboneError | None


def explain(
    identity: Identity,
    request: policy.TokenRequest,
    settings: policy.IssuerSettings,
    *,
    now: float,
    expiry_s: float,
) -> Explanation:
    """Return what a caller would get.

    Args:
        identity: the caller.
        request: what it requests.
        settings: the issuer's.
        now: Unix time in seconds.
        expiry_s: how long the signing key's tokens may last, in seconds.
    """
    found = granted(identity.capabilities, settings.capability)
    explained = [
        ExplainedRule(rule=rule.source, matches=rule.covers(request.audience)) for rule in found.rules
    ]
    explained += [ExplainedRule(rule=void.shown, matches=False, void=void.reason) for void in found.void]
    content: dict[str, Any] = {}
    lifetime_s = 0
    refusal: TailboneError | None = None
    try:
        policy.admit(identity, settings)
        decision = policy.decide(request, settings, found.rules)
    except TailboneError as error:
        refusal = error
    else:
        built = claims.of_decision(decision, identity, settings, now=now, expiry_s=expiry_s)
        content = msgspec.json.decode(claims.encode(built, decision.claims))
        lifetime_s = built.exp - int(now)
    notes = _notes(found.rules, request, settings)
    if len(explained) > _MOST_SHOWN:
        notes.append(f"{_MOST_SHOWN} of {len(explained)} rules are shown")
    return Explanation(
        claims=content,
        lifetime_s=lifetime_s,
        rules=explained[:_MOST_SHOWN],
        notes=notes,
        refusal=refusal,
    )


def _notes(
    found: tuple[GrantRule, ...], request: policy.TokenRequest, settings: policy.IssuerSettings
) -> list[str]:
    matching = [rule for rule in found if rule.covers(request.audience)]
    notes = []
    if not matching:
        if settings.access == "grant":
            consequence = "a token needs one"
        elif request.audience is None:
            consequence = "a token without aud needs none"
        else:
            consequence = "issuer.audiences alone decides"
        notes.append(f"no rule of {settings.capability} is for this request; {consequence} (issuer.access)")
    longest = max((rule.ttl_s or 0 for rule in matching), default=0)
    if longest > settings.expiry_s:
        expiry = format_duration(settings.expiry_s)
        notes.append(f"the ttl {format_duration(longest)} is shortened to keys.expiry, {expiry}")
    return notes
