"""A server's keys on an S3 server with faults: no key is lost, and the server recovers."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from harness import s3
from harness.keys import EC, JWKS, FakeTime
from harness.log import Lines
from harness.problems import texts

from tailbone.errors import StoreDeniedError, StoreError, StoreOutcomeUnknownError, UnconditionalStoreError
from tailbone.jwks.s3 import S3Store
from tailbone.keys.folder import KeyFolder
from tailbone.keys.lifecycle import KeyLifecycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Server:
    """Keys in a bucket behind the proxy, with a fake wall clock and real deadlines."""

    def __init__(self, folder: Path, bucket: str, endpoint: str, proxy: s3.FaultProxy) -> None:
        self.folder = folder
        self.bucket = bucket
        self.endpoint = endpoint
        self.proxy = proxy
        self.time = FakeTime()
        self.log = Lines()
        self.keys = KeyLifecycle(
            folder=KeyFolder(folder),
            store=S3Store(bucket),
            path=JWKS,
            settings=msgspec.structs.replace(EC),
            log=self.log,  # type: ignore[arg-type]
            clock=self.time.clock,
        )

    @property
    def published(self) -> list[str]:
        """The kids in the bucket, read without the proxy."""
        body = s3.client(self.endpoint).get_object(Bucket=self.bucket, Key=JWKS)["Body"].read()
        return [key["kid"] for key in json.loads(body)["keys"]]

    @property
    def private(self) -> list[str]:
        return sorted(path.name.removesuffix(".private.jwk") for path in self.folder.glob("*.private.jwk"))


@pytest.fixture
async def server(tmp_path: Path, behind: str, moto: str, proxy: s3.FaultProxy) -> AsyncIterator[Server]:
    """A server that has published its first key, through a proxy without faults."""
    made = Server(tmp_path / "keys", behind, moto, proxy)
    async with made.keys:
        await made.keys.sync()
        assert made.published == made.private
        made.time.advance(1000)
        yield made


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("GET", {"kind": "status", "status": 500}),
        ("GET", {"kind": "status", "status": 503, "code": "SlowDown"}),
        ("GET", {"kind": "reset before"}),
        ("GET", {"kind": "reset after"}),
        ("GET", {"kind": "cut"}),
        ("GET", {"kind": "delay", "seconds": 0.3}),
        ("GET", {"kind": "etag"}),
        ("PUT", {"kind": "status", "status": 500}),
        ("PUT", {"kind": "status", "status": 503, "code": "SlowDown"}),
        ("PUT", {"kind": "status", "status": 409, "code": "ConditionalRequestConflict"}),
        ("PUT", {"kind": "status", "status": 412, "code": "PreconditionFailed"}),
        ("PUT", {"kind": "reset before"}),
        ("PUT", {"kind": "reset after"}),
        ("PUT", {"kind": "delay", "seconds": 0.3}),
        ("PUT", {"kind": "etag"}),
    ],
)
async def test_two_faults_in_a_row_cost_a_generate_only_time(
    server: Server, method: str, fault: dict[str, Any]
) -> None:
    """The key is published once, and the first key stays."""
    server.proxy.add(method, times=2, **fault)
    made = await server.keys.generate()
    assert server.published == [*server.private[:1], made.key_id]
    assert server.private == server.published


async def test_a_remove_whose_write_was_applied_and_reset_succeeds(server: Server) -> None:
    """A read shows that the write was applied."""
    old = server.private[0]
    made = await server.keys.generate()
    server.proxy.add("PUT", "reset after", times=1)
    await server.keys.remove(old)
    assert server.published == server.private == [made.key_id]


@pytest.mark.parametrize("status", [412, 499, 503])
@pytest.mark.parametrize("change", ["remove", "generate"])
async def test_a_failed_write_that_a_proxy_passed_on_may_have_been_applied(
    server: Server, change: str, status: int
) -> None:
    """Until a read succeeds, a key that may have left the bucket does not sign, and a new key is kept."""
    old, made = server.private[0], (await server.keys.generate()).key_id
    if change == "remove":
        # The first write is the trial write.
        server.proxy.add("PUT", "gone after", status=status, skip=1)
        with pytest.raises(StoreOutcomeUnknownError):
            await server.keys.remove(old)
        assert server.published == [made]
        assert server.keys.ring.require().kid == made
    else:
        server.proxy.add("PUT", "gone after", status=status)
        with pytest.raises(StoreOutcomeUnknownError):
            await server.keys.generate()
        assert server.private == server.published
        assert len(server.published) == 3
    server.proxy.clear()
    await server.keys.sync()
    assert server.private == server.published
    assert server.keys.notes() == []


@pytest.mark.parametrize(
    ("method", "fault", "error"),
    [
        ("GET", {"kind": "status", "status": 403, "code": "AccessDenied"}, StoreDeniedError),
        ("PUT", {"kind": "status", "status": 403, "code": "AccessDenied"}, StoreDeniedError),
        ("PUT", {"kind": "status", "status": 501, "code": "NotImplemented"}, UnconditionalStoreError),
        ("GET", {"kind": "status", "status": 404, "code": "NoSuchBucket"}, StoreError),
        ("GET", {"kind": "html", "status": 404}, StoreError),
        ("GET", {"kind": "html", "status": 200}, StoreError),
        ("GET", {"kind": "status", "status": 500}, StoreError),
    ],
)
async def test_a_lasting_fault_changes_nothing_and_ends_in_time(
    server: Server, method: str, fault: dict[str, Any], error: type[StoreError]
) -> None:
    """No key is lost, no key pair is left over, and the signing key keeps signing."""
    before = server.published
    began = time.monotonic()
    server.proxy.add(method, **fault)
    with pytest.raises(error):
        await server.keys.generate()
    with pytest.raises(error):
        await server.keys.remove(before[0])
    assert time.monotonic() - began < 30
    assert server.published == server.private == before
    assert server.keys.reasons() == []
    server.proxy.clear()
    await server.keys.sync()
    assert server.keys.notes() == []


async def test_412_for_ever_on_an_unchanged_object_is_named(server: Server) -> None:
    """The store refuses its own ETag; this is not a race that is always lost."""
    began = time.monotonic()
    # The first write is the probe, to which 412 is the right answer.
    server.proxy.add("PUT", "status", status=412, code="PreconditionFailed")
    with pytest.raises(UnconditionalStoreError, match=r"refuses the ETag that it gave.*conditionalWrites"):
        await server.keys.generate()
    assert time.monotonic() - began < 5
    assert server.published == server.private


async def test_a_server_that_starts_while_s3_fails_signs_with_its_confirmed_key(
    server: Server, tmp_path: Path
) -> None:
    """It reports that its copy is stale, and recovers when S3 does."""
    signing = server.keys.ring.require().kid
    server.proxy.add("GET", "status", status=500)
    again = Server(server.folder, server.bucket, server.endpoint, server.proxy)
    async with again.keys:
        await again.keys.sync()
        assert again.keys.ring.require().kid == signing
        assert again.keys.reasons() == []
        assert "jwks: stale: not read since the start" in texts(again.keys.notes())
        server.proxy.clear()
        await again.keys.sync()
        assert again.keys.notes() == []


OLD_RECORD = """{{
  "thumbprint": "{thumbprint}",
  "origin": "first",
  "since": 1795518230.0,
  "meant_for": "s3://{bucket} at {url}/.well-known/jwks.json",
  "place": "s3://{bucket} at {url}/.well-known/jwks.json",
  "confirmed_at": 1795518230.0,
  "signs_from": 1795518230.0,
  "signing_since": 1795518230.0,
  "expiry_s": 3600.0
}}
"""
"""A record of an earlier release, which found the place without the SDK."""


async def test_a_record_of_an_earlier_release_still_names_this_place(server: Server) -> None:
    """After an upgrade and a restart while S3 fails, the confirmed key keeps signing."""
    signing = server.keys.ring.require()
    record = OLD_RECORD.format(thumbprint=signing.thumbprint, bucket=server.bucket, url=server.proxy.url)
    (server.folder / f"{signing.kid}.state.json").write_text(record)
    server.proxy.add("GET", "status", status=500)
    again = Server(server.folder, server.bucket, server.endpoint, server.proxy)
    async with again.keys:
        await again.keys.sync()
        assert again.keys.ring.require().kid == signing.kid
        assert again.keys.reasons() == []
