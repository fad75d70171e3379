"""S3Store: documents in an S3 bucket, changed by conditional writes."""

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
    StoreMissingError,
    UnconditionalStoreError,
)
from tailbone.jwks import s3_errors
from tailbone.jwks.store import ANY_CONTENT, LARGEST, Stored

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

_CONNECT_S: Final = 4.0
_READ_S: Final = 8.0
_COMPRESSED: Final = ("gzip", "br", "deflate", "zstd")
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CHECKSUMS: Final = ("request_checksum_calculation", "response_checksum_validation")
_ANY_REGION: Final = "any-region-1"
_HERE: Final = "127.0.0.1"
_SPELLINGS_OF_HERE: Final = ("localhost", "::1")
_PORTS: Final = {"http": 80, "https": 443}
_MAY_BE_SENT: Final = ContextVar("_MAY_BE_SENT", default=False)
"""Whether this task's call has reached the network: before that, no write can have been taken."""


class S3Store:
    """A bucket, reached through the AWS default chain.

    Making the client for it takes most of half a second: it is made when first needed, in a thread as far as
    possible.
    """

    def __init__(self, bucket: str) -> None:
        """Read the AWS settings; nothing is sent yet.

        Raises:
            ConfigError: the server's address names the bucket, too.
        """
        endpoint = _endpoint()
        _check_endpoint(endpoint, bucket)
        self.place = f"s3://{bucket}" + (f" at {normalised(endpoint)}" if endpoint else "")
        self._bucket = bucket
        self._is_custom = bool(endpoint)
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
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
            raise StoreMissingError(f"{where} came without an ETag: is AWS_ENDPOINT_URL an S3 server?")
        return Stored(data=data, etag=etag)

    async def write(
        self, path: str, data: bytes, *, etag: str | None, content_type: str, cache_control: str
    ) -> str:
        """See ``Store.write``."""
        if etag and etag.startswith("W/"):
            raise UnconditionalStoreError(
                f"s3://{self._bucket}/{path} came with a weak ETag, under which nothing can be written: "
                "remove the proxy that makes it, or set keys.conditionalWrites = false if this is the only "
                "writer"
            )
        condition = {} if etag == ANY_CONTENT else {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        client = await self._connected()
        try:
            answer = await client.put_object(
                Bucket=self._bucket,
                Key=path,
                Body=data,
                ContentType=content_type,
                CacheControl=cache_control,
                **condition,
            )
            self._refuse_redirect(answer)
        except StoreError:
            raise
        except Exception as error:
            gone = StoreConflictError(f"s3://{self._bucket}/{path} was deleted by another writer")
            raise self._failure(error, path, writing=True) or gone from error
        return str(answer.get("ETag", ""))

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed = True
        self._client = None
        await self._stack.aclose()

    async def _connected(self) -> Any:
        """Return the client, with credentials that hold for the next call.

        Raises:
            StoreError: it cannot be made; nothing was sent to the bucket.
        """
        _MAY_BE_SENT.set(False)
        async with self._making:
            if self._closed:
                raise StoreError("the store is closed")
            if self._client is None:
                try:
                    self._client = await self._connect()
                except StoreError:
                    raise
                except Exception as error:
                    raise s3_errors.not_made(error) from error
            client, credentials = self._client, self._credentials
        # Renewed here and not when the call is signed: a failure there looks like any other.
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
        async with AsyncExitStack() as made:
            creating = session.create_client("s3", config=_config(session, is_custom=self._is_custom))
            try:
                client = await made.enter_async_context(creating)
            except OSError as error:
                raise s3_errors.no_certificates(error, session.get_config_variable("ca_bundle")) from error
            if "@" in urlsplit(client.meta.endpoint_url).netloc:
                raise StoreMissingError(
                    "AWS_ENDPOINT_URL contains a user name: credentials belong in AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY"
                )
            client.meta.events.register_last("before-call.s3", _stay)
            client.meta.events.register_last("before-call.s3", _send_at_once)
            self._stack = made.pop_all()
        return client

    def _failure(self, error: Exception, path: str, *, writing: bool) -> StoreError | None:
        """What a failed call means; None when there certainly is no such object."""
        from botocore.exceptions import ClientError

        sent = _MAY_BE_SENT.get()
        if not isinstance(error, ClientError):
            return s3_errors.unanswered(error, f"s3://{self._bucket}/{path}", writing=writing, sent=sent)
        if not sent:
            return s3_errors.no_credentials(error, by_process=False)
        detail = s3_errors.detail_of(error)
        return s3_errors.refusal(error.response, self._bucket, path, writing=writing, detail=detail)

    def _refuse_redirect(self, answer: Any) -> None:
        """Raise for a redirect that botocore takes for a success, as it does 300."""
        failure = s3_errors.redirect(answer, self._bucket, detail="not an error to botocore")
        if failure is not None:
            raise failure


async def _read_whole(body: Any, where: str) -> bytes:
    async with body:
        try:
            data: bytes = await body.read()
        except _TooLongError as error:
            raise ForeignDocumentError(
                f"{where} is longer than {LARGEST} bytes, too long for a JWKS; it is left as it is: delete "
                "it, or set keys.keyPath to another"
            ) from error
        return data


def normalised(endpoint: str) -> str:
    """Spell a server's URL in one way, without user and password; any other text stays as it is."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
    except ValueError:
        return endpoint
    if not url.scheme or not host:
        return endpoint.rstrip("/")
    host = _HERE if host in _SPELLINGS_OF_HERE else f"[{host}]" if ":" in host else host
    shown = f":{port}" if port is not None and port != _PORTS.get(url.scheme) else ""
    return f"{url.scheme}://{host}{shown}{url.path.rstrip('/')}"


def _endpoint() -> str:
    """The configured URL of the S3 server; "" for AWS's own.

    A client that has no credentials and is never used says where it would go. Its region is not a real one:
    a host that follows the region is AWS's own.
    """
    import botocore.session
    from botocore.exceptions import BotoCoreError

    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    try:
        client = session.create_client(
            "s3",
            region_name=_ANY_REGION,
            # Given, so that none are looked for.
            aws_access_key_id="none",
            aws_secret_access_key="none",  # noqa: S106 -- not a secret
        )
    except (BotoCoreError, ValueError, OSError):
        # The first call says what is wrong with these settings.
        return next(filter(None, map(os.environ.get, _ENDPOINT_VARIABLES)), "")
    url: str = client.meta.endpoint_url
    client.close()
    return "" if f".{_ANY_REGION}." in url else url


def _check_endpoint(endpoint: str, bucket: str) -> None:
    """Raise ConfigError for a URL that names the bucket: it would be named twice in each request."""
    try:
        url = urlsplit(endpoint)
        named = (url.hostname or "").startswith(f"{bucket}.") or bucket in url.path.split("/")
    except ValueError:
        return
    if named:
        raise ConfigError(
            f"AWS_ENDPOINT_URL names the bucket {bucket}, too: give the address of the S3 server without it"
        )


@functools.cache
def _loader() -> Any:
    """The reader of botocore's descriptions of services, which are megabytes, read once."""
    from botocore.loaders import create_loader

    return create_loader()


async def _credentials(session: Any) -> Any:
    """The session's credentials, which may have to be renewed before a call.

    Raises:
        StoreError: there are none.
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

    # Older S3 servers refuse the checksums that AWS requires by now; what the user has set wins.
    profile = session.get_scoped_config()
    checksums = {
        name: "when_required"
        for name in _CHECKSUMS
        if is_custom and not (os.environ.get(f"AWS_{name.upper()}") or profile.get(name))
    }
    return AioConfig(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        # The publisher tries again itself: it reads before each write.
        retries={"total_max_attempts": 1},
        max_pool_connections=4,
        http_session_cls=_http_session_class(),
        **checksums,
    )


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Mark the call as redirected already, so that botocore does not look for another region.

    What it sends elsewhere is signed with our credentials, and without a region in the answer it asks for
    one until the stack is full.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Send a few kilobytes without asking first (Expect: 100-continue): some servers never answer that."""
    params["headers"].pop("Expect", None)


class _TooLongError(Exception):
    """An answer is longer than any answer of interest."""


@functools.cache
def _http_session_class() -> Any:
    """The HTTP client: httpx, which follows no redirect and sends no request twice."""
    import httpx2
    from aiobotocore.httpxsession import HttpxSession

    class Cut(httpx2.AsyncByteStream):
        """The bytes of an answer up to ``LARGEST``."""

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

    class CutSession(HttpxSession):  # type: ignore[misc]
        """Notes that a request may be sent, and cuts its answer."""

        async def send(self, request: Any) -> Any:
            _MAY_BE_SENT.set(True)
            # Else the whole answer is read in there.
            request.stream_output = True
            answer = await super().send(request)
            answer.raw.stream = Cut(answer.raw.stream)
            return answer

    return CutSession
