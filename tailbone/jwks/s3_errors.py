"""Turn a failed S3 call into a StoreError that says what to do."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from tailbone.errors import (
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.text import redact

_REDIRECTS: Final = frozenset(range(300, 400)) - {304}
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_LOST_RACE: Final = (409, 412)
_BAD_REQUEST: Final = 400
_BUSY: Final = (429, 503)
# A proxy timed out. The request that it forwarded may still be applied.
_GIVEN_UP: Final = (408, 460, 499)
_BUSY_CODES: Final = frozenset(
    {"RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "SlowDownRead", "Throttling"}
)
_NOT_WHOLE_CODES: Final = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"}
)
_SERVER_ERRORS: Final = 500
_NOT_IMPLEMENTED: Final = 501
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
    {"AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}
)
_REGION: Final = re.compile(r"[a-z]{2}[a-z0-9-]{1,30}")
_ACTION: Final = re.compile(r"not authorized to perform: ([a-z0-9-]{1,40}:[A-Za-z]{1,60})")
_OBJECT_ACTIONS: Final = frozenset({"s3:GetObject", "s3:ListBucket", "s3:PutObject"})
_LONGEST_WORDS: Final = 200
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,200}")


def detail_of(error: Exception) -> str:
    """Return an exception's class and text, for the log."""
    return f"{type(error).__name__}: {error}"


def refusal(
    answer: dict[str, Any], bucket: str, path: str, *, writing: bool, detail: str
) -> StoreError | None:
    """Return the error for an unsuccessful answer.

    Args:
        answer: the answer as botocore parses it: ``Error`` and ``ResponseMetadata``.
        bucket: the bucket that was asked.
        path: the path of the object.
        writing: whether the call was a write.
        detail: for the log.

    Returns:
        None if the object certainly does not exist.
    """
    status: int = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(answer.get("Error", {}).get("Code", ""))
    where = f"s3://{bucket}/{path}"
    if status == _NOT_FOUND and code == "NoSuchKey":
        return None
    if (elsewhere := redirect(answer, bucket, detail=detail)) is not None:
        return elsewhere
    if writing and (status in _LOST_RACE or code in {"PreconditionFailed", "ConditionalRequestConflict"}):
        return StoreConflictError(f"{where} was changed by another writer", detail=detail)
    # Only S3 itself can state that nothing was applied. A proxy may send such a status for a forwarded write.
    if code in _BUSY_CODES or (status in _BUSY and not writing):
        return StoreError("S3 is throttling requests", detail=detail)
    if status == _BAD_REQUEST and code in _NOT_WHOLE_CODES:
        return StoreError("S3 did not receive the whole request in time: check the network", detail=detail)
    if code == "NoSuchBucket":
        return StoreSettingsError(
            f"there is no bucket {bucket}: create it, or correct keys.bucket", detail=detail
        )
    if code in _CREDENTIAL_CODES:
        return StoreDeniedError("S3 refuses the AWS credentials: wrong, or expired", detail=detail)
    if code == "RequestTimeTooSkewed":
        return StoreDeniedError("S3 refuses the request: this machine's clock is wrong", detail=detail)
    if status == _FORBIDDEN:
        action = _ACTION.search(str(answer.get("Error", {}).get("Message", "")))
        return StoreDeniedError(
            _forbidden(where, bucket, action[1] if action else "", writing=writing), detail=detail
        )
    if writing and (status == _NOT_IMPLEMENTED or code == "NotImplemented"):
        return UnconditionalStoreError(
            "the store does not support conditional writes: use one that does, "
            "or set keys.conditionalWrites = false if this is the only writer",
            detail=detail,
        )
    passing = status >= _SERVER_ERRORS or status in _BUSY or status in _GIVEN_UP
    if passing and writing:
        return StoreOutcomeUnknownError(
            f"S3 answered a write with {status}; a later read will show whether it was applied", detail=detail
        )
    if passing:
        return StoreError(f"S3 answered {status}", detail=detail)
    if status == _NOT_FOUND and not writing:
        return StoreSettingsError(
            f"S3 answered 404 for {where}, without saying whether the object or something else is missing"
            f"{_words(answer)}: is AWS_ENDPOINT_URL an S3 server, and keys.bucket right? If both are, upload "
            'a first object {"keys":[]}',
            detail=detail,
        )
    if code:
        return StoreSettingsError(f"S3 answered {status} for {where}{_words(answer)}", detail=detail)
    return StoreSettingsError(
        f"S3 answered {status} for {where}: is AWS_ENDPOINT_URL an S3 server, and keys.bucket right?",
        detail=detail,
    )


def redirect(answer: dict[str, Any], bucket: str, *, detail: str) -> StoreSettingsError | None:
    """Return the error for an answer that redirects its caller; None for any other.

    Args:
        answer: as in ``refusal``.
        bucket: the bucket that was asked.
        detail: for the log.
    """
    metadata, error = answer.get("ResponseMetadata", {}), answer.get("Error", {})
    status: int = metadata.get("HTTPStatusCode", 0)
    in_region = error.get("Code") in _REGION_CODES
    if status not in _REDIRECTS and not in_region:
        return None
    fields = metadata.get("HTTPHeaders", {})
    # Shown only if they look like a region and a URL, since any server may have sent them.
    region = str(fields.get("x-amz-bucket-region") or error.get("Region") or "")
    target = _origin(str(fields.get("location", "")))
    if _REGION.fullmatch(region):
        message = f"bucket {bucket} is in another region: set AWS_REGION to {region}"
    elif in_region and not target:
        message = f"bucket {bucket} is in another region: set AWS_REGION"
    else:
        message = (
            f"S3 answered {status}, a redirect{target and ' to '}{target}, which is not followed: set "
            f"AWS_REGION to the region of bucket {bucket}, or AWS_ENDPOINT_URL to the S3 server's own address"
        )
    return StoreSettingsError(message, detail=detail)


def _origin(location: str) -> str:
    """Return scheme, host and port of a URL; "" for other text. The rest may contain a signature."""
    try:
        url = urlsplit(location)
        origin = f"{url.scheme}://{url.netloc.rpartition('@')[2]}"
    except ValueError:
        return ""
    return origin if _ORIGIN.fullmatch(origin) else ""


def _words(answer: dict[str, Any]) -> str:
    """Return the server's own message, made safe to show; "" if it has none."""
    error = answer.get("Error", {})
    message = redact(str(error.get("Message") or ""))[:_LONGEST_WORDS]
    if not message:
        return ""
    return f" ({message})" if message.isprintable() else f" ({message!a})"


def _forbidden(where: str, bucket: str, action: str, *, writing: bool) -> str:
    """Return the message for a 403; ``action`` is the missing permission that the server names, if any."""
    what = "writing" if writing else "reading"
    if action and action not in _OBJECT_ACTIONS:
        return f"S3 forbids {what} {where}: grant {action} to the AWS credentials in use"
    if writing:
        return f"S3 forbids writing {where}: grant s3:PutObject on it"
    # Without s3:ListBucket, AWS does not reveal whether an object exists.
    return (
        f"S3 forbids reading {where}: either s3:GetObject on it is missing: grant it; or there is no such "
        f"object yet, which S3 does not reveal without s3:ListBucket on {bucket}: grant that, "
        'or upload a first object {"keys":[]}'
    )


def not_created(error: Exception) -> StoreError:
    """Return the error for a client that could not be created. Nothing was sent to S3."""
    from botocore import exceptions as boto

    if isinstance(error, boto.ProfileNotFound):
        return no_credentials(error, by_process=False)
    if isinstance(error, boto.InvalidRegionError):
        return StoreSettingsError("AWS_REGION is not a region, such as eu-north-1", detail=detail_of(error))
    if isinstance(error, ValueError):
        return StoreSettingsError(
            "invalid AWS settings: AWS_ENDPOINT_URL must be a URL, such as http://127.0.0.1:7070",
            detail=detail_of(error),
        )
    return StoreSettingsError(
        "S3 cannot be used with these AWS settings: check the AWS variables and the AWS profile",
        detail=detail_of(error),
    )


def no_certificates(error: OSError, file: object) -> StoreError:
    """Return the error for trusted certificates that cannot be loaded."""
    return StoreSettingsError(
        "AWS_CA_BUNDLE, or ca_bundle of the AWS profile, is not a readable file of certificates (PEM): "
        "correct or unset it",
        detail=f"{file}: {detail_of(error)}",
    )


def no_credentials(error: Exception, *, by_process: bool) -> StoreError:
    """Return the error for missing credentials; ``by_process`` if the profile names a program for them."""
    import aiohttp
    from botocore import exceptions as boto

    detail = detail_of(error)
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= _SERVER_ERRORS:
            return StoreError(f"the service that issues AWS credentials answered {status}", detail=detail)
        return StoreDeniedError(
            "AWS refuses to issue credentials: check the AWS profile, its role and who may assume it",
            detail=detail,
        )
    if isinstance(error, boto.ConnectionError | boto.HTTPClientError | aiohttp.ClientError | TimeoutError):
        return StoreError(
            "the service that issues AWS credentials cannot be reached: check the network and the AWS "
            "profile",
            detail=detail,
        )
    if by_process:
        return StoreDeniedError(
            "the credential_process of the AWS profile returned no credentials: it must name a program that "
            "exists and prints them as JSON",
            detail=detail,
        )
    if isinstance(error, boto.BotoCoreError):
        return StoreDeniedError(
            "no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or give the machine a role",
            detail=detail,
        )
    return StoreDeniedError(
        "the AWS credentials cannot be read: check the AWS profile, and the files and programs it names",
        detail=detail,
    )


def unanswered(error: Exception, where: str, *, writing: bool, sent: bool) -> StoreError:
    """Return the error for a call without an answer, or with one that cannot be understood.

    Args:
        error: what the SDK raised.
        where: the URL of the object.
        writing: whether the call was a write.
        sent: whether the call reached the HTTP client.
    """
    import httpx2
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    broke = (
        boto.ConnectionError,
        boto.HTTPClientError,
        boto.IncompleteReadError,
        ResponseParserError,
        httpx2.HTTPError,
        OSError,
        TimeoutError,
    )
    detail = detail_of(error)
    if isinstance(error, boto.SSLError):
        return StoreError(
            "S3 cannot be reached by TLS: is AWS_ENDPOINT_URL right, and its certificate one that this "
            "machine or AWS_CA_BUNDLE trusts?",
            detail=detail,
        )
    if isinstance(error, boto.ProxyConnectionError):
        return StoreError(
            "the proxy before S3 cannot be reached or refuses: check HTTPS_PROXY, HTTP_PROXY and NO_PROXY",
            detail=detail,
        )
    # The SDK raises the same class for a write that takes too long as for a connection that does.
    in_write = isinstance(error, boto.ConnectTimeoutError) and isinstance(
        error.kwargs.get("error"), httpx2.WriteTimeout
    )
    if isinstance(error, boto.ConnectionError) and not in_write:
        return StoreError(
            "S3 cannot be reached: check the network, AWS_ENDPOINT_URL and the region", detail=detail
        )
    if not sent:
        return StoreSettingsError(
            f"S3 cannot be asked for {where}: check keys.bucket and the AWS settings", detail=detail
        )
    what = "the connection to S3 broke during" if isinstance(error, broke) else "S3 sent an invalid answer to"
    if writing:
        return StoreOutcomeUnknownError(
            f"{what} a write; a later read will show whether it was applied", detail=detail
        )
    if isinstance(error, broke):
        return StoreError(f"{what} a read", detail=detail)
    return StoreError(f"{what} a read of {where}: is AWS_ENDPOINT_URL an S3 server?", detail=detail)
