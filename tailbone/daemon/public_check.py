"""PublicCheck: periodically check the published documents at their public URLs, and keep the result."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import TYPE_CHECKING, Final

from tailbone.errors import Problem
from tailbone.jwks.discovery import discovery_of
from tailbone.jwks.document import PublishedKey
from tailbone.jwks.public_check import Finding, check_public_documents, summary

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tailbone.config.model import Config
    from tailbone.jwks.discovery import Discovery
    from tailbone.keys.view import KeyRing
    from tailbone.process.log import Logger

_WAIT_S: Final = 1.0
"""How often to check whether there is a signing key yet, in seconds."""


class PublicCheck:
    """Fetches discovery document and JWKS by their public URLs, at start and every keys.maxAge.

    The result never stops token issuance: this machine may have no access to the internet.

    Attributes:
        note: the last result, for ``/_readyz``; None before the first one.
    """

    def __init__(
        self,
        discovery: Discovery,
        ring: Callable[[], KeyRing],
        *,
        max_age_s: float,
        log: Logger,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Create a check that has not run yet.

        Args:
            discovery: what verifiers should find.
            ring: returns the current key ring.
            max_age_s: keys.maxAge, in seconds.
            log: receives results that differ from the previous one.
            sleep: how to wait.
        """
        self.note: Problem | None = None
        self._discovery = discovery
        self._ring = ring
        self._max_age_s = max_age_s
        self._log = log
        self._sleep = sleep
        self._problems: list[str] | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        # The import takes up to half a second.
        await asyncio.to_thread(import_module, "httpx2")
        while self._ring().signing is None:
            await self._sleep(_WAIT_S)
        while True:
            await self.check()
            await self._sleep(self._max_age_s)

    async def check(self) -> None:
        """Check once."""
        try:
            key = self._ring().signing
            signing = PublishedKey({**key.public_jwk()}) if key is not None else None
            documents = await check_public_documents(self._discovery, signing, max_age_s=self._max_age_s)
            findings = documents.findings
        except Exception as error:  # noqa: BLE001 -- logged with its traceback, and shown by the note
            # The check is never a reason to stop issuing tokens.
            self._log.error("unexpected failure of the public check", exc_info=error)
            text = f"unexpected failure ({type(error).__name__}); the log has more"
            findings = [Finding(level="error", check="outside", text=text)]
        problems = [str(finding) for finding in findings if finding.level != "ok"]
        if problems != self._problems:
            say = self._log.warning if problems else self._log.info
            say(f"the issuer seen from outside: {summary(findings)}", issuer=self._discovery.issuer)
        self._problems = problems
        code = "outside_failed" if problems else "outside_ok"
        text = f"outside: {summary(findings)}"
        # The check reads only public documents, so its result may be shown to anyone.
        self.note = Problem(code, text, text)


def public_check(config: Config, ring: Callable[[], KeyRing], log: Logger) -> PublicCheck | None:
    """Create the check that keys.outsideCheck asks for; None if there is nothing to check."""
    keys = config.keys
    discovery = discovery_of(keys.issuer, jwks_uri=keys.jwks_uri)
    is_public = keys.issuer.startswith("https://")
    if discovery is None or keys.outside_check == "off" or (keys.outside_check == "auto" and not is_public):
        return None
    return PublicCheck(discovery, ring, max_age_s=keys.max_age_s, log=log)
