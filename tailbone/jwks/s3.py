"""The store of S3 buckets: documents are changed by conditional writes."""

from __future__ import annotations

import asyncio
import functools
import os
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from tailbone.errors import (
    ConfigError,
    ForeignDocumentError,
    StoreConflictError,
    StoreError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks import s3_errors
from tailbone.jwks.store import LARGEST, Stored
from tailbone.text import bracketed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

_CONNECT_S: Final = 4.0
_READ_S: Final = 8.0
_COMPRESSED: Final = ("gzip", "br", "deflate", "zstd")
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CHECKSUMS: Final = ("request_checksum_calculation", "response_checksum_validation")
_ANY_REGION: Final = "any-region-1"
_LOOPBACK: Final = "127.0.0.1"
_LOOPBACK_NAMES: Final = ("localhost", "::1")
_PORTS: Final = {"http": 80, "https": 443}
_MAY_BE_SENT: Final = ContextVar("_MAY_BE_SENT", default=False)
"""Whether this task's call may have reached the network: before that, no write can have been applied."""


class S3Store:
    """A bucket, with settings and credentials from the AWS default chain.

    Creating the client takes almost half a second, so this happens on first use, in a thread as far as
    possible.
    """

    def __init__(self, bucket: str) -> None:
        """Read the AWS settings. Nothing is sent yet.

        Raises:
            ConfigError: the server's address also names the bucket.
        """
        endpoint = _endpoint()
        _check_endpoint(endpoint, bucket)
        self.location = f"s3://{bucket}" + (f" at {normalised(endpoint)}" if endpoint else "")
        self._bucket = bucket
        self._is_custom = bool(endpoint)
        self._stack = AsyncExitStack()
        self._creating = asyncio.Lock()
        self._client: Any = None
        self._credentials: Any = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""
        where = f"s3://{self._bucket}/{path}"
        client = await self._connected()
        try:
            answer = await client.get_object(Bucket=self._bucket, Key=path)
            self._refuse_redirect(answer)
            data = await _read_whole(answer["Body"], where)
        except StoreError:
            raise
        except Exception as error:
            failure = self._failure(error, path, writing=False)
            if failure is None:
                return None
            raise failure from error
        if (coding := str(answer.get("ContentEncoding", "")).lower()) in _COMPRESSED:
            raise ForeignDocumentError(
                f"{where} is stored with the Content-Encoding {coding}: store it without one"
            )
        etag = answer.get("ETag")
        if not etag:
            raise StoreSettingsError(f"{where} came without an ETag: is AWS_ENDPOINT_URL an S3 server?")
        fields = answer["ResponseMetadata"].get("HTTPHeaders", {})
        return Stored(
            data=data,
            etag=etag,
            content_type=answer.get("ContentType", ""),
            date=fields.get("date", ""),
        )

    async def write(
        self,
        path: str,
        data: bytes,
        *,
        etag: str | None,
        conditional: bool = True,
        content_type: str,
        cache_control: str,
    ) -> None:
        """See ``Store.write``."""
        if conditional and etag and etag.startswith("W/"):
            raise UnconditionalStoreError(
                f"s3://{self._bucket}/{path} came with a weak ETag, which does not allow conditional writes: "
                "remove the proxy that weakens it, or set keys.conditionalWrites = false if this is the only "
                "writer"
            )
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        client = await self._connected()
        try:
            answer = await client.put_object(
                Bucket=self._bucket,
                Key=path,
                Body=data,
                ContentType=content_type,
                CacheControl=cache_control,
                **(condition if conditional else {}),
            )
            self._refuse_redirect(answer)
        except StoreError:
            raise
        except Exception as error:
            gone = StoreConflictError(f"s3://{self._bucket}/{path} was deleted by another writer")
            raise self._failure(error, path, writing=True) or gone from error

    async def url(self, path: str) -> str:
        """Return the URL at which an object can be read without credentials, if its bucket allows that.

        Raises:
            StoreError: the client cannot be created.
        """
        client = await self._connected()
        signed = await client.generate_presigned_url("get_object", {"Bucket": self._bucket, "Key": path})
        return str(signed).partition("?")[0]

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed = True
        self._client = None
        await self._stack.aclose()

    async def _connected(self) -> Any:
        """Return the client, with credentials that are valid for the next call.

        Raises:
            StoreError: the client cannot be created. Nothing was sent to the bucket.
        """
        _MAY_BE_SENT.set(False)
        async with self._creating:
            if self._closed:
                raise StoreError("the store is closed")
            if self._client is None:
                try:
                    self._client = await self._connect()
                except StoreError:
                    raise
                except Exception as error:
                    raise s3_errors.not_created(error) from error
            client, credentials = self._client, self._credentials
        # Renew credentials here, since a failure while the call is signed would look like any other.
        try:
            await credentials.get_frozen_credentials()
        except Exception as error:
            raise s3_errors.no_credentials(
                error, by_process=credentials.method == "custom-process"
            ) from error
        return client

    async def _connect(self) -> Any:
        session = await asyncio.to_thread(_session)
        self._credentials = await _credentials(session)
        async with AsyncExitStack() as stack:
            creating = session.create_client("s3", config=_config(session, is_custom=self._is_custom))
            try:
                client = await stack.enter_async_context(creating)
            except OSError as error:
                raise s3_errors.no_certificates(error, session.get_config_variable("ca_bundle")) from error
            if "@" in urlsplit(client.meta.endpoint_url).netloc:
                raise StoreSettingsError(
                    "AWS_ENDPOINT_URL contains a user name: credentials belong in AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY"
                )
            client.meta.events.register_last("before-call.s3", _prevent_redirect)
            client.meta.events.register_last("before-call.s3", _remove_expect)
            self._stack = stack.pop_all()
        return client

    def _failure(self, error: Exception, path: str, *, writing: bool) -> StoreError | None:
        """Return the error for a failed call; None if the object certainly does not exist."""
        from botocore.exceptions import ClientError

        sent = _MAY_BE_SENT.get()
        if not isinstance(error, ClientError):
            return s3_errors.unanswered(error, f"s3://{self._bucket}/{path}", writing=writing, sent=sent)
        if not sent:
            return s3_errors.no_credentials(error, by_process=False)
        detail = s3_errors.detail_of(error)
        return s3_errors.refusal(error.response, self._bucket, path, writing=writing, detail=detail)

    def _refuse_redirect(self, answer: Any) -> None:
        """Raise an error for a redirect that botocore treats as a success, such as 300."""
        failure = s3_errors.redirect(answer, self._bucket, detail="not an error to botocore")
        if failure is not None:
            raise failure


async def _read_whole(body: Any, where: str) -> bytes:
    async with body:
        try:
            data: bytes = await body.read()
        except _TooLongError as error:
            raise ForeignDocumentError(
                f"{where} is longer than {LARGEST} bytes, so it cannot be a JWKS; it is left as it is: "
                "delete it, or set keys.keyPath to another"
            ) from error
        return data


def normalised(endpoint: str) -> str:
    """Normalise a server's URL, without user and password; return any other text unchanged."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
    except ValueError:
        return endpoint
    if not url.scheme or not host:
        return endpoint.rstrip("/")
    host = _LOOPBACK if host in _LOOPBACK_NAMES else bracketed(host)
    shown = f":{port}" if port is not None and port != _PORTS.get(url.scheme) else ""
    return f"{url.scheme}://{host}{shown}{url.path.rstrip('/')}"


def _endpoint() -> str:
    """Return the configured URL of the S3 server; "" for AWS.

    It is the endpoint of a client that has no credentials and is never used. The client's region does not
    exist: an endpoint whose host contains it is AWS.
    """
    import botocore.session
    from botocore.exceptions import BotoCoreError

    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    try:
        client = session.create_client(
            "s3",
            region_name=_ANY_REGION,
            # Set, so that botocore does not search for credentials.
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 -- not a secret
        )
    except (BotoCoreError, ValueError, OSError):
        # The first call reports what is wrong with these settings.
        return next(filter(None, map(os.environ.get, _ENDPOINT_VARIABLES)), "")
    url: str = client.meta.endpoint_url
    client.close()
    return "" if f".{_ANY_REGION}." in url else url


def _check_endpoint(endpoint: str, bucket: str) -> None:
    """Raise ConfigError for a URL that names the bucket, since each request would name it twice."""
    try:
        url = urlsplit(endpoint)
        named = (url.hostname or "").startswith(f"{bucket}.") or bucket in url.path.split("/")
    except ValueError:
        return
    if named:
        raise ConfigError(
            f"AWS_ENDPOINT_URL also names the bucket {bucket}: set the address of the S3 server without it"
        )


@functools.cache
def _loader() -> Any:
    """Return botocore's loader of service descriptions, which are megabytes, so that they are read once."""
    from botocore.loaders import create_loader

    return create_loader()


async def _credentials(session: Any) -> Any:
    """Return the session's credentials, which may have to be renewed before a call.

    Raises:
        StoreError: there are no credentials.
    """
    from botocore.exceptions import NoCredentialsError

    by_process = "credential_process" in session.get_scoped_config()
    try:
        credentials = await session.get_credentials()
    except Exception as error:
        raise s3_errors.no_credentials(error, by_process=by_process) from error
    if credentials is None:
        raise s3_errors.no_credentials(NoCredentialsError(), by_process=False)
    return credentials


def _session() -> Any:
    from aiobotocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _loader())
    if region := os.environ.get("AWS_REGION"):
        # botocore alone reads only AWS_DEFAULT_REGION.
        session.set_config_variable("region", region)
    return session


def _config(session: Any, *, is_custom: bool) -> Any:
    from aiobotocore.config import AioConfig

    # Older S3 servers refuse the checksums that AWS now requires. The user's own settings win.
    profile = session.get_scoped_config()
    checksums = {
        name: "when_required"
        for name in _CHECKSUMS
        if is_custom and not (os.environ.get(f"AWS_{name.upper()}") or profile.get(name))
    }
    return AioConfig(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        # The publisher retries by itself, since it must read before each write.
        retries={"total_max_attempts": 1},
        max_pool_connections=4,
        http_session_cls=_http_session_class(),
        **checksums,
    )


def _prevent_redirect(context: dict[str, Any], **_: Any) -> None:
    """Mark the call as already redirected, so that botocore does not look for another region.

    It would sign the redirected request with our credentials, and recurse without end if an answer names no
    region.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _remove_expect(params: dict[str, Any], **_: Any) -> None:
    """Send the body without Expect: 100-continue, which some servers never answer."""
    params["headers"].pop("Expect", None)


class _TooLongError(Exception):
    """An answer is longer than ``LARGEST``."""


@functools.cache
def _http_session_class() -> Any:
    """Return the HTTP client's class: httpx, which follows no redirect and sends no request twice."""
    import httpx2
    from aiobotocore.httpxsession import HttpxSession

    class LimitedStream(httpx2.AsyncByteStream):
        """The bytes of an answer; an error after ``LARGEST``."""

        def __init__(self, whole: httpx2.AsyncByteStream) -> None:
            self._whole = whole

        async def __aiter__(self) -> AsyncIterator[bytes]:
            length = 0
            async for part in self._whole:
                length += len(part)
                if length > LARGEST:
                    raise _TooLongError(f"longer than {LARGEST} bytes")
                yield part

        async def aclose(self) -> None:
            await self._whole.aclose()

    class LimitedSession(HttpxSession):  # type: ignore[misc]
        """Records that a request may have been sent, and limits its answer."""

        async def send(self, request: Any) -> Any:
            _MAY_BE_SENT.set(True)
            # Otherwise super() would read the whole answer.
            request.stream_output = True
            answer = await super().send(request)
            answer.raw.stream = LimitedStream(answer.raw.stream)
            return answer

    return LimitedSession
