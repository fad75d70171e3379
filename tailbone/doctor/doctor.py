"""The examination: bucket, the look from outside, clocks, a caller's token, and one verifier's rules."""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from tailbone.doctor.rules import check_clock, check_issuer, check_jwks, check_token, check_variables
from tailbone.doctor.targets import Facts, Paste, is_placeholder, paste_for
from tailbone.errors import TailboneError
from tailbone.jwks import store_of
from tailbone.jwks.discovery import Discovery, discovery_of
from tailbone.jwks.document import Document
from tailbone.jwks.outside import Finding, look
from tailbone.jwks.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tailbone.config.model import Config
    from tailbone.doctor.targets import Target
    from tailbone.process.log import Logger

CONTROL_URL: Final = "https://controlplane.tailscale.com"
_ANSWER_S: Final = 5.0
_BUCKET_S: Final = 10.0
_LARGEST: Final = 64 * 1024


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what to paste.

    Attributes:
        findings: one for each check.
        pastes: the texts; empty without a target.
    """

    findings: list[Finding]
    pastes: list[Paste]

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings are not failures."""
        return all(finding.level != "error" for finding in self.findings)


def examine(config: Config, target: Target | None, *, audience: str, issue_url: str, log: Logger) -> Report:
    """Check everything that can be checked from this machine.

    Args:
        config: the settings of the server.
        target: the verifier; None for what all have in common.
        audience: for which tokens are requested; empty for the target's convention.
        issue_url: the issuer on the tailnet.
        log: of the bucket's store.
    """
    return asyncio.run(_examine(config, target, audience, issue_url, log))


async def _examine(
    config: Config, target: Target | None, audience: str, issue_url: str, log: Logger
) -> Report:
    keys = config.keys
    audience = audience or (target.audience if target else "")
    claims, server = await asyncio.to_thread(_ask, issue_url, audience)
    # Without settings, as on a caller's machine, the running server says who the issuer is.
    issuer = keys.issuer if config.is_set("keys.issuer") or not claims else str(claims["iss"])
    findings = [check_issuer(issuer, target)]
    if keys.bucket:
        jwks, found = await _check_bucket(config, log)
        findings.append(found)
    else:
        jwks = await asyncio.to_thread(_served_jwks, issue_url) if claims else None
    discovery = discovery_of(issuer, jwks_uri=keys.jwks_uri)
    if discovery is not None:
        findings += await look(discovery, None, max_age_s=keys.max_age_s)
    findings += await asyncio.to_thread(_check_clocks, config, discovery)
    findings.append(server)
    if claims and target:
        findings += check_token(claims, issuer, audience, target)
    if jwks is not None:
        findings += check_jwks(jwks, target)
    if target is None:
        return Report(findings=findings, pastes=[])
    findings += check_variables(target, os.environ)
    facts = Facts(audience=audience, issue_url=issue_url)
    if discovery is not None:
        facts = msgspec.structs.replace(facts, issuer=issuer)
    if claims:
        facts = msgspec.structs.replace(
            facts,
            subject=str(claims["sub"]),
            tags=tuple(claims.get("tags", ())),
            has_aws_tags="https://aws.amazon.com/tags" in claims,
        )
    return Report(findings=findings, pastes=paste_for(target, facts))


async def _check_bucket(config: Config, log: Logger) -> tuple[Document | None, Finding]:
    """Read the JWKS, and write it under a condition that cannot hold."""
    keys, check = config.keys, "bucket"
    try:
        store = await asyncio.to_thread(store_of, keys.bucket)
        assert store is not None  # noqa: S101 -- there is a bucket
        publisher = Publisher(
            store, keys.key_path, max_age_s=keys.max_age_s, conditional=keys.conditional_writes, log=log
        )
        try:
            jwks = await publisher.rehearse(until=time.monotonic() + _BUCKET_S)
        finally:
            await publisher.close()
    except TailboneError as error:
        return None, Finding(level="error", check=check, text=error.message)
    if jwks is None:
        text = f"{publisher.place} does not exist yet"
        return None, Finding(level="warning", check=check, text=text, fix="start the server")
    text = f"{publisher.place} can be read" + (
        ", and takes conditional writes" if keys.conditional_writes else ""
    )
    return jwks, Finding(level="ok", check=check, text=text)


def _check_clocks(config: Config, discovery: Discovery | None) -> list[Finding]:
    """Compare this clock with those of the control server and of the bucket's public URL."""
    places = {"the control server": config.server.tailscale.control_url or CONTROL_URL}
    if discovery is not None:
        places["the bucket's web server"] = discovery.url
    found = []
    for name, url in places.items():
        try:
            found.append(check_clock(name, _skew_s(url)))
        except (OSError, HTTPException, ValueError) as error:
            text = f"the clock of {name} ({url}) cannot be read ({type(error).__name__})"
            found.append(Finding(level="warning", check="clock", text=text))
    return found


def _skew_s(url: str) -> float:
    """Return how far the clock of a web server is ahead of this one, in seconds.

    Raises:
        OSError: it does not answer.
        ValueError: its answer has no Date.
    """
    before = time.time()
    date, _ = _request("HEAD", url)
    middle = (before + time.time()) / 2
    difference = parsedate_to_datetime(date).timestamp() - math.floor(middle)
    # Date has whole seconds.
    return difference if abs(difference) > 1 else 0.0


def _request(method: str, url: str) -> tuple[str, tuple[int, bytes]]:
    """Send a request, without proxies and redirects; return the answer's Date, status and body."""
    parts = urlsplit(url)
    connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connect(parts.netloc, timeout=_ANSWER_S)
    try:
        connection.request(method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        answer = connection.getresponse()
        return answer.headers["Date"] or "", (answer.status, answer.read(_LARGEST))
    finally:
        connection.close()


def _served_jwks(issue_url: str) -> Document | None:
    """Return the JWKS that the running server serves on the tailnet; None if it does not."""
    try:
        _, (_, body) = _request("GET", urljoin(issue_url, "/.well-known/jwks.json"))
        return Document.parse(body)
    except (OSError, HTTPException, TailboneError):
        return None


def _ask(issue_url: str, audience: str) -> tuple[Mapping[str, Any] | None, Finding]:
    """Ask the running server what this machine would get: a dry run, which signs nothing."""
    check = "server"
    known = audience and not is_placeholder(audience)
    try:
        wanted = f"&audience={quote(audience, safe='')}" if known else ""
        _, (status, body) = _request("POST", f"{issue_url}?dry_run=true{wanted}")
        answer = json.loads(body)
        if status == 200:
            claims: Mapping[str, Any] = answer["claims"]
            return claims, Finding(level="ok", check=check, text=f"{issue_url} would issue a token to us")
        text = f"{issue_url} refuses: {answer['message']}"
        return None, Finding(level="error", check=check, text=text, fix="see tailbone explain")
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        return None, Finding(
            level="warning",
            check=check,
            text=f"no server answers at {issue_url} ({type(error).__name__}), so the caller's sub is unknown",
            fix="run doctor on a machine of the tailnet, or name the server with --issue-url",
        )
