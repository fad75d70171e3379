"""Tailnet: a private tailnet with a real issuer, in a test's process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self

from tailbone.client.issuer import Issuer
from tailbone.config.load import load
from tailbone.dev.flags import DevSettings, Endpoint, check_identities
from tailbone.dev.running import Dev
from tailbone.errors import NodeClosedError, TailnetError
from tailbone.process.signals import Stop
from tailbone.token.grants import ANY_AUDIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tailbone.dev.running import DevInfo

_FREE: Final = Endpoint("127.0.0.1", 0)
_START_S: Final = 60.0
_STOP_S: Final = 30.0
_GRANTED_S: Final = 10.0


class Tailnet:
    """A private tailnet on loopback: its callers get tokens from a real issuer, which asks who they are.

    ``with Tailnet() as tailnet: token = tailnet.token(audience="my-service", as_="tag:ci")``; ``async with``
    does the same. It runs in a thread, so its methods may be called from tests of both kinds. Until
    ``set_grants``, every caller may request any audience.
    """

    def __init__(self, *callers: str, settings: Mapping[str, str | Sequence[str]] | None = None) -> None:
        """Describe a tailnet; entering it starts it, which takes about a second.

        Args:
            callers: logins (``dev@example.com``) and tags (``tag:ci``), by default these two.
            settings: the issuer's: ``{"keys.expiry": "5m"}``.

        Raises:
            ConfigError: a caller or setting is not allowed.
        """
        self._identities = check_identities(callers)
        self._config = load(settings or {}, environ={}, isolated=True)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="tailbone-tailnet")
        self._started: Future[tuple[Dev, DevInfo]] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: Stop | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._started.result(_START_S)
            self.set_grants(
                {
                    "src": ["*"],
                    "dst": ["*"],
                    "ip": ["*"],
                    "app": {self._config.issuer.capability: [{"audiences": [ANY_AUDIENCE]}]},
                }
            )
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._end)

    @property
    def issuer(self) -> str:
        """The claim ``iss`` of its tokens, at which verifiers can discover the issuer."""
        return self.jwks_url.partition("/.well-known")[0]

    @property
    def jwks_url(self) -> str:
        """The JWKS."""
        return self._info.jwks_url

    @property
    def callers(self) -> dict[str, str]:
        """By identity, the URL at which the issuer sees that caller."""
        return self._info.callers

    def environment(self, as_: str = "") -> dict[str, str]:
        """Return the variables for a program that is this caller, by default the first one."""
        variables = self._info.environment()
        return {**variables, "TAILBONE_ISSUE_URL": f"{self._url(as_)}/issue"}

    def token(self, *, audience: str = "", as_: str = "", ttl_s: float | None = None) -> str:
        """Return a token, issued by the caller's identity on the tailnet.

        Args:
            audience: the claim ``aud``; empty for none.
            as_: the caller; by default the first one.
            ttl_s: the lifetime in whole seconds; None for the issuer's.

        Raises:
            IssuerRefusedError: the caller gets no such token.
        """
        return Issuer(self._url(as_)).issue(audience, ttl_s).value

    def set_grants(self, *grants: Mapping[str, Any]) -> None:
        """Replace the grants of the tailnet's policy, and wait until they count.

        All nodes can always connect to each other.

        Args:
            grants: each with ``src``, ``dst``, ``ip`` and ``app``, as in the policy file. The issuer's tag is
                ``tag:tailbone``.
        """
        dev, _ = self._started.result(0)
        setting = dev.set_grants([dict(grant) for grant in grants])
        asyncio.run_coroutine_threadsafe(setting, self._running_loop()).result(_GRANTED_S)

    @property
    def _info(self) -> DevInfo:
        if not self._started.done():
            raise NodeClosedError("the tailnet was not entered: use it in `with`")
        return self._started.result()[1]

    def _url(self, identity: str) -> str:
        callers = self.callers
        if not identity:
            return next(iter(callers.values()))
        if identity not in callers:
            raise TailnetError(f"{identity} is not a caller; there are {', '.join(callers)}")
        return callers[identity]

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise NodeClosedError("the tailnet is closed")
        return self._loop

    async def _run(self) -> None:
        """Run the tailnet until it is closed; a failure of the start is raised where it was entered."""
        self._loop = asyncio.get_running_loop()
        self._stop = Stop()
        settings = DevSettings(
            identities=self._identities, listen=_FREE, jwks_listen=_FREE, admin_listen=_FREE
        )
        try:
            async with Dev(self._config, settings, self._stop) as dev:
                self._started.set_result((dev, await dev.start()))
                await self._stop.asked.wait()
        except Exception as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    def _end(self) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.asked.set)
        self._thread.join(_STOP_S)
        self._loop = None
