"""Fetch the discovery document and the JWKS as a verifier on the internet does, and check them."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from tailbone.errors import ForeignDocumentError
from tailbone.json_object import parse_object
from tailbone.jwks.discovery import LONGEST_ISSUER
from tailbone.jwks.document import Document, PublishedKey
from tailbone.jwks.store import cache_control
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailbone.jwks.discovery import Discovery

FETCH_S: Final = 5.0
"""How long a document may take, in seconds: AWS waits no longer."""

LARGEST: Final = 64 * 1024
"""How many bytes of a document are read."""

LEAST_DAYS: Final = 14
"""A certificate with fewer days left is a warning."""

_DAY_S: Final = 86400
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_FORBIDDEN: Final = (401, 403)
_NOT_FOUND: Final = 404
_JSON: Final = "application/json"
JWKS_TYPES: Final = (_JSON, "application/jwk-set+json")
"""The content types of a JWKS that every verifier accepts."""

# As verify/http reads them, and s-maxage, which the caches between server and verifiers follow.
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])(?:s-maxage|max-age)=\"?([0-9]{1,9})", re.IGNORECASE)
_UNCACHED: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)", re.IGNORECASE)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found.

    Attributes:
        level: ok, a warning, or an error that makes verifiers refuse tokens.
        check: what was checked.
        text: what was found.
        fix: what to do; empty if nothing.
    """

    level: Literal["ok", "warning", "error"]
    check: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """Return text and fix as one sentence."""
        return f"{self.text}: {self.fix}" if self.fix else self.text


class PublicDocuments(msgspec.Struct, frozen=True):
    """The result of ``check_public_documents``.

    Attributes:
        findings: one for each check; those after an error that prevents them are missing.
        jwks: the JWKS; None if it could not be read.
    """

    findings: list[Finding]
    jwks: Document | None = None


class _Answer(msgspec.Struct, frozen=True):
    status: int
    fields: Mapping[str, str]
    body: bytes
    certificate_ends_at: float | None


def summary(findings: Sequence[Finding]) -> str:
    """Return findings in one line: ``ok`` and the certificate's remaining days, or all problems."""
    problems = [str(finding) for finding in findings if finding.level != "ok"]
    return "; ".join(problems) or "; ".join(["ok", *(f.text for f in findings if f.check == "certificate")])


async def check_public_documents(
    discovery: Discovery,
    signing: PublishedKey | None,
    *,
    max_age_s: float,
    tls: ssl.SSLContext | None = None,
) -> PublicDocuments:
    """Fetch the discovery document, then the JWKS, without credentials, proxies and redirects.

    Args:
        discovery: what the document must say.
        signing: the key that the JWKS must contain; None if it is unknown.
        max_age_s: keys.maxAge: how long caches may keep the two, in seconds.
        tls: how certificates are checked; by default by the system's list of CAs.
    """
    import httpx2

    async with httpx2.AsyncClient(
        verify=tls or ssl.create_default_context(),
        trust_env=False,
        follow_redirects=False,
        timeout=FETCH_S,
        headers={"Accept-Encoding": "identity"},
    ) as client:
        answer = await _fetch(client, "discovery document", discovery.url)
        if isinstance(answer, Finding):
            return PublicDocuments([answer])
        findings = [
            *_check_certificate(answer),
            *_check_fields("discovery document", discovery.url, answer, (_JSON,), max_age_s),
            *_check_discovery(answer.body, discovery),
        ]
        answer = await _fetch(client, "JWKS", discovery.jwks_uri)
        if isinstance(answer, Finding):
            return PublicDocuments([*findings, answer])
        findings += _check_fields("JWKS", discovery.jwks_uri, answer, JWKS_TYPES, max_age_s)
        try:
            jwks = Document.parse(answer.body)
        except ForeignDocumentError:
            findings.append(_error("JWKS", f"{discovery.jwks_uri} is not a JWKS", "publish the JWKS there"))
            return PublicDocuments(findings)
        if signing is not None:
            findings.append(_check_key(jwks, discovery.jwks_uri, signing))
        return PublicDocuments(findings, jwks)


def _error(check: str, text: str, fix: str) -> Finding:
    return Finding(level="error", check=check, text=text, fix=fix)


async def _fetch(client: Any, check: str, url: str) -> _Answer | Finding:
    """Return the answer with one document, or the problem that prevents it."""
    import httpx2

    try:
        async with asyncio.timeout(FETCH_S), client.stream("GET", url) as response:
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > LARGEST:
                    break
            answer = _Answer(
                response.status_code,
                {name.lower(): value for name, value in response.headers.items()},
                body,
                _certificate_end(response.extensions["network_stream"]),
            )
    except (TimeoutError, httpx2.TimeoutException):
        text = f"{url} did not answer within {FETCH_S:.0f} s"
        return _error(check, text, "check the web server, and whether this machine may reach it")
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        return _unreachable(check, url, error)
    if answer.status != _OK:
        return _bad_status(check, url, answer)
    if len(body) > LARGEST:
        return _error(check, f"{url} is longer than 64 KiB", "publish only the document there")
    return answer


def _certificate_end(stream: Any) -> float | None:
    tls = stream.get_extra_info("ssl_object")
    certificate = tls.getpeercert() if tls is not None else None
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None


def _unreachable(check: str, url: str, error: BaseException) -> Finding:
    host = urlsplit(url).netloc
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _error(
                "certificate",
                f"the certificate of {host} is not trusted: {cause.verify_message}",
                "verifiers accept only certificates of public CAs, with the whole chain and the host's name",
            )
        cause = cause.__cause__ or cause.__context__
    return _error(
        check,
        f"{url} cannot be reached ({type(error).__name__})",
        "check DNS and the web server, and whether this machine may reach it",
    )


def _bad_status(check: str, url: str, answer: _Answer) -> Finding:
    text = f"{url} answers {answer.status}"
    if answer.status in _REDIRECTS:
        target = answer.fields.get("location", "")
        return _error(
            check,
            f"{text}, a redirect{f' to {quote(target)}' if target else ''}",
            "verifiers do not follow it: serve the document at this very URL",
        )
    if answer.status in _FORBIDDEN:
        return _error(check, text, "let everyone read it; S3 also answers so if it does not exist")
    if answer.status == _NOT_FOUND:
        return _error(check, text, "publish it there: see keys.bucket, keys.keyPath and keys.discoveryPath")
    return _error(check, text, "correct the web server")


def _check_certificate(answer: _Answer) -> list[Finding]:
    if answer.certificate_ends_at is None:
        return []
    days = int((answer.certificate_ends_at - time.time()) / _DAY_S)
    text = f"the certificate is valid for {days} more days"
    if days >= LEAST_DAYS:
        return [Finding(level="ok", check="certificate", text=text)]
    return [Finding(level="warning", check="certificate", text=text, fix="renew it")]


def _check_fields(
    check: str, url: str, answer: _Answer, types: Sequence[str], max_age_s: float
) -> list[Finding]:
    """Check content type, encoding and caching."""
    found = []
    content_type = answer.fields.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in types:
        text = f"{url} has the Content-Type {quote(content_type)}"
        found.append(_error(check, text, f"serve it as {_JSON}"))
    if (encoding := answer.fields.get("content-encoding", "identity").strip().lower()) != "identity":
        text = f"{url} has the Content-Encoding {quote(encoding)}, which was not asked for"
        found.append(_error(check, text, "serve it as it is where Accept-Encoding is identity"))
    caching = answer.fields.get("cache-control", "")
    ages = [int(age) for age in _MAX_AGE.findall(caching)]
    age = answer.fields.get("age", "0")
    longest = f"keys.maxAge, {max_age_s:.0f} s"
    if not ages and not _UNCACHED.search(caching):
        text = f"{url} has no Cache-Control with max-age, so that caches choose how long they keep it"
        fix = f"serve it with Cache-Control: {cache_control(max_age_s)}"
        found.append(Finding(level="warning", check=check, text=text, fix=fix))
    elif max(ages, default=0) > max_age_s:
        text = f"{url} may be cached for {max(ages)} s, longer than {longest}"
        fix = "correct its Cache-Control, or raise keys.maxAge"
        found.append(Finding(level="warning", check=check, text=text, fix=fix))
    if re.fullmatch(r"[0-9]{1,12}", age) and int(age) > max_age_s:
        text = f"{url} is a copy that is {age} s old, older than {longest}"
        fix = "let the cache in front of it respect Cache-Control"
        found.append(Finding(level="warning", check=check, text=text, fix=fix))
    return found or [Finding(level="ok", check=check, text=f"{url} can be fetched as {content_type}")]


def _check_discovery(body: bytes, discovery: Discovery) -> list[Finding]:
    """Compare issuer and jwks_uri."""
    members = parse_object(body)
    if members is None:
        text = f"{discovery.url} is not a JSON object in UTF-8"
        return [_error("discovery document", text, "publish the discovery document there")]
    found = []
    for name, expected, fix in (
        ("issuer", discovery.issuer, "it must be keys.issuer, byte for byte"),
        ("jwks_uri", discovery.jwks_uri, "another server or an old copy: publish this server's document"),
    ):
        actual = members.get(name)
        if actual != expected:
            shown = quote(str(actual), limit=LONGEST_ISSUER)
            text = f"{discovery.url} has the {name} {shown}, not {quote(expected, limit=LONGEST_ISSUER)}"
            found.append(_error(name, text, fix))
        else:
            found.append(Finding(level="ok", check=name, text=f"{name} is {expected}"))
    return found


def _check_key(jwks: Document, url: str, signing: PublishedKey) -> Finding:
    """Look for the key that signs now."""
    check = "signing key"
    # Many verifiers use the first key of a kid.
    first = next((key.thumbprint for key in jwks.keys if key.kid == signing.kid), None)
    if first == signing.thumbprint:
        return Finding(level="ok", check=check, text=f"the JWKS contains the signing key {signing.kid}")
    if first is not None:
        return _error(
            check,
            f"{url} contains another key under the kid {signing.kid}",
            "remove that key: verifiers would check tokens with it",
        )
    return _error(
        check,
        f"{url} lacks the signing key {signing.kid}",
        "an old copy: let the cache in front of it respect Cache-Control, or publish to the right bucket",
    )
