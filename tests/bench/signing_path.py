"""Times Issuer.issue beside a bare RSA-2048 signature: ``python signing_path.py ROUNDS``, as a JSON line.

A separate script, so that each commit is timed by the script that knows its names; it needs neither network
nor library.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from tailbone.keys.signing_key import SigningKey
from tailbone.keys.view import KeyRing
from tailbone.token.grants import TOKEN_CAPABILITY
from tailbone.token.identity import Identity
from tailbone.token.issuer import Issuer
from tailbone.token.policy import IssuerSettings, TokenRequest

if TYPE_CHECKING:
    from collections.abc import Callable

_TOKENS = 300
_BATCHES, _BATCH = 10, 20
_IDENTITY = Identity(
    node_id="nBench1CNTRL",
    node="laptop.dev.tailnet.test",
    user_id=123,
    login="dev@example.com",
    display_name="Dev",
)


def best_signature_us(algorithm: str = "RS256") -> float:
    """Return the processor time of a bare signature of ``cryptography``, in µs: the best of some batches."""
    if algorithm == "RS256":
        rsa_key, pkcs1, sha256 = rsa.generate_private_key(65537, 2048), padding.PKCS1v15(), hashes.SHA256()
        return _best(lambda: rsa_key.sign(b"bench", pkcs1, sha256))
    ec_key, ecdsa = ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(hashes.SHA256())
    return _best(lambda: ec_key.sign(b"bench", ecdsa))


def _best(sign: Callable[[], bytes]) -> float:
    best = float("inf")
    for _ in range(_BATCHES):
        began = time.thread_time()
        for _ in range(_BATCH):
            sign()
        best = min(best, time.thread_time() - began)
    return best / _BATCH * 1e6


async def main() -> None:
    """Alternate, and print µs per token and per signature, one number per round."""
    key = SigningKey.generate("bench-1795518230", algorithm="RS256", size=2048, created_at=1795518230)
    ring = KeyRing(signing=key, published=(key,))
    settings = IssuerSettings(
        issuer="tailbone",
        expiry_s=1200,
        backdate_s=5.0,
        audiences=(),
        allow_shared=False,
        access="acl",
        capability=TOKEN_CAPABILITY,
        deny=frozenset(),
    )
    issuer = Issuer(settings, lambda: ring)
    caller = issuer.admit(_IDENTITY)
    bare = rsa.generate_private_key(65537, 2048)
    pkcs1, sha256, data = padding.PKCS1v15(), hashes.SHA256(), b"x" * 400
    times: dict[str, list[float]] = {"issue_us": [], "sign_us": []}
    for _ in range(int(sys.argv[1])):
        began = time.thread_time()
        for _ in range(_TOKENS):
            await issuer.issue(caller, TokenRequest())
        times["issue_us"].append(_each(began))
        began = time.thread_time()
        for _ in range(_TOKENS):
            bare.sign(data, pkcs1, sha256)
        times["sign_us"].append(_each(began))
    print(json.dumps(times))


def _each(began: float) -> float:
    return (time.thread_time() - began) / _TOKENS * 1e6


if __name__ == "__main__":
    asyncio.run(main())
