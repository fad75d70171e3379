"""Issue tokens: apply the policy, build the claims, sign."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec

from tailbone import base64url
from tailbone.token import claims, policy
from tailbone.token.explain import Explanation, explain
from tailbone.token.grants import granted
from tailbone.token.signatures import SignatureQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tailbone.keys.signing_key import SigningKey
    from tailbone.keys.view import KeyRing
    from tailbone.token.grants import GrantRule, Void
    from tailbone.token.identity import Identity


_MOST_RULES: Final = 10


class IssuedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token, and the facts about it that may be logged.

    Attributes:
        token: the JWS in compact form (RFC 7515 section 3.1). Never log it: its holder can act as the caller.
        expires_at: the claim ``exp``, Unix time in seconds.
        caller: the caller's own subject, which differs from ``sub`` where a grant names the subject.
        rules: the rules of the tailnet's policy that gave it, as they are written there; the first ten.
    """

    token: str
    expires_at: int
    sub: str
    caller: str
    kid: str
    jti: str
    aud: str | None
    node: str
    rules: tuple[Any, ...]

    def __repr__(self) -> str:
        """Omit the token, since a repr ends up in logs and tracebacks."""
        return f"IssuedToken(sub={self.sub!r}, kid={self.kid!r}, jti={self.jti!r})"


class Issuer:
    """Issues tokens. Its only state is the encoded header of the key that signed last, and the queue."""

    def __init__(
        self,
        settings: policy.IssuerSettings,
        ring: Callable[[], KeyRing],
        clock: Callable[[], float] = time.time,
        note_void: Callable[[Identity, str, Sequence[Void]], None] = lambda *_: None,
    ) -> None:
        """Create an issuer.

        Args:
            settings: what a token may contain.
            ring: returns the current key ring.
            clock: returns Unix time in seconds.
            note_void: called with a caller, the capability, and its void rules, which may be none.
        """
        self.settings = settings
        self._note_void = note_void
        self._ring = ring
        self._clock = clock
        self._queue = SignatureQueue()
        self._header_key: SigningKey | None = None
        self._header = b""
        self._encode = msgspec.json.Encoder().encode

    def admit(self, identity: Identity) -> policy.Admitted:
        """Check that ``identity`` may request tokens; raises what ``policy.admit`` raises."""
        return policy.admit(identity, self.settings)

    async def issue(self, caller: policy.Admitted, request: policy.TokenRequest) -> IssuedToken:
        """Sign a token for ``caller``.

        Raises:
            AudienceNotAllowedError: the audience is not allowed.
            NoGrantError: no grant is for this caller and audience, and one is needed.
            GrantConflictError: the grants contradict each other.
            BadParameterError: the lifetime is not allowed.
            NoSigningKeyError: no key is ready to sign.
            SigningBusyError: too many signatures with a large key are in progress.
        """
        settings = self.settings
        rules = self._granted(caller.identity)
        decision = policy.decide(request, settings, rules)
        ring = self._ring()
        key = ring.require()
        jti = os.urandom(16).hex()
        content = claims.of_decision(
            decision, caller.identity, settings, now=self._clock(), expiry_s=ring.expiry_s, jti=jti
        )
        signing_input = self._header_of(key) + base64url.encode(claims.encode(content, decision.claims))
        if key.signs_inline:
            signature = await key.sign(signing_input)
        else:
            with self._queue.place(caller.identity.node_id):
                signature = await key.sign(signing_input)
        return IssuedToken(
            token=(signing_input + b"." + base64url.encode(signature)).decode("ascii"),
            expires_at=content.exp,
            sub=content.sub,
            caller=caller.identity.subject,
            kid=key.kid,
            jti=jti,
            aud=decision.audience,
            node=content.node,
            rules=_applied(rules, request.audience) if rules else (),
        )

    def available(self, identity: Identity) -> policy.Available:
        """Return which audiences ``identity`` may request."""
        return policy.available(identity, self.settings, self._granted(identity))

    def explain(self, identity: Identity, request: policy.TokenRequest) -> Explanation:
        """Return what ``issue`` would put into a token for ``identity``, or why it would refuse."""
        self._granted(identity)
        return explain(identity, request, self.settings, now=self._clock(), expiry_s=self._ring().expiry_s)

    def preview(self, caller: policy.Admitted, request: policy.TokenRequest) -> Explanation:
        """Return what ``issue`` would put into a token, without signing one.

        Raises:
            TailboneError: what ``issue`` would raise.
        """
        explanation = self.explain(caller.identity, request)
        if explanation.refusal is not None:
            raise explanation.refusal
        self._ring().require()
        return explanation

    def _granted(self, identity: Identity) -> Sequence[GrantRule]:
        """Return the rules that the tailnet's policy grants a caller."""
        found = granted(identity.capabilities, self.settings.capability)
        self._note_void(identity, self.settings.capability, found.void)
        return found.rules

    def _header_of(self, key: SigningKey) -> bytes:
        """Return the encoded JOSE header and its dot, the same for all tokens of a key."""
        if key is not self._header_key:
            header = self._encode({"alg": key.algorithm, "kid": key.kid, "typ": "JWT"})
            self._header = base64url.encode(header) + b"."
            self._header_key = key
        return self._header


def _applied(rules: Sequence[GrantRule], audience: str | None) -> tuple[Any, ...]:
    return tuple(rule.source for rule in rules if rule.covers(audience))[:_MOST_RULES]
