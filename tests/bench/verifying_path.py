"""Times Verifier.verify beside a bare RSA-2048 verification and PyJWT: ``python verifying_path.py ROUNDS``.

It prints a JSON line with µs of processor time, one number per round.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tailbone.base64url import decode
from tailbone.testing import FakeIssuer
from tailbone.verify import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCHES, _BATCH = 20, 50
_AUDIENCE = "service"


def main() -> None:
    """Alternate in short batches, and print the best batch of each round."""
    with FakeIssuer() as issuer:
        token = issuer.token(audience=_AUDIENCE)
        verifier = Verifier(issuer.url, _AUDIENCE)
        key = jwt.PyJWKClient(issuer.jwks_url).get_signing_key_from_jwt(token).key
        assert isinstance(key, rsa.RSAPublicKey)
        signed, _, signature = token.encode().rpartition(b".")
        raw, pkcs1, sha256 = decode(signature), padding.PKCS1v15(), hashes.SHA256()
        work: dict[str, Callable[[], object]] = {
            "verify_us": lambda: verifier.verify(token),
            "bare_us": lambda: key.verify(raw, signed, pkcs1, sha256),
            "pyjwt_us": lambda: jwt.decode(
                token, key, algorithms=["RS256"], issuer=issuer.url, audience=_AUDIENCE
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for _ in range(int(sys.argv[1])):
            best = dict.fromkeys(work, float("inf"))
            for _ in range(_BATCHES):
                for name, call in work.items():
                    best[name] = min(best[name], _each(call))
            for name, each in best.items():
                times[name].append(each)
    print(json.dumps(times))


def _each(call: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(_BATCH):
        call()
    return (time.thread_time() - began) / _BATCH * 1e6


if __name__ == "__main__":
    main()
