"""Verifier and AsyncVerifier: check tokens with the issuer's published keys."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from typing import TYPE_CHECKING, Final

from tailbone.algorithms import ALGORITHMS, Algorithm
from tailbone.errors import ConfigError
from tailbone.text import quote
from tailbone.verify.claims import check_claims, decode_claims
from tailbone.verify.errors import AlgorithmNotAllowedError
from tailbone.verify.http import FETCH_S, check_url, fetch_keys, get
from tailbone.verify.key_cache import KeyCache
from tailbone.verify.token import check_signature, parse_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tailbone.verify.claims import Claims
    from tailbone.verify.http import Get
    from tailbone.verify.keys import VerifyingKey
    from tailbone.verify.token import Token

# Discovery and JWKS.
_LONGEST_WAIT_S: Final = 2 * FETCH_S + 1.0


class _Checks:
    """What both verifiers share: the settings, the cache of keys, and the checks."""

    def __init__(
        self,
        issuer: str,
        audience: str | Iterable[str] | None = None,
        *,
        jwks_url: str | None = None,
        any_audience: bool = False,
        algorithms: Iterable[Algorithm] = ALGORITHMS,
        leeway_s: float = 10.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        http: Get = get,
    ) -> None:
        """Create a verifier; the keys are fetched when the first token comes.

        Args:
            issuer: what the claim ``iss`` must be.
            audience: this service's audience, or several of them: one must be in the claim ``aud``.
            jwks_url: the URL of the JWKS; by default it is found by the issuer's discovery document.
            any_audience: accept tokens that are for other services, or for none in particular. Such a
                service can use the tokens that it gets, as their callers, at others that do the same.
            algorithms: which algorithms are allowed.
            leeway_s: by how much the issuer's clock may differ, in seconds.
            clock: returns Unix time in seconds.
            monotonic: returns seconds that never go back.
            http: gets the documents, for another HTTP client or other CAs:
                ``partial(tailbone.verify.http.get, context=…)``.

        Raises:
            ConfigError: an argument is not allowed.
        """
        self._issuer = issuer
        self._audience = _audiences(audience, any_audience=any_audience)
        self._algorithms = frozenset(algorithms)
        if not self._algorithms or not self._algorithms <= set(ALGORITHMS):
            raise ConfigError(f"algorithms: allowed are {', '.join(ALGORITHMS)}")
        try:
            check_url(issuer if jwks_url is None else jwks_url)
        except ValueError as error:
            raise ConfigError(f"{'issuer' if jwks_url is None else 'jwks_url'}: {error}") from None
        self._leeway_s = leeway_s
        self._clock = clock
        self._keys = KeyCache(lambda: fetch_keys(issuer, jwks_url, http), monotonic)

    def _parse(self, text: str) -> Token:
        token = parse_token(text)
        if token.header.alg not in self._algorithms:
            raise AlgorithmNotAllowedError("the token's algorithm is not allowed")
        return token

    def _check(self, token: Token, key: VerifyingKey) -> Claims:
        check_signature(token, key)
        claims = decode_claims(token.payload)
        check_claims(
            claims,
            issuer=self._issuer,
            audience=self._audience,
            now=self._clock(),
            leeway_s=self._leeway_s,
        )
        return claims


class Verifier(_Checks):
    """Verifies tokens; threads may share it, and should, since it caches the issuer's keys."""

    def verify(self, token: str) -> Claims:
        """Return the claims of a token that is good.

        Only a kid that is not known, or the first token, waits for the network.

        Raises:
            TokenError: the token does not verify; the class says why.
            KeysUnavailableError: the issuer's keys cannot be fetched.
        """
        parsed = self._parse(token)
        kid = parsed.header.kid
        key = self._keys.get(kid)
        if key is None:
            under_way = self._keys.fetch_for(kid)
            if under_way is not None:
                concurrent.futures.wait([under_way], _LONGEST_WAIT_S)
            key = self._keys.require(kid)
        return self._check(parsed, key)


class AsyncVerifier(_Checks):
    """Verifies tokens in coroutines; tasks and threads may share it. The network is used in a thread."""

    async def verify(self, token: str) -> Claims:
        """Return the claims of a token that is good.

        Only a kid that is not known, or the first token, waits for the network.

        Raises:
            TokenError: the token does not verify; the class says why.
            KeysUnavailableError: the issuer's keys cannot be fetched.
        """
        parsed = self._parse(token)
        kid = parsed.header.kid
        key = self._keys.get(kid)
        if key is None:
            under_way = self._keys.fetch_for(kid)
            if under_way is not None:
                # Unlike wait_for, it does not cancel the fetch, which others await too.
                await asyncio.wait([asyncio.wrap_future(under_way)], timeout=_LONGEST_WAIT_S)
            key = self._keys.require(kid)
        return self._check(parsed, key)


def _audiences(audience: str | Iterable[str] | None, *, any_audience: bool) -> frozenset[str] | None:
    named = frozenset([audience] if isinstance(audience, str) else audience or ())
    if any_audience and not named:
        return None
    if any_audience or not named or "" in named:
        raise ConfigError(
            f"audience: {quote(str(audience))} is not allowed: name this service's audience, "
            "or accept all tokens of the issuer with any_audience=True"
        )
    return named
