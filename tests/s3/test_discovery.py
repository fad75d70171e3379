"""Discovery document and JWKS of one server on real S3 servers."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from harness import s3
from harness.log import Lines

from tailbone.config.load import load
from tailbone.counting import StoreCounts
from tailbone.daemon.keys import key_lifecycle

if TYPE_CHECKING:
    from pathlib import Path

DISCOVERY = ".well-known/openid-configuration"
JWKS = ".well-known/jwks.json"


async def publish(folder: Path, bucket: str, *, issuer: str = "https://issuer.example") -> list[str]:
    """Publish as a new server does, and return its notes."""
    settings = {"keys.dir": str(folder / "keys"), "keys.bucket": bucket, "keys.issuer": issuer}
    config = load({**settings, "keys.algorithm": "ES256"}, environ={})
    async with key_lifecycle(config, Lines(), StoreCounts()) as keys:  # type: ignore[arg-type]
        await keys.sync()
        return keys.notes()


async def test_both_documents_are_published(tmp_path: Path, endpoint: str, bucket: str) -> None:
    """They have the same content type and Cache-Control; a second start changes nothing."""
    assert await publish(tmp_path, bucket) == []
    client = s3.client(endpoint)
    stored = await asyncio.to_thread(client.get_object, Bucket=bucket, Key=DISCOVERY)
    assert json.loads(stored["Body"].read())["id_token_signing_alg_values_supported"] == ["ES256"]
    jwks = await asyncio.to_thread(client.head_object, Bucket=bucket, Key=JWKS)
    for name, value in (("ContentType", "application/json"), ("CacheControl", "public, max-age=300")):
        assert stored[name] == jwks[name] == value
    assert await publish(tmp_path, bucket) == []
    again = await asyncio.to_thread(client.head_object, Bucket=bucket, Key=DISCOVERY)
    assert again["LastModified"] == stored["LastModified"]


async def test_two_issuers_in_one_bucket(tmp_path: Path, endpoint: str, bucket: str) -> None:
    """The first one's document stays."""
    await publish(tmp_path / "first", bucket)
    [note] = await publish(tmp_path / "second", bucket, issuer="https://other.example")
    for text in note.text, note.public:
        assert text.startswith("discovery: ")
        assert '"https://issuer.example"' in text
        assert '"https://other.example"' in text
    assert bucket not in note.public
    stored = await asyncio.to_thread(s3.client(endpoint).get_object, Bucket=bucket, Key=DISCOVERY)
    assert json.loads(stored["Body"].read())["issuer"] == "https://issuer.example"
