"""What a verifier would refuse in a token, an issuer or a JWKS. Pure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tailbone.config.checks import is_loopback
from tailbone.config.durations import format_duration
from tailbone.doctor.targets import is_placeholder
from tailbone.jwks.document import CONTENT_TYPE, MANY_KEYS
from tailbone.jwks.public_check import JWKS_TYPES, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.config.model import Config
    from tailbone.doctor.targets import Target
    from tailbone.jwks.document import Document

_MEMBERS: Final = frozenset({"kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"})
_SKEW_S: Final = (5.0, 60.0)
"""From which difference of clocks on there is a warning, and an error."""


def check_settings(config: Config) -> list[Finding]:
    """Say where settings come from, and what is odd about them; invalid ones are not even loaded."""
    origins = ", ".join(f"{path} ({origin})" for path, origin in sorted(config.origins.items()))
    text = f"valid; set are {origins}" if origins else "none is set, so that defaults apply"
    return [
        Finding(level="ok", check="settings", text=text),
        *(Finding(level="warning", check="settings", text=note) for note in config.notes),
    ]


def check_issuer(issuer: str, target: Target | None) -> Finding:
    """Check the issuer against the rules of a verifier; without one, against those of all.

    Args:
        issuer: the claim iss; empty if it is unknown.
        target: the verifier.
    """
    check = "issuer"
    if not issuer:
        return Finding(
            level="error",
            check=check,
            text="the issuer is unknown: keys.issuer is not set, and no server says it",
            fix="set keys.issuer to the https URL at which the documents can be fetched",
        )
    if not issuer.startswith(("https://", "http://")):
        return Finding(
            level="error",
            check=check,
            text=f"the issuer {issuer} is not a URL",
            fix="set keys.issuer to the https URL at which the documents can be fetched",
        )
    url = urlsplit(issuer)
    is_local = url.scheme == "http" or is_loopback(url.hostname or "")
    if is_local and (target is None or target.is_public):
        return Finding(
            level="error",
            check=check,
            text=f"{issuer} can be fetched on this machine only",
            fix="set keys.issuer to an https URL on the internet",
        )
    if target and url.scheme == "http" and target.name == "kubernetes":
        return Finding(level="error", check=check, text=f"{issuer} is not https", fix="serve it by https")
    if target and len(issuer) > target.longest_issuer:
        return Finding(
            level="error",
            check=check,
            text=f"the issuer has {len(issuer)} characters, and {target.title} accepts "
            f"{target.longest_issuer}",
            fix="use a shorter URL",
        )
    return Finding(level="ok", check=check, text=f"the issuer is {issuer}")


def check_token_issuer(claims: Mapping[str, Any], issuer: str) -> Finding:
    """Compare the issuer of a token that the caller would get with keys.issuer."""
    fix = "keys.issuer differs from the running server's"
    return _compare("token's issuer", claims.get("iss"), issuer, fix)


def check_token(claims: Mapping[str, Any], audience: str, target: Target) -> list[Finding]:
    """Check a caller's claims against the rules of a verifier.

    Args:
        claims: of a token that the caller would get.
        audience: that was asked for.
        target: the verifier.
    """
    subject = str(claims.get("sub", ""))
    found = []
    least, most = target.subject
    plain = subject.isascii() and subject.isprintable() and not set("*?") & set(subject)
    if not plain or not least <= len(subject) <= most:
        text = f"the caller's sub is {subject!a}, not {least} to {most} plain characters"
        found.append(Finding(level="error", check="subject", text=text, fix="give it another by a grant"))
    else:
        found.append(Finding(level="ok", check="subject", text=f"the caller's sub is {subject}"))
    if is_placeholder(audience):
        text = f"{target.title} has no audience of its own, or one that depends on your account"
        found.append(Finding(level="warning", check="audience", text=text, fix="name it with --audience"))
    else:
        found.append(_compare("audience", claims.get("aud"), audience, "let the server issue it"))
    # A clock that is wrong has a finding of its own.
    lifetime_s = max(0.0, float(claims["exp"]) - time.time())
    if lifetime_s < target.least_life_s - 1:
        text = f"tokens are valid for {format_duration(round(lifetime_s))}, too short for its SDK"
        fix = f"raise keys.expiry to {format_duration(target.least_life_s)} or more"
        found.append(Finding(level="warning", check="lifetime", text=text, fix=fix))
    elif target.most_life_s and lifetime_s > target.most_life_s:
        text = f"tokens are valid for {format_duration(round(lifetime_s))}"
        fix = f"lower keys.expiry to {format_duration(target.most_life_s)}"
        found.append(Finding(level="error", check="lifetime", text=text, fix=fix))
    return found


def _compare(check: str, actual: object, expected: str, fix: str) -> Finding:
    if actual == expected:
        return Finding(level="ok", check=check, text=f"the {check} is {expected}")
    return Finding(level="error", check=check, text=f"the {check} is {actual!a}, not {expected!a}", fix=fix)


def check_jwks(jwks: Document, target: Target | None) -> list[Finding]:
    """Check the published JWKS against the rules of a verifier; without one, against those of all."""
    algorithms = target.algorithms if target else ("RS256",)
    name = target.title if target else "every verifier"
    found = [
        Finding(level="warning", check="JWKS", text=text, fix="see tailbone keys list")
        for text in jwks.warnings()
    ]
    for key in jwks.keys:
        if key.algorithm and key.algorithm not in algorithms:
            text = f"key {key.kid} is for {key.algorithm}, and {name} accepts {', '.join(algorithms)}"
            found.append(
                Finding(
                    level="error" if target else "warning",
                    check="algorithm",
                    text=text,
                    fix="generate a key of another algorithm: tailbone keys generate --algorithm RS256",
                )
            )
        missing = [member for member in ("kid", "alg", "use") if not key.members.get(member)]
        if missing:
            text = f"key {key.kid} lacks {', '.join(missing)}"
            found.append(Finding(level="warning", check="JWKS", text=text, fix="publish it again"))
        further = sorted(key.members.keys() - _MEMBERS)
        if further:
            text = f"key {key.kid} has further members: {', '.join(further)}"
            found.append(Finding(level="warning", check="JWKS", text=text, fix="remove them"))
    if len(jwks.keys) < MANY_KEYS and not found:
        text = f"the JWKS meets the rules of {name}; number of keys: {len(jwks.keys)}"
        found.append(Finding(level="ok", check="JWKS", text=text))
    return found


def check_clock(name: str, skew_s: float) -> Finding:
    """Check this machine's clock against that of a server.

    Args:
        name: of the server.
        skew_s: how far that clock is ahead of this one, in seconds.
    """
    text = f"this clock and that of {name} differ by {abs(skew_s):.0f} s"
    warning, error = _SKEW_S
    if abs(skew_s) < warning:
        return Finding(level="ok", check="clock", text=text)
    level = "error" if abs(skew_s) >= error else "warning"
    return Finding(level=level, check="clock", text=text, fix="set this machine's clock by NTP")  # type: ignore[arg-type]


def check_variables(target: Target, environ: Mapping[str, str]) -> list[Finding]:
    """Look for variables that the verifier's SDK prefers to the token's file."""
    return [
        Finding(
            level="warning",
            check="variables",
            text=f"{name} is set, and wins over the token's file",
            fix=f"unset {name}",
        )
        for name in target.shadowing
        if environ.get(name) and environ[name].lower() not in target.harmless.get(name, ())
    ]


def check_content_type(location: str, content_type: str) -> Finding:
    """Check the Content-Type of the JWKS in the bucket."""
    text = f"{location} is stored with the Content-Type {content_type}"
    if content_type.partition(";")[0].strip().lower() in JWKS_TYPES:
        return Finding(level="ok", check="bucket", text=text)
    fix = f"store it as {CONTENT_TYPE}: AWS refuses others"
    return Finding(level="error", check="bucket", text=text, fix=fix)


def check_copy(name: str, original: Document, seen: Document) -> Finding:
    """Check that verifiers see the keys that the server publishes.

    Args:
        name: of where the original is.
        original: the JWKS of the server, or in its bucket.
        seen: the JWKS that verifiers fetch.
    """
    check = "public copy"
    first: dict[str, str] = {}
    for key in seen.keys:
        # Many verifiers use the first key of a kid.
        first.setdefault(key.kid, key.thumbprint)
    others = [key.kid for key in original.keys if first.get(key.kid, key.thumbprint) != key.thumbprint]
    if others:
        text = f"the public JWKS has other keys under the kids {', '.join(others)} than {name}"
        fix = "publish the right JWKS: verifiers would refuse this server's tokens"
        return Finding(level="error", check=check, text=text, fix=fix)
    missing = [key.kid for key in original.keys if key.kid not in first]
    if missing:
        text = f"the public JWKS lacks {', '.join(missing)} of {name}"
        fix = "if it still does after keys.maxAge, it is an old copy, or that of another bucket"
        return Finding(level="warning", check=check, text=text, fix=fix)
    text = f"the public JWKS has the keys of {name}: {', '.join(key.kid for key in original.keys) or 'none'}"
    return Finding(level="ok", check=check, text=text)
