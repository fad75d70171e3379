"""Doctor examines a real bucket: content type, conditional writes and clock."""

from __future__ import annotations

import asyncio

import pytest
from harness import s3

from tailbone.config.load import load
from tailbone.doctor import doctor
from tailbone.process.log import get_logger

JWKS = ".well-known/jwks.json"


@pytest.mark.parametrize(
    ("content_type", "level"), [("application/json", "ok"), ("binary/octet-stream", "error")]
)
async def test_the_bucket_is_examined(endpoint: str, bucket: str, content_type: str, level: str) -> None:
    """Its object has a content type that AWS accepts, and its clock agrees with this machine's."""
    put = {"Bucket": bucket, "Key": JWKS, "Body": b'{"keys":[]}', "ContentType": content_type}
    await asyncio.to_thread(lambda: s3.client(endpoint).put_object(**put))
    jwks, found = await doctor._check_bucket(load({"keys.bucket": bucket}, environ={}), get_logger())
    assert jwks is not None
    assert [(finding.check, finding.level) for finding in found] == [
        ("bucket", "ok"),
        ("bucket", level),
        ("clock", "ok"),
    ]
    assert f"Content-Type {content_type}" in found[1].text
    assert found[0].text.endswith("can be read, and takes conditional writes")
