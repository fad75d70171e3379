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
    config = load({"keys.bucket": bucket}, environ={})
    jwks, found = await doctor._check_bucket(config, get_logger(), is_public=False)
    assert jwks is not None
    assert [(finding.check, finding.level) for finding in found] == [
        ("bucket", "ok"),
        ("bucket", level),
        ("clock", "ok"),
    ]
    assert f"Content-Type {content_type}" in found[1].text
    assert found[0].text.endswith("can be read, and takes conditional writes")


async def test_who_may_read_the_bucket(endpoint: str, bucket: str, request: pytest.FixtureRequest) -> None:
    """Without a discovery document, verifiers read the bucket itself. moto lets everybody read."""
    put = {"Bucket": bucket, "Key": JWKS, "Body": b'{"keys":[]}', "ContentType": "application/json"}
    await asyncio.to_thread(lambda: s3.client(endpoint).put_object(**put))
    config = load({"keys.bucket": bucket}, environ={})
    _, found = await doctor._check_bucket(config, get_logger(), is_public=True)
    is_moto = request.node.callspec.params["endpoint"] == "moto"
    url = f"{endpoint}/{bucket}/{JWKS}"
    assert (found[2].level, found[2].text) == (
        ("ok", f"everybody can read {url}")
        if is_moto
        else ("warning", f"{url} cannot be read without credentials (status 403)")
    )


async def test_a_bucket_whose_server_is_away_for_strangers() -> None:
    """The reason is named."""
    found = await doctor._check_public_read("http://127.0.0.1:9/bucket/jwks.json")
    assert (found.level, found.text) == (
        "warning",
        "http://127.0.0.1:9/bucket/jwks.json cannot be read without credentials (ConnectError)",
    )
