"""The S3 store with odd servers and settings: each is a StoreError that says what to do."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from harness import s3
from harness.store_contract import HOW, PATH

from tailbone.errors import (
    ForeignDocumentError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks.s3 import S3Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REDIRECTS = [
    (300, ""),
    (301, ""),
    (301, "PermanentRedirect"),
    (302, ""),
    (303, ""),
    (307, "TemporaryRedirect"),
    (308, ""),
]


@pytest.fixture
async def store(behind: str) -> AsyncIterator[S3Store]:
    """A store behind the proxy."""
    async with S3Store(behind) as opened:
        yield opened


@pytest.fixture
async def trap(moto: str) -> AsyncIterator[s3.FaultProxy]:
    """Another server, which must get no request."""
    async with s3.FaultProxy(moto) as elsewhere:
        yield elsewhere


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the AWS profile, instead of credentials in variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "aws-config"
    file.write_text("")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    return file


@pytest.mark.parametrize(("status", "code"), REDIRECTS)
@pytest.mark.parametrize("fields", [b"", b"Location: {trap}/b/k\r\n"])
async def test_each_redirect_is_an_error(
    store: S3Store, proxy: s3.FaultProxy, trap: s3.FaultProxy, status: int, code: str, fields: bytes
) -> None:
    """Otherwise another host would get the session token, and its answer would count as the JWKS."""
    for method in ("GET", "PUT"):
        located = fields.replace(b"{trap}", trap.url.encode())
        proxy.add(method, "status", status=status, code=code, fields=located)
    for call in (store.read(PATH), store.write(PATH, b"one", etag=None, **HOW)):
        with pytest.raises(StoreSettingsError, match="set AWS_REGION"):
            await call
    assert (trap.requests, proxy.requests) == ([], ["GET", "PUT"])


@pytest.mark.parametrize(
    ("status", "code", "fields", "text"),
    [
        (
            301,
            "PermanentRedirect",
            b"x-amz-bucket-region: eu-west-3\r\n",
            "set AWS_REGION to eu-west-3$",
        ),
        (
            301,
            "PermanentRedirect",
            b"x-amz-bucket-region: <b>no</b>\r\n",
            "region: set AWS_REGION$",
        ),
        (400, "AuthorizationHeaderMalformed", b"", "region: set AWS_REGION$"),
        (301, "", b"Location: https://me:pw@s3.example/b?sig=1\r\n", "redirect to https://s3.example, which"),
        (302, "", b"Location: https://[s3\r\n", "a redirect, which is not followed"),
        (308, "", b"Location: /b/k\r\n", "or AWS_ENDPOINT_URL to the S3 server's own address"),
    ],
)
async def test_a_redirect_names_the_region_or_server_to_set(
    store: S3Store, proxy: s3.FaultProxy, status: int, code: str, fields: bytes, text: str
) -> None:
    """Only text that looks like a region or a server is shown."""
    proxy.add("GET", "status", status=status, code=code, fields=fields)
    with pytest.raises(StoreSettingsError, match=text):
        await store.read(PATH)


async def test_an_answer_with_a_malformed_date_is_not_blamed_on_the_settings(
    store: S3Store, proxy: s3.FaultProxy
) -> None:
    """The SDK raises the same error for an invalid address."""
    proxy.add("GET", "status", status=200, code="", fields=b'ETag: "e"\r\nLast-Modified: never\r\n')
    with pytest.raises(StoreError, match="an invalid answer to a read") as caught:
        await store.read(PATH)
    assert type(caught.value) is StoreError
    assert "never" in caught.value.detail


def fail_at(store: S3Store, event: str, message: str) -> None:
    """Let the SDK raise an unexpected error at one of its own events."""

    def fail(**_: object) -> None:
        raise RecursionError(message)

    store._client.meta.events.register(event, fail)


async def test_a_write_whose_answer_is_not_understood_may_have_been_applied(store: S3Store) -> None:
    """This is so for any error of the SDK."""
    await store.read(PATH)
    fail_at(store, "response-received.s3", "at the answer")
    with pytest.raises(StoreOutcomeUnknownError, match="a later read will show") as caught:
        await store.write(PATH, b"one", etag=None, **HOW)
    assert caught.value.detail == "RecursionError: at the answer"


async def test_a_write_that_failed_before_it_was_sent_changed_nothing(
    store: S3Store, proxy: s3.FaultProxy
) -> None:
    """This is so for any error of the SDK."""
    await store.read(PATH)
    fail_at(store, "request-created.s3", "at the request")
    with pytest.raises(StoreError) as caught:
        await store.write(PATH, b"one", etag=None, **HOW)
    assert not isinstance(caught.value, StoreOutcomeUnknownError)
    assert caught.value.detail == "RecursionError: at the request"
    assert proxy.requests == ["GET"]


@pytest.mark.parametrize("command", ["echo 5", "echo no-json", "echo {}", "/no/such/program", "false", "'"])
async def test_a_credential_process_without_credentials_is_named(
    behind: str, proxy: s3.FaultProxy, profile: Path, command: str
) -> None:
    """Nothing is sent, so a write was certainly not applied."""
    profile.write_text(f"[default]\ncredential_process = {command}\n")
    async with S3Store(behind) as store:
        for call in (store.read(PATH), store.write(PATH, b"one", etag=None, **HOW)):
            with pytest.raises(StoreDeniedError, match="credential_process of the AWS profile") as caught:
                await call
            assert caught.value.detail
    assert proxy.requests == []


async def test_a_credential_process_that_fails_later_is_named(
    behind: str, proxy: s3.FaultProxy, profile: Path, tmp_path: Path
) -> None:
    """Its credentials expire at once here, so each call asks it again."""
    program = tmp_path / "credentials"
    content = (
        f'{{"Version": 1, "AccessKeyId": "{s3.ACCESS}", "SecretAccessKey": "{s3.SECRET}", '
        '"SessionToken": "t", "Expiration": "2999-01-01T00:00:00Z"}'
    )
    program.write_text(content)
    profile.write_text(f"[default]\ncredential_process = cat {program}\n")
    async with S3Store(behind) as store:
        await store.read(PATH)
        program.write_text("5")
        store._credentials._expiry_time = store._credentials._time_fetcher()
        with pytest.raises(StoreDeniedError, match="credential_process of the AWS profile"):
            await store.write(PATH, b"one", etag=None, **HOW)
    assert proxy.requests == ["GET"]


async def test_a_malformed_profile_is_named(behind: str, profile: Path) -> None:
    """The parser's own error is not shown."""
    profile.write_text("no section\n")
    async with S3Store(behind) as store:
        with pytest.raises(StoreSettingsError, match="the AWS profile"):
            await store.read(PATH)


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bundle_of_certificates_that_cannot_be_loaded_is_named(
    behind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    """The error does not claim that a connection broke."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    async with S3Store(behind) as store:
        for call in (store.read(PATH), store.write(PATH, b"one", etag=None, **HOW)):
            with pytest.raises(StoreSettingsError, match="AWS_CA_BUNDLE") as caught:
                await call
            assert str(bundle) in caught.value.detail


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:7070", "AWS_ENDPOINT_URL must be a URL"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:99999", "check keys.bucket and the AWS settings"),
        ("AWS_REGION", "not a region!", "AWS_REGION is not a region"),
    ],
)
async def test_a_malformed_setting_is_named(
    behind: str, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    """A write was certainly not applied."""
    monkeypatch.setenv(variable, value)
    async with S3Store(behind) as store:
        for call in (store.read(PATH), store.write(PATH, b"one", etag=None, **HOW)):
            with pytest.raises(StoreSettingsError, match=text):
                await call


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1:7070", "credentials belong in AWS_ACCESS_KEY_ID"),
        ("HTTP_PROXY", "http://127.0.0.1:1", "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
    ],
)
async def test_credentials_in_the_url_and_a_broken_proxy_are_named(
    behind: str, proxy: s3.FaultProxy, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, text: str
) -> None:
    """A write was certainly not applied, and no password is shown."""
    monkeypatch.setenv(variable, value)
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    async with S3Store(behind) as store:
        for call in (store.read(PATH), store.write(PATH, b"one", etag=None, **HOW)):
            with pytest.raises(StoreError, match=text) as caught:
                await call
            assert not isinstance(caught.value, StoreOutcomeUnknownError)
            assert "hidden" not in f"{caught.value.message} {caught.value.detail}"
        assert len(store._stack._exit_callbacks) == (store._client is not None), "a client is left behind"  # type: ignore[attr-defined]
    assert proxy.requests == []


async def test_an_untrusted_certificate_is_named(
    behind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is sent to such a server until its certificate is in AWS_CA_BUNDLE."""
    bundle = self_signed(tmp_path / "s3.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle)
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{port}")
        async with S3Store(behind) as store:
            with pytest.raises(StoreError, match="AWS_CA_BUNDLE") as caught:
                await store.write(PATH, b"one", etag=None, **HOW)
            assert not isinstance(caught.value, StoreOutcomeUnknownError)
        assert asked == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        async with S3Store(behind) as store:
            with pytest.raises(StoreOutcomeUnknownError):
                await store.write(PATH, b"one", etag=None, **HOW)
        assert len(asked) == 1


def self_signed(file: Path) -> Path:
    """Write a certificate for 127.0.0.1 with its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    certificate = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return file


async def test_a_write_sends_its_body_without_expect(store: S3Store, proxy: s3.FaultProxy) -> None:
    """Some servers never answer Expect: 100-continue."""
    await store.write(PATH, b"one", etag=None, **HOW)
    assert proxy.requests == ["PUT"]
    assert proxy.expected == 0


@pytest.mark.parametrize("how", ["reset before", "reset after"])
async def test_a_write_is_sent_once(store: S3Store, proxy: s3.FaultProxy, how: str) -> None:
    """A write that is repeated after it was applied would look like a lost race."""
    proxy.add("PUT", how)
    with pytest.raises(StoreOutcomeUnknownError):
        await store.write(PATH, b"one", etag=None, **HOW)
    assert proxy.requests == ["PUT"]


async def test_a_weak_etag_allows_reads_but_not_writes(store: S3Store, proxy: s3.FaultProxy) -> None:
    """It never matches If-Match (RFC 9110 section 8.8.3.2); tokens need only the read."""
    await store.write(PATH, b"one", etag=None, **HOW)
    proxy.add("GET", "fields", fields=b'ETag: W/"e"\r\n')
    stored = await store.read(PATH)
    assert stored is not None
    with pytest.raises(UnconditionalStoreError, match="weak ETag"):
        await store.write(PATH, b"two", etag=stored.etag, **HOW)
    assert proxy.requests == ["PUT", "GET"]


async def test_a_body_too_long_says_what_to_do(store: S3Store, moto: str, behind: str) -> None:
    """The message is that of other documents that cannot be a JWKS."""
    s3.client(moto).put_object(Bucket=behind, Key=PATH, Body=b" " * 1_100_000)
    with pytest.raises(ForeignDocumentError, match=r"delete it, or set keys\.keyPath to another"):
        await store.read(PATH)


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("GET", 200, ForeignDocumentError),
        ("GET", 500, StoreError),
        ("PUT", 200, StoreOutcomeUnknownError),
        ("PUT", 500, StoreOutcomeUnknownError),
    ],
)
async def test_an_endless_answer_is_cut_off(
    store: S3Store, proxy: s3.FaultProxy, method: str, status: int, error: type[StoreError]
) -> None:
    """It is cut off at 1 MiB; the proxy may have sent more into the connection's buffers."""
    proxy.add(method, "endless", status=status)
    with pytest.raises(StoreError) as caught:
        await (store.read(PATH) if method == "GET" else store.write(PATH, b"one", etag=None, **HOW))
    assert type(caught.value) is error
    assert 1_000_000 < proxy.sent < 20_000_000
