"""The JWKS in the bucket, read past the server, as a verifier reads it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import jwt
from harness import s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JWKS_PATH: Final = ".well-known/jwks.json"


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Run versitygw, or moto where that is not installed, with a bucket; yields its URL."""
    program = s3.find_versitygw()
    with s3.versitygw(program, folder) if program else s3.moto(folder) as endpoint:
        s3.make_bucket(endpoint)
        yield endpoint


class Verifier:
    """Verifies tokens with what is in the bucket.

    Attributes:
        keys: the JWK of each kid, as last read.
    """

    def __init__(self, endpoint: str) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self._client = s3.client(endpoint)
        self._parsed: dict[str, tuple[dict[str, Any], jwt.PyJWK]] = {}

    def read(self) -> None:
        """Read the JWKS.

        Raises:
            AssertionError: it has a kid twice, or a key that PyJWT cannot read.
        """
        try:
            answer = self._client.get_object(Bucket=s3.BUCKET, Key=JWKS_PATH)
        except self._client.exceptions.NoSuchKey:
            found = []
        else:
            found = json.loads(answer["Body"].read())["keys"]
        self.keys = {key["kid"]: key for key in found}
        assert len(self.keys) == len(found), f"a kid twice: {[key['kid'] for key in found]}"
        for kid, key in self.keys.items():
            if self._parsed.get(kid, ({}, None))[0] != key:
                self._parsed[kid] = key, jwt.PyJWK(key)

    def verify(self, token: str) -> dict[str, Any]:
        """Return the claims; their times are not judged.

        Raises:
            KeyError: no such key is published.
            jwt.InvalidTokenError: it does not verify.
        """
        key = self._parsed[kid_of(token)][1] if kid_of(token) in self.keys else None
        if key is None:
            raise KeyError(kid_of(token))
        return dict(
            jwt.decode(
                token,
                key,
                algorithms=["ES256", "RS256"],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        )


def kid_of(token: str) -> str:
    """Return the kid in a token's head."""
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid
