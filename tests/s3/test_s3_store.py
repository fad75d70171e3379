"""The S3 store on real servers: what is stored, what counts as missing, what each error says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness import s3
from harness.store_contract import HOW, PATH, StoreContract

from tailbone.errors import (
    ForeignDocumentError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def store(bucket: str) -> AsyncIterator[S3Store]:
    async with S3Store(bucket) as opened:
        yield opened


@pytest.fixture
def take_away(endpoint: str, bucket: str) -> Callable[[], object]:
    """Delete the document as another program would."""
    return lambda: s3.client(endpoint).delete_object(Bucket=bucket, Key=PATH)


class TestAsAnyStore(StoreContract):
    """S3 fulfils the contract of stores."""


@pytest.fixture
async def broken(behind: str) -> AsyncIterator[S3Store]:
    """A store behind the proxy."""
    async with S3Store(behind) as opened:
        yield opened


async def test_the_object_has_type_and_cache_control(store: S3Store, endpoint: str, bucket: str) -> None:
    """A web server or a CDN passes them on to verifiers."""
    await store.write(PATH, b"{}", etag=None, **HOW)
    head = s3.client(endpoint).head_object(Bucket=bucket, Key=PATH)
    assert (head["ContentType"], head["CacheControl"]) == ("application/json", "public, max-age=300")


async def test_a_missing_bucket_is_an_error_not_a_missing_object(endpoint: str) -> None:
    """The errors of reading and writing name the bucket."""
    async with S3Store("no-such-bucket-here") as store:
        with pytest.raises(StoreSettingsError, match="no bucket no-such-bucket-here"):
            await store.read(PATH)
        with pytest.raises(StoreSettingsError, match="no bucket no-such-bucket-here"):
            await store.write(PATH, b"one", etag=None, **HOW)


async def test_an_invalid_bucket_name_is_an_error_that_names_the_setting(endpoint: str) -> None:
    """It is found before anything is sent."""
    async with S3Store("not a bucket!") as store:
        with pytest.raises(StoreSettingsError, match=r"keys\.bucket"):
            await store.read(PATH)


async def test_without_credentials_the_error_says_where_they_come_from(
    behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with S3Store(behind) as store:
        with pytest.raises(StoreDeniedError, match="AWS_PROFILE"):
            await store.read(PATH)


async def test_a_missing_profile_is_an_error(behind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE is part of the default chain."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    async with S3Store(behind) as store:
        with pytest.raises(StoreDeniedError, match="no AWS credentials"):
            await store.read(PATH)


@pytest.mark.s3
async def test_wrong_credentials_are_an_error(versitygw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto does not check them."""
    for name, value in {**s3.environment(versitygw), "AWS_SECRET_ACCESS_KEY": "wrong"}.items():
        monkeypatch.setenv(name, value)
    async with S3Store(s3.BUCKET) as store:
        with pytest.raises(StoreDeniedError, match="refuses the AWS credentials"):
            await store.read(PATH)


async def test_403_names_both_causes_and_both_remedies(broken: S3Store, proxy: s3.FaultProxy) -> None:
    """Without s3:ListBucket, AWS also answers 403 for a missing object."""
    proxy.add("GET", "status", status=403, code="AccessDenied")
    with pytest.raises(StoreDeniedError) as caught:
        await broken.read(PATH)
    for part in (
        "s3:GetObject",
        "s3:ListBucket",
        "there is no such object yet",
        'upload a first object {"keys":[]}',
    ):
        assert part in caught.value.message


async def test_403_on_a_write_names_the_missing_permission(broken: S3Store, proxy: s3.FaultProxy) -> None:
    """A write needs s3:PutObject."""
    proxy.add("PUT", "status", status=403, code="AccessDenied")
    with pytest.raises(StoreDeniedError, match="s3:PutObject"):
        await broken.write(PATH, b"one", etag=None, **HOW)


@pytest.mark.parametrize(("method", "action"), [("PUT", "kms:GenerateDataKey"), ("GET", "kms:Decrypt")])
async def test_403_names_the_action_that_the_server_names(
    broken: S3Store, proxy: s3.FaultProxy, method: str, action: str
) -> None:
    """An encrypted bucket also needs permissions on its encryption key."""
    message = f"User: arn:aws:iam::1:user/t is not authorized to perform: {action} on resource: arn:aws:kms:x"
    proxy.add(method, "status", status=403, code="AccessDenied", message=message)
    with pytest.raises(StoreDeniedError, match=f"grant {action}") as caught:
        await (broken.read(PATH) if method == "GET" else broken.write(PATH, b"one", etag=None, **HOW))
    assert "s3:" not in caught.value.message.replace("s3://", "")


async def test_404_without_a_known_code_says_what_to_do(broken: S3Store, proxy: s3.FaultProxy) -> None:
    """Some servers use another code for a missing object, which is then not certain."""
    proxy.add("GET", "status", status=404, code="NotFound", message="no such thing")
    with pytest.raises(StoreSettingsError, match=r'upload a first object \{"keys":\[\]\}') as caught:
        await broken.read(PATH)
    assert "(no such thing)" in caught.value.message


async def test_a_refusal_contains_the_servers_own_message(broken: S3Store, proxy: s3.FaultProxy) -> None:
    """Object Lock, for example, needs checksums; the message is on one line and without secrets."""
    words = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock"
    proxy.add("PUT", "status", status=400, code="InvalidRequest", message=f"{words}\n tskey-auth-k1-x")
    with pytest.raises(StoreSettingsError, match=words) as caught:
        await broken.write(PATH, b"one", etag=None, **HOW)
    assert "\n" not in caught.value.message
    assert "tskey" not in caught.value.message


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 500}, StoreError),
        ({"kind": "status", "status": 503, "code": "SlowDown"}, StoreError),
        ({"kind": "html", "status": 503}, StoreError),
        ({"kind": "html", "status": 408}, StoreError),
        ({"kind": "status", "status": 304, "code": ""}, StoreSettingsError),
        ({"kind": "fields", "fields": b"Content-Encoding: gzip\r\n"}, ForeignDocumentError),
        ({"kind": "status", "status": 404, "code": "NoSuchBucket"}, StoreSettingsError),
        ({"kind": "html", "status": 404}, StoreSettingsError),
        ({"kind": "html", "status": 403}, StoreDeniedError),
        ({"kind": "status", "status": 400, "code": "ExpiredToken"}, StoreDeniedError),
        ({"kind": "status", "status": 403, "code": "RequestTimeTooSkewed"}, StoreDeniedError),
        ({"kind": "status", "status": 400, "code": "AuthorizationHeaderMalformed"}, StoreSettingsError),
        ({"kind": "reset before"}, StoreError),
        ({"kind": "reset after"}, StoreError),
        ({"kind": "cut"}, StoreError),
    ],
)
async def test_a_failed_read_never_counts_as_a_missing_object(
    broken: S3Store, proxy: s3.FaultProxy, fault: dict[str, Any], error: type[StoreError]
) -> None:
    """Otherwise the next write would delete every published key."""
    await broken.write(PATH, b'{"keys":[]}', etag=None, **HOW)
    proxy.add("GET", **fault)
    with pytest.raises(StoreError) as caught:
        await broken.read(PATH)
    assert type(caught.value) is error
    proxy.clear()
    assert await broken.read(PATH) is not None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "status", "status": 409, "code": "ConditionalRequestConflict"}, StoreConflictError),
        ({"kind": "status", "status": 412, "code": "PreconditionFailed"}, StoreConflictError),
        ({"kind": "status", "status": 500}, StoreOutcomeUnknownError),
        ({"kind": "status", "status": 503, "code": "SlowDown"}, StoreError),
        ({"kind": "status", "status": 400, "code": "RequestTimeout"}, StoreError),
        ({"kind": "status", "status": 503, "code": "RequestTimeout"}, StoreOutcomeUnknownError),
        ({"kind": "status", "status": 503, "code": "SlowDownWrite"}, StoreOutcomeUnknownError),
        ({"kind": "status", "status": 499, "code": "ClientDisconnected"}, StoreOutcomeUnknownError),
        ({"kind": "status", "status": 400, "code": "IncompleteBody"}, StoreError),
        ({"kind": "html", "status": 408}, StoreOutcomeUnknownError),
        ({"kind": "html after", "status": 429}, StoreOutcomeUnknownError),
        ({"kind": "html after", "status": 503}, StoreOutcomeUnknownError),
        ({"kind": "status", "status": 501, "code": "NotImplemented"}, UnconditionalStoreError),
        ({"kind": "reset before"}, StoreOutcomeUnknownError),
        ({"kind": "reset after"}, StoreOutcomeUnknownError),
    ],
)
async def test_a_failed_write_says_whether_it_may_have_been_applied(
    broken: S3Store, proxy: s3.FaultProxy, fault: dict[str, Any], error: type[StoreError]
) -> None:
    """Lost races, refusals and unknown outcomes have different errors."""
    proxy.add("PUT", **fault)
    with pytest.raises(StoreError) as caught:
        await broken.write(PATH, b"one", etag=None, **HOW)
    assert type(caught.value) is error


async def test_a_write_to_an_unreachable_server_was_not_applied(
    behind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is closed, so the outcome is known."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    async with S3Store(behind) as store:
        with pytest.raises(StoreError, match="cannot be reached") as caught:
            await store.write(PATH, b"one", etag=None, **HOW)
    assert type(caught.value) is StoreError


async def test_an_object_too_long_for_a_jwks_is_not_read(store: S3Store, endpoint: str, bucket: str) -> None:
    """Somebody who can write to the bucket cannot exhaust the memory."""
    s3.client(endpoint).put_object(Bucket=bucket, Key=PATH, Body=b" " * 1_100_000)
    with pytest.raises(ForeignDocumentError):
        await store.read(PATH)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "us-west-2"}, b"eu-west-3"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "us-west-2"}, b"us-west-2"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "other"}, b"ap-south-1"),
    ],
)
async def test_the_region_is_aws_region_then_the_default_one_then_the_profiles(
    proxy: s3.FaultProxy,
    behind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    region: bytes,
) -> None:
    """The other SDKs do the same; only botocore ignores AWS_REGION."""
    config = tmp_path / "config"
    config.write_text("[profile other]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name, value in variables.items():
        if value:
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.delenv(name, raising=False)
    proxy.add("GET", "status", status=500)
    async with S3Store(behind) as store:
        with pytest.raises(StoreError):
            await store.read(PATH)
    assert b"/" + region + b"/s3/aws4_request" in proxy.heads[-1]


async def test_a_custom_endpoint_gets_no_checksums_by_default(broken: S3Store, proxy: s3.FaultProxy) -> None:
    """Old servers refuse them, so they are neither computed nor requested."""
    await broken.write(PATH, b"one", etag=None, **HOW)
    await broken.read(PATH)
    assert b"x-amz-checksum" not in b"".join(proxy.heads).lower()
    assert b"aws-chunked" not in b"".join(proxy.heads).lower()


async def test_checksums_that_the_user_requests_are_sent(
    behind: str, proxy: s3.FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buckets with Object Lock need them on any server."""
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    async with S3Store(behind) as store:
        await store.write(PATH, b"one", etag=None, **HOW)
    assert b"x-amz-checksum-crc32" in proxy.heads[-1].lower()


async def test_close_is_idempotent_and_final(behind: str) -> None:
    """A call after the close is an error and does not create a new client."""
    store = S3Store(behind)
    await store.read(PATH)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.read(PATH)


def test_creating_a_store_imports_no_http_client() -> None:
    """Importing aiobotocore and its HTTP clients takes half a second."""
    code = (
        "import sys; from tailbone.jwks.s3 import S3Store; S3Store('b');"
        "sys.exit(any(name.split('.')[0] in ('aiobotocore', 'aiohttp', 'httpx2') for name in sys.modules))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
