"""Examine bucket, public documents, clocks, a caller's token, and one verifier's rules."""

from __future__ import annotations

import asyncio
import configparser
import math
import os
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.client.issuer import DEFAULT_URL
from tailbone.doctor.rules import (
    check_clock,
    check_content_type,
    check_copy,
    check_issuer,
    check_jwks,
    check_settings,
    check_token,
    check_token_issuer,
    check_variables,
)
from tailbone.doctor.running import ask
from tailbone.doctor.targets import Snippet, SnippetValues, snippets_for
from tailbone.errors import TailboneError
from tailbone.jwks import store_of
from tailbone.jwks.discovery import discovery_of
from tailbone.jwks.public_check import Finding, check_public_documents
from tailbone.jwks.publisher import Publisher
from tailbone.token.grants import AWS_TAGS_CLAIM

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from tailbone.client.issuer import Issuer
    from tailbone.config.model import Config
    from tailbone.doctor.targets import Target
    from tailbone.jwks.discovery import Discovery
    from tailbone.jwks.document import Document
    from tailbone.process.log import Logger

_CONTROL_URL: Final = "https://controlplane.tailscale.com"
_ANSWER_S: Final = 5.0
_BUCKET_S: Final = 10.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and what to paste.

    Attributes:
        findings: one for each check.
        snippets: the texts; empty without a target.
    """

    findings: list[Finding]
    snippets: list[Snippet]

    @property
    def ok(self) -> bool:
        """Whether no check failed; warnings are not failures."""
        return all(finding.level != "error" for finding in self.findings)


async def examine(
    config: Config, target: Target | None, *, audience: str, server: Issuer, log: Logger
) -> Report:
    """Check everything that can be checked from this machine.

    Args:
        config: the settings of the server.
        target: the verifier; None for what all have in common.
        audience: for which tokens are requested; empty for the target's convention.
        server: the running server, on the tailnet.
        log: of the bucket's store.
    """
    keys = config.keys
    audience = audience or (target.audience if target else "")
    running = await asyncio.to_thread(ask, server, audience)
    # Without settings, as on a caller's machine, the running server says who the issuer is.
    issuer = keys.issuer if config.is_set("keys.issuer") else running.issuer
    findings = [*check_settings(config), check_issuer(issuer, target)]
    issuer_is_accepted = findings[-1].level == "ok"
    originals: dict[str, Document] = {}
    jwks = None
    discovery = discovery_of(issuer, jwks_uri=keys.jwks_uri)
    if keys.bucket:
        # With a discovery document, verifiers read its jwks_uri, which need not be the bucket's own URL.
        jwks, found = await _check_bucket(config, log, is_public=discovery is None)
        findings += found
    if jwks is not None:
        originals["the bucket"] = jwks
    if running.jwks is not None:
        originals["the running server"] = running.jwks
    if discovery is not None:
        public = await check_public_documents(discovery, None, max_age_s=keys.max_age_s)
        findings += public.findings
        # What verifiers see counts more than what the bucket contains.
        jwks = public.jwks or jwks
        if public.jwks is not None:
            findings += [check_copy(name, original, public.jwks) for name, original in originals.items()]
    findings += await _check_clocks(config, discovery)
    findings.append(running.finding)
    if running.claims:
        findings.append(check_token_issuer(running.claims, issuer))
    if running.claims and target:
        findings += check_token(running.claims, audience, target)
    if jwks is not None:
        findings += check_jwks(jwks, target)
    if target is None:
        return Report(findings=findings, snippets=[])
    findings += check_variables(target, os.environ)
    if target.name == "aws":
        findings += _check_aws_profile(os.environ)
    values = SnippetValues(audience=audience, issuer_url="" if server.url == DEFAULT_URL else server.url)
    if issuer_is_accepted:
        values = msgspec.structs.replace(values, issuer=issuer)
    if running.subject:
        values = msgspec.structs.replace(
            values,
            subject=running.subject,
            tags=running.tags,
            has_aws_tags=AWS_TAGS_CLAIM in (running.claims or ()),
        )
    return Report(findings=findings, snippets=snippets_for(target, values))


def _check_aws_profile(environ: Mapping[str, str]) -> list[Finding]:
    """Look for a role in the profile of the AWS SDK: it wins over the token's file."""
    # In botocore's order.
    name = environ.get("AWS_DEFAULT_PROFILE") or environ.get("AWS_PROFILE") or "default"
    profile: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", "default" if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        parser = configparser.RawConfigParser(strict=False)
        path = Path(environ.get(variable) or f"~/.aws/{file}").expanduser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):
            text = f"{path} cannot be read, so that the AWS profile {name} is unknown"
            return [Finding(level="warning", check="variables", text=text)]
        if parser.has_section(section):
            profile |= parser.items(section)
    if "role_arn" not in profile or "web_identity_token_file" in profile:
        return []
    text = f"the AWS profile {name} has a role_arn, and wins over the token's file"
    return [Finding(level="warning", check="variables", text=text, fix="use another profile")]


async def _check_bucket(
    config: Config, log: Logger, *, is_public: bool
) -> tuple[Document | None, list[Finding]]:
    """Read the JWKS, and write it under a condition that cannot hold; compare the bucket's clock.

    Args:
        config: the settings of the server.
        log: of the store.
        is_public: whether verifiers read the bucket itself.
    """
    from tailbone.jwks.s3 import S3Store

    keys, check = config.keys, "bucket"
    try:
        store = await asyncio.to_thread(store_of, keys.bucket)
        assert store is not None  # noqa: S101 -- there is a bucket
        publisher = Publisher(
            store, keys.key_path, max_age_s=keys.max_age_s, conditional=keys.conditional_writes, log=log
        )
        try:
            jwks = await publisher.check_writable(until=time.monotonic() + _BUCKET_S)
            before = time.time()
            async with asyncio.timeout(_BUCKET_S):
                stored = await store.read(keys.key_path)
            url = await store.url(keys.key_path) if is_public and isinstance(store, S3Store) else ""
        finally:
            await publisher.close()
    except (TailboneError, TimeoutError) as error:
        text = error.message if isinstance(error, TailboneError) else "the bucket did not answer in time"
        return None, [Finding(level="error", check=check, text=text)]
    if jwks is None or stored is None:
        text = f"{publisher.location} does not exist yet"
        return None, [Finding(level="warning", check=check, text=text, fix="start the server")]
    writes = ", and takes conditional writes" if keys.conditional_writes else ""
    found = [Finding(level="ok", check=check, text=f"{publisher.location} can be read{writes}")]
    if stored.content_type:
        found.append(check_content_type(publisher.location, stored.content_type))
    if url:
        found.append(await _check_public_read(url))
    if stored.date:
        try:
            found.append(check_clock("the bucket", _ahead_s(stored.date, before)))
        except ValueError:
            found.append(Finding(level="warning", check="clock", text="the bucket's Date cannot be read"))
    return jwks, found


async def _check_public_read(url: str) -> Finding:
    """Read the JWKS as verifiers do, without credentials."""
    try:
        status = (await _head(url)).status_code
    except OSError as error:
        text = f"{url} cannot be read without credentials ({error})"
    else:
        if status == HTTPStatus.OK:
            return Finding(level="ok", check="bucket", text=f"everybody can read {url}")
        text = f"{url} cannot be read without credentials (status {status})"
    fix = "allow everybody s3:GetObject on this object, or serve it by a web server or CDN"
    return Finding(level="warning", check="bucket", text=text, fix=fix)


async def _check_clocks(config: Config, discovery: Discovery | None) -> list[Finding]:
    """Compare this clock with those of the control server and of the bucket's public URL."""
    places = {"the control server": config.server.tailscale.control_url or _CONTROL_URL}
    if discovery is not None:
        places["the bucket's web server"] = discovery.url
    found = []
    for name, url in places.items():
        try:
            found.append(check_clock(name, await _skew_s(url)))
        except (OSError, ValueError) as error:
            reason = error if isinstance(error, OSError) else "no Date"
            text = f"the clock of {name} ({url}) cannot be read ({reason})"
            found.append(Finding(level="warning", check="clock", text=text))
    return found


async def _skew_s(url: str) -> float:
    """Return how far the clock of a web server is ahead of this one, in seconds.

    Raises:
        OSError: it does not answer, or not in time.
        ValueError: its answer has no Date.
    """
    before = time.time()
    response = await _head(url)
    return _ahead_s(response.headers.get("Date", ""), before)


async def _head(url: str) -> httpx2.Response:
    """Return a web server's answer without its body, requested without credentials.

    Raises:
        OSError: it does not answer, or not in time; the message is the name of the failure.
    """
    import httpx2

    # The system's list of CAs, as in check_public_documents; httpx brings another one.
    tls = ssl.create_default_context()
    try:
        # The whole answer has this time, however slowly its bytes arrive.
        async with asyncio.timeout(_ANSWER_S), httpx2.AsyncClient(verify=tls, trust_env=False) as client:
            return await client.head(url)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        raise OSError(type(error).__name__) from error


def _ahead_s(date: str, before: float) -> float:
    """Return how far the clock of an answer's Date is ahead of this one, in seconds.

    Args:
        date: the field, as it came just now.
        before: when the request was sent, in Unix seconds.

    Raises:
        ValueError: it is not a date.
    """
    middle = (before + time.time()) / 2
    # Date has whole seconds.
    difference = parsedate_to_datetime(date).timestamp() - math.floor(middle)
    return difference if abs(difference) > 1 else 0.0
