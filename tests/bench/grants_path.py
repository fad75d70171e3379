"""Times Issuer.issue without its signature, by what grants the caller has: ``python grants_path.py ROUNDS``.

A separate script, so that each commit is timed by the script that knows its names; it needs neither network
nor library.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from tailbone.keys.view import KeyRing
from tailbone.token.grants import TOKEN_CAPABILITY
from tailbone.token.identity import Identity
from tailbone.token.issuer import Issuer
from tailbone.token.policy import IssuerSettings, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKENS = 2000
_AUDIENCE = "sts.amazonaws.com"
_RULES = [
    {"audiences": [_AUDIENCE], "ttl": "15m", "groups": ["deployers"], "awsTags": {"team": "infra"}},
    {"audiences": ["*"], "groups": ["staff", "deployers"], "scope": "read:*", "claims": {"region": "eu"}},
    {"audiences": [_AUDIENCE, "vault"], "claims": {"team": "infra", "level": 3}, "subject": "ci"},
]


class _UnsignedKey:
    """Takes the place of a key: its signature would hide some microseconds."""

    kid, algorithm = "bench-1795518230", "ES256"

    async def sign(self, _data: bytes) -> bytes:
        return bytes(64)


async def main() -> None:
    """Take turns, and print µs per token, one number a round."""
    key: Any = _UnsignedKey()
    ring = KeyRing(signing=key)
    settings = IssuerSettings(
        issuer="tailbone",
        expiry_s=1200,
        backdate_s=5.0,
        audiences=(_AUDIENCE,),
        allow_shared=False,
        access="acl",
        capability=TOKEN_CAPABILITY,
        deny=frozenset(),
    )
    issuer = Issuer(settings, lambda: ring)
    callers = {
        "none_us": lambda: issuer.admit(_identity({})),
        "three_us": lambda: issuer.admit(
            _identity({"tailbone.dev/cap/token": [json.dumps(rule) for rule in _RULES]})
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in callers}
    for _ in range(int(sys.argv[1])):
        for name, caller in callers.items():
            times[name].append(await _each(issuer, caller))
    print(json.dumps(times))


def _identity(capabilities: dict[str, Any]) -> Identity:
    return Identity(
        node_id="nBench1CNTRL",
        node="ci.dev.tailnet.test",
        tags=("tag:ci",),
        capabilities=capabilities,
    )


async def _each(issuer: Issuer, admitted: Callable[[], Any]) -> float:
    caller, request = admitted(), TokenRequest(audience=_AUDIENCE)
    began = time.thread_time()
    for _ in range(_TOKENS):
        await issuer.issue(caller, request)
    return (time.thread_time() - began) / _TOKENS * 1e6


if __name__ == "__main__":
    asyncio.run(main())
