"""S3Store: documents in an S3 bucket, by conditional writes."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from tailbone.errors import (
    ForeignDocumentError,
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreMissingError,
    StoreOutcomeUnknownError,
    UnconditionalStoreError,
)
from tailbone.jwks.store import ANY_CONTENT, Stored

if TYPE_CHECKING:
    from types import TracebackType

    from botocore.exceptions import ClientError
    from botocore.exceptions import ConnectionError as BotoConnectionError

_CONNECT_S: Final = 4.0
_READ_S: Final = 8.0
_LARGEST: Final = 1024 * 1024
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_LOST_RACE: Final = (409, 412)
_BUSY: Final = (429, 503)
_SERVER_ERRORS: Final = 500
_NOT_IMPLEMENTED: Final = 501
_ENDPOINT_MEMBERS: Final = ("endpoint_url", "services")
_ENDPOINT_VARIABLES: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CREDENTIAL_CODES: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_REGION_CODES: Final = frozenset(
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect", "301"}
)


class S3Store:
    """A bucket, reached by the AWS default chain; the client is made when it is first needed.

    Importing and making the client is most of half a second: it is done in a thread where that is possible.
    """

    def __init__(self, bucket: str) -> None:
        """Take the bucket's name; nothing is asked of anybody yet."""
        endpoint = next(filter(None, map(os.environ.get, _ENDPOINT_VARIABLES)), "")
        self.place = f"s3://{bucket}" + (f" at {endpoint.rstrip('/')}" if endpoint else "")
        self._bucket = bucket
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
        self._client: Any = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def read(self, path: str) -> Stored | None:
        """See ``Store.read``."""
        try:
            client = await self._connected()
            answer = await client.get_object(Bucket=self._bucket, Key=path)
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
            raise ForeignDocumentError(f"s3://{self._bucket}/{path} is longer than {_LARGEST} bytes")
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
        condition = {} if etag == ANY_CONTENT else {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            client = await self._connected()
            answer = await client.put_object(
                Bucket=self._bucket,
                Key=path,
                Body=data,
                ContentType=content_type,
                CacheControl=cache_control,
                **condition,
            )
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
        async with self._making:
            if self._closed:
                raise StoreError("the store is closed")
            if self._client is None:
                session = await asyncio.to_thread(_session)
                self._client = await self._stack.enter_async_context(
                    session.create_client(
                        "s3", region_name=os.environ.get("AWS_REGION"), config=_config(session)
                    )
                )
            return self._client

    def _failure(self, error: Exception, path: str, *, writing: bool) -> StoreError | None:
        """What a failed call means; None when there certainly is no such object."""
        from botocore.exceptions import ClientError

        if isinstance(error, ClientError):
            return _answered(error, self._bucket, path, writing=writing)
        return _unanswered(error, self._bucket, path, writing=writing)


def _unanswered(error: Exception, bucket: str, path: str, *, writing: bool) -> StoreError:
    """A call without an answer; what is no failure of the call is raised again."""
    import aiohttp
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    no_credentials = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.ProfileNotFound,
        boto.TokenRetrievalError,
        boto.MetadataRetrievalError,
    )
    broke = (
        boto.ConnectionError,
        boto.HTTPClientError,
        boto.IncompleteReadError,
        ResponseParserError,
        aiohttp.ClientError,
        OSError,
        TimeoutError,
    )
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, no_credentials):
        return StoreDeniedError(
            "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give the machine a role",
            detail=detail,
        )
    if isinstance(error, boto.ConnectionError) and not _was_sent(error):
        return StoreError(
            "S3 cannot be reached: look at the network, AWS_ENDPOINT_URL and the region", detail=detail
        )
    if isinstance(error, broke):
        if writing:
            return StoreOutcomeUnknownError(
                "the connection to S3 broke during a write; a later read will tell whether it was taken",
                detail=detail,
            )
        return StoreError("the connection to S3 broke during a read", detail=detail)
    if isinstance(error, boto.BotoCoreError):
        return StoreMissingError(
            f"S3 cannot be asked for s3://{bucket}/{path}: look at keys.bucket and the AWS settings",
            detail=detail,
        )
    if isinstance(error, ValueError):
        return StoreMissingError(
            "the AWS settings are no addresses: AWS_ENDPOINT_URL is a URL, such as http://127.0.0.1:7070",
            detail=detail,
        )
    raise error


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


def _answered(error: ClientError, bucket: str, path: str, *, writing: bool) -> StoreError | None:
    """An answer that is an error; None when there certainly is no such object."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code: str = error.response.get("Error", {}).get("Code", "")
    where = f"s3://{bucket}/{path}"
    detail = f"{type(error).__name__}: {error}"
    if status == _NOT_FOUND and code == "NoSuchKey":
        return None
    if writing and (status in _LOST_RACE or code in {"PreconditionFailed", "ConditionalRequestConflict"}):
        return StoreConflictError(f"{where} was changed by somebody else", detail=detail)
    if status in _BUSY or code in {"SlowDown", "ServiceUnavailable"}:
        return StoreError("S3 is busy and asks to slow down", detail=detail)
    if code == "NoSuchBucket":
        return StoreMissingError(f"there is no bucket {bucket}: make it, or mend keys.bucket", detail=detail)
    if code in _CREDENTIAL_CODES:
        return StoreDeniedError("S3 refuses the AWS credentials: wrong, or expired", detail=detail)
    if code == "RequestTimeTooSkewed":
        return StoreDeniedError("S3 refuses the request: this machine's clock is wrong", detail=detail)
    if status == _FORBIDDEN:
        return StoreDeniedError(_forbidden(where, bucket, writing=writing), detail=detail)
    if code in _REGION_CODES:
        return StoreMissingError(f"bucket {bucket} is in another region: set AWS_REGION", detail=detail)
    if writing and (status == _NOT_IMPLEMENTED or code == "NotImplemented"):
        return UnconditionalStoreError(
            "the store knows no conditional writes: use one that does, "
            "or set keys.conditionalWrites = false if this is the only writer",
            detail=detail,
        )
    if status >= _SERVER_ERRORS and writing:
        return StoreOutcomeUnknownError(
            f"S3 answered a write with {status}; a later read will tell whether it was taken", detail=detail
        )
    if status >= _SERVER_ERRORS:
        return StoreError(f"S3 answered {status}", detail=detail)
    return StoreMissingError(
        f"S3 answered {status} for {where}: is AWS_ENDPOINT_URL an S3 server, and keys.bucket right?",
        detail=detail,
    )


def _forbidden(where: str, bucket: str, *, writing: bool) -> str:
    if writing:
        return f"S3 forbids writing {where}: grant s3:PutObject on it"
    # AWS hides whether an object exists from those who may not list the bucket.
    return (
        f"S3 forbids reading {where}: either s3:GetObject on it is missing: grant it; or there is no such "
        f"object yet, and S3 does not say so without s3:ListBucket on {bucket}: grant that, "
        'or upload a first object {"keys":[]}'
    )


def _session() -> Any:
    from aiobotocore.session import get_session

    session = get_session()
    # Reads the megabytes that describe the service here, in a thread, instead of on the event loop.
    loader = session.get_component("data_loader")
    loader.load_service_model("s3", "service-2")
    loader.load_service_model("s3", "endpoint-rule-set-1")
    loader.load_data("partitions")
    loader.load_data("sdk-default-configuration")
    asyncio.run(session.get_available_regions("s3"))
    return session


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
        **checksums,
    )
