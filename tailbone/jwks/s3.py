"""S3Store: documents in an S3 bucket, by conditional writes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from tailbone.errors import (
    ForeignDocumentError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreMissingError,
    StoreOutcomeUnknownError,
    UnconditionalStoreError,
)
from tailbone.jwks.s3_answers import redirect, refusal
from tailbone.jwks.s3_place import place_of
from tailbone.jwks.store import ANY_CONTENT, Stored

if TYPE_CHECKING:
    from types import TracebackType

    from botocore.exceptions import ConnectionError as BotoConnectionError

_CONNECT_S: Final = 4.0
_READ_S: Final = 8.0
_LARGEST: Final = 1024 * 1024
_SERVER_ERRORS: Final = 500
_COMPRESSED: Final = ("gzip", "br", "deflate", "zstd")
_ENDPOINT_MEMBERS: Final = ("endpoint_url", "services")
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_MAY_BE_SENT: Final = ContextVar("_MAY_BE_SENT", default=False)
"""Whether this task's call has come as far as the network: before that, no write can have been taken."""


class S3Store:
    """A bucket, reached by the AWS default chain; the client is made when it is first needed.

    Importing and making the client is most of half a second: it is done in a thread where that is possible.
    """

    def __init__(self, bucket: str) -> None:
        """Take the bucket's name; nothing is asked of anybody yet."""
        self.place = place_of(bucket, os.environ)
        self._bucket = bucket
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
        client = await self._connected()
        try:
            answer = await client.get_object(Bucket=self._bucket, Key=path)
            self._refuse_redirect(answer)
            async with answer["Body"] as body:
                data = await _read_whole(body)
        except StoreError:
            raise
        except Exception as error:
            failure = self._failure(error, path, writing=False)
            if failure is None:
                return None
            raise failure from error
        if len(data) > _LARGEST:
            raise ForeignDocumentError(
                f"s3://{self._bucket}/{path} is longer than {_LARGEST} bytes: no JWKS is; it is left as it "
                "is: delete it, or set keys.keyPath to another"
            )
        if (coding := str(answer.get("ContentEncoding", "")).lower()) in _COMPRESSED:
            raise ForeignDocumentError(
                f"s3://{self._bucket}/{path} is stored with the Content-Encoding {coding}: store it as it is"
            )
        etag = answer.get("ETag")
        if not etag:
            raise StoreMissingError(
                f"s3://{self._bucket}/{path} came without an ETag: is AWS_ENDPOINT_URL an S3 server?"
            )
        return Stored(data=data, etag=etag)

    async def write(
        self, path: str, data: bytes, *, etag: str | None, content_type: str, cache_control: str
    ) -> str:
        """See ``Store.write``."""
        if etag and etag.startswith("W/"):
            raise UnconditionalStoreError(
                f"s3://{self._bucket}/{path} came with a weak ETag, under which nothing can be written: take "
                "the proxy that makes it out of the way, or set keys.conditionalWrites = false if this is "
                "the only writer"
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
            gone = StoreConflictError(f"s3://{self._bucket}/{path} was deleted by somebody else")
            raise self._failure(error, path, writing=True) or gone from error
        return str(answer.get("ETag", ""))

    async def close(self) -> None:
        """See ``Store.close``."""
        self._closed = True
        self._client = None
        await self._stack.aclose()

    async def _connected(self) -> Any:
        """The client, with credentials that hold for the next call; all that fails here is a StoreError."""
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
                    raise _unmade(error) from error
            client, credentials = self._client, self._credentials
        # Here, and not when the call is signed: what fails then could be anything.
        await _fresh(credentials)
        return client

    async def _connect(self) -> Any:
        session = await asyncio.to_thread(_session)
        self._credentials = await _credentials(session)
        async with AsyncExitStack() as made:
            client = await made.enter_async_context(session.create_client("s3", config=_config(session)))
            if "@" in urlsplit(client.meta.endpoint_url).netloc:
                raise StoreMissingError(
                    "AWS_ENDPOINT_URL holds a user name: credentials are AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY"
                )
            # After botocore's own for these: of one event's, the last comes last.
            client.meta.events.register_last("before-call.s3", _stay)
            client.meta.events.register_last("before-call.s3", _send_at_once)
            self._stack = made.pop_all()
        return client

    def _failure(self, error: Exception, path: str, *, writing: bool) -> StoreError | None:
        """What a failed call means; None when there certainly is no such object."""
        from botocore.exceptions import ClientError

        if not isinstance(error, ClientError):
            return _unanswered(error, f"s3://{self._bucket}/{path}", writing=writing)
        if not _MAY_BE_SENT.get():
            return _no_credentials(error, by_process=False)
        return refusal(error.response, self._bucket, path, writing=writing, detail=_detail(error))

    def _refuse_redirect(self, answer: Any) -> None:
        """Raise for a redirect that botocore takes for a success, as it does 300."""
        failure = redirect(answer, self._bucket, detail="no error, as botocore has it")
        if failure is not None:
            raise failure


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Tell botocore that this call was redirected already, so that it does not look for another region.

    What it would send elsewhere is signed with our credentials, and without a region in the answer it asks
    for one until the stack is full.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Do not ask (Expect: 100-continue) before a few kilobytes are sent: some servers never answer that."""
    params["headers"].pop("Expect", None)


def _unmade(error: Exception) -> StoreError:
    """No client could be made; nothing was sent to S3."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        return _no_credentials(error, by_process=False)
    if isinstance(error, boto.InvalidRegionError):
        return StoreMissingError("AWS_REGION is no region, such as eu-north-1", detail=_detail(error))
    if isinstance(error, ValueError):
        return StoreMissingError(
            "the AWS settings are no addresses: AWS_ENDPOINT_URL is a URL, such as http://127.0.0.1:7070",
            detail=_detail(error),
        )
    return StoreMissingError(
        "S3 cannot be asked with these AWS settings: look at the AWS variables and the AWS profile",
        detail=_detail(error),
    )


def _no_credentials(error: Exception, *, by_process: bool) -> StoreError:
    """There are no credentials to call S3 with; ``by_process``: the profile names a program for them."""
    import aiohttp
    from botocore import exceptions as boto

    detail = _detail(error)
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= _SERVER_ERRORS:
            return StoreError(f"the service that gives the AWS credentials answered {status}", detail=detail)
        return StoreDeniedError(
            "AWS refuses to give credentials: look at the AWS profile, its role and who may take it",
            detail=detail,
        )
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | aiohttp.ClientError | TimeoutError):
        return StoreError(
            "the service that gives the AWS credentials cannot be reached: look at the network and the AWS "
            "profile",
            detail=detail,
        )
    if by_process:
        return StoreDeniedError(
            "the credential_process of the AWS profile gave no credentials: it names a program that exists "
            "and prints them as JSON",
            detail=detail,
        )
    if isinstance(error, boto.BotoCoreError):
        return StoreDeniedError(
            "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give the machine a role",
            detail=detail,
        )
    return StoreDeniedError(
        "the AWS credentials cannot be read: look at the AWS profile, and at the files and programs it names",
        detail=detail,
    )


def _unanswered(error: Exception, where: str, *, writing: bool) -> StoreError:
    """A call without an answer, or with one that cannot be understood."""
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    broke = (
        boto.ConnectionError,
        boto.HTTPClientError,
        boto.IncompleteReadError,
        ResponseParserError,
        aiohttp.ClientError,
        OSError,
        TimeoutError,
    )
    detail = _detail(error)
    if isinstance(error, boto.SSLError):
        return StoreError(
            "S3 cannot be reached by TLS: is AWS_ENDPOINT_URL right, and its certificate one that this "
            "machine or AWS_CA_BUNDLE knows?",
            detail=detail,
        )
    if isinstance(error, boto.ProxyConnectionError):
        return StoreError(
            "the proxy before S3 cannot be reached or refuses: look at HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
            detail=detail,
        )
    if isinstance(error, boto.ConnectionError) and not _was_sent(error):
        return StoreError(
            "S3 cannot be reached: look at the network, AWS_ENDPOINT_URL and the region", detail=detail
        )
    if not _MAY_BE_SENT.get():
        return StoreMissingError(
            f"S3 cannot be asked for {where}: look at keys.bucket and the AWS settings", detail=detail
        )
    what = "the connection to S3 broke during" if isinstance(error, broke) else "S3 gave no S3 answer to"
    if writing:
        return StoreOutcomeUnknownError(
            f"{what} a write; a later read will tell whether it was taken", detail=detail
        )
    if isinstance(error, broke):
        return StoreError(f"{what} a read", detail=detail)
    return StoreError(f"{what} a read of {where}: is AWS_ENDPOINT_URL an S3 server?", detail=detail)


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _was_sent(error: BotoConnectionError) -> bool:
    """Whether the request may have reached the server: a broken connection has the same class as none."""
    import aiohttp
    from botocore.exceptions import EndpointConnectionError

    if not isinstance(error, EndpointConnectionError):
        # Connecting took too long, the proxy refused, TLS failed.
        return False
    return not isinstance(error.kwargs.get("error"), (aiohttp.ClientConnectorError, socket.gaierror))


async def _read_whole(body: Any) -> bytes:
    """All of a body, but not much more than a JWKS can have."""
    data = b""
    while len(data) <= _LARGEST and (part := await body.read(_LARGEST)):
        data += part
    return data


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
        raise _no_credentials(error, by_process=by_process) from error
    if credentials is None:
        raise _no_credentials(NoCredentialsError(), by_process=False)
    return credentials


async def _fresh(credentials: Any) -> None:
    """Renew credentials that end soon.

    Raises:
        StoreError: that failed.
    """
    try:
        await credentials.get_frozen_credentials()
    except Exception as error:
        raise _no_credentials(error, by_process=credentials.method == "custom-process") from error


def _session() -> Any:
    from aiobotocore.session import get_session

    session = get_session()
    if region := os.environ.get("AWS_REGION"):
        # botocore alone knows only AWS_DEFAULT_REGION.
        session.set_config_variable("region", region)
    # Reads the megabytes that describe the service here, in a thread, instead of on the event loop.
    loader = session.get_component("data_loader")
    loader.load_service_model("s3", "service-2")
    loader.load_service_model("s3", "endpoint-rule-set-1")
    loader.load_data("partitions")
    loader.load_data("sdk-default-configuration")
    asyncio.run(session.get_available_regions("s3"))
    _check_certificates(session.get_config_variable("ca_bundle"))
    return session


def _check_certificates(file: Any) -> None:
    """Load the certificates of AWS_CA_BUNDLE as the first call would, which fails without a word of it.

    Raises:
        StoreMissingError: they cannot be loaded.
    """
    if not isinstance(file, str):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError as error:
        raise StoreMissingError(
            "AWS_CA_BUNDLE, or ca_bundle of the AWS profile, is no readable file of certificates (PEM): "
            "mend it, or unset it",
            detail=f"{file}: {_detail(error)}",
        ) from error


def _config(session: Any) -> Any:
    from aiobotocore.config import AioConfig

    profile = session.get_scoped_config()
    custom = any(map(os.environ.get, _ENDPOINT_VARIABLES)) or not profile.keys().isdisjoint(_ENDPOINT_MEMBERS)
    # Older S3 servers refuse the checksums that AWS's own have learnt since.
    checksums = (
        {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        if custom
        else {}
    )
    return AioConfig(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        # Tries are the publisher's: it reads again before each.
        retries={"total_max_attempts": 1},
        max_pool_connections=4,
        http_session_cls=_http_session_class(),
        **checksums,
    )


def _http_session_class() -> Any:
    from aiobotocore.httpsession import AIOHTTPSession

    class Unredirected(AIOHTTPSession):  # type: ignore[misc]
        """HTTP that notes when it begins to send, and goes to no other server than the one it is told."""

        async def _get_session(self, proxy_url: str | None) -> Any:
            return _NoRedirects(await super()._get_session(proxy_url))

    return Unredirected


class _NoRedirects:
    """An aiohttp session as aiobotocore uses it; alone it would send our session token to any Location.

    And it would send a write a second time when the connection breaks: what the first one did then comes
    back as a lost race.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        session._retry_connection = False  # noqa: SLF001 -- aiohttp has no public way

    async def request(self, method: str, **how: Any) -> Any:
        _MAY_BE_SENT.set(True)
        return await self._session.request(method, **how, allow_redirects=False)
