"""s3_errors: the error for each way in which an S3 call can fail."""

from __future__ import annotations

from typing import Any

import aiohttp
import httpx2
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from tailbone.errors import (
    StoreConflictError,
    StoreDeniedError,
    StoreError,
    StoreOutcomeUnknownError,
    StoreSettingsError,
    UnconditionalStoreError,
)
from tailbone.jwks import s3_errors

WHERE = "s3://b/jwks.json"
URL = "http://127.0.0.1:1"


def answer(status: int, code: str = "", message: str = "", region: str = "", **fields: str) -> dict[str, Any]:
    """Return an unsuccessful answer as botocore parses it."""
    return {
        "Error": {"Code": code, "Message": message, "Region": region},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": fields},
    }


def refused(given: dict[str, Any], *, writing: bool) -> StoreError:
    """Return the error for an answer."""
    error = s3_errors.refusal(given, "b", "jwks.json", writing=writing, detail="the detail")
    assert error is not None
    assert error.detail == "the detail"
    return error


@pytest.mark.parametrize("writing", [False, True])
def test_only_no_such_key_says_that_the_object_does_not_exist(writing: bool) -> None:
    """A 404 without that code may come from anything on the way."""
    assert s3_errors.refusal(answer(404, "NoSuchKey"), "b", "p", writing=writing, detail="") is None
    for other in ("", "404", "NoSuchBucket", "NotFound"):
        assert type(refused(answer(404, other), writing=writing)) is StoreSettingsError


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "AccessDenied", StoreDeniedError, f"S3 forbids reading {WHERE}: either s3:GetObject"),
        (403, "InvalidAccessKeyId", StoreDeniedError, "S3 refuses the AWS credentials"),
        (400, "ExpiredToken", StoreDeniedError, "S3 refuses the AWS credentials"),
        (403, "RequestTimeTooSkewed", StoreDeniedError, "this machine's clock is wrong"),
        (404, "NoSuchBucket", StoreSettingsError, "there is no bucket b"),
        (404, "", StoreSettingsError, 'upload a first object {"keys":[]}'),
        (405, "MethodNotAllowed", StoreSettingsError, f"S3 answered 405 for {WHERE}"),
        (418, "", StoreSettingsError, "is AWS_ENDPOINT_URL an S3 server"),
        (301, "PermanentRedirect", StoreSettingsError, "bucket b is in another region: set AWS_REGION"),
        (503, "SlowDown", StoreError, "S3 is throttling requests"),
        (429, "", StoreError, "S3 is throttling requests"),
        (400, "RequestTimeout", StoreError, "did not receive the whole request"),
        (500, "InternalError", StoreError, "S3 answered 500"),
        (408, "", StoreError, "S3 answered 408"),
        (412, "", StoreSettingsError, "S3 answered 412"),
    ],
)
def test_an_answer_to_a_read(status: int, code: str, kind: type[StoreError], text: str) -> None:
    """The class decides whether a read is retried, and the text says what to do."""
    error = refused(answer(status, code), writing=False)
    assert type(error) is kind
    assert text in error.message


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (412, "PreconditionFailed", StoreConflictError, f"{WHERE} was changed by another writer"),
        (409, "ConditionalRequestConflict", StoreConflictError, "was changed by another writer"),
        (409, "", StoreConflictError, "was changed by another writer"),
        (403, "AccessDenied", StoreDeniedError, f"S3 forbids writing {WHERE}: grant s3:PutObject on it"),
        (501, "NotImplemented", UnconditionalStoreError, "keys.conditionalWrites = false"),
        (400, "NotImplemented", UnconditionalStoreError, "keys.conditionalWrites = false"),
        (503, "SlowDown", StoreError, "S3 is throttling requests"),
        (400, "BadDigest", StoreError, "did not receive the whole request"),
        (503, "", StoreOutcomeUnknownError, "S3 answered a write with 503"),
        (429, "", StoreOutcomeUnknownError, "S3 answered a write with 429"),
        (500, "InternalError", StoreOutcomeUnknownError, "S3 answered a write with 500"),
        (499, "", StoreOutcomeUnknownError, "S3 answered a write with 499"),
        (400, "InvalidRequest", StoreSettingsError, f"S3 answered 400 for {WHERE}"),
    ],
)
def test_an_answer_to_a_write(status: int, code: str, kind: type[StoreError], text: str) -> None:
    """If a proxy may have sent the answer after it passed the write on, the outcome is unknown."""
    error = refused(answer(status, code), writing=True)
    assert type(error) is kind
    assert text in error.message


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("kms:Decrypt", f"S3 forbids reading {WHERE}: grant kms:Decrypt to the AWS credentials in use"),
        ("s3:GetObject", "either s3:GetObject on it is missing"),
    ],
)
def test_a_missing_permission_is_named(action: str, text: str) -> None:
    """AWS names it in its message."""
    message = f"User: x is not authorized to perform: {action} on resource: y"
    assert text in refused(answer(403, "AccessDenied", message), writing=False).message


@pytest.mark.parametrize(
    ("message", "shown"),
    [("no such thing", " (no such thing)"), ("a\nb", r" ('a\nb')"), ("x" * 300, f" ({'x' * 200})")],
)
def test_the_servers_message_is_shown_made_safe(message: str, shown: str) -> None:
    """Printable, and of limited length."""
    assert refused(answer(405, "No", message), writing=False).message == f"S3 answered 405 for {WHERE}{shown}"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (answer(301, **{"x-amz-bucket-region": "eu-north-1"}), "set AWS_REGION to eu-north-1"),
        (answer(400, "AuthorizationHeaderMalformed", region="eu-west-1"), "set AWS_REGION to eu-west-1"),
        (answer(400, "AuthorizationHeaderMalformed", region="<b>"), "is in another region: set AWS_REGION"),
        (
            answer(307, location="https://me:pw@other.example/b?X-Signature=1"),
            " to https://other.example,",
        ),
        (answer(302, location="javascript:x"), "S3 answered 302, a redirect, which is not followed"),
    ],
)
def test_a_redirect_says_which_setting_to_change(given: dict[str, Any], text: str) -> None:
    """Region and URL are shown only if they look like such; signature and password never."""
    error = s3_errors.redirect(given, "b", detail="")
    assert error is not None
    assert text in error.message
    assert "Signature" not in error.message
    assert "pw" not in error.message


@pytest.mark.parametrize("status", [200, 304, 404, 500])
def test_any_other_status_is_not_a_redirect(status: int) -> None:
    """Not Modified is in the range of redirects and is not one."""
    assert s3_errors.redirect(answer(status), "b", detail="") is None


CONNECT_TIMEOUT = boto.ConnectTimeoutError(endpoint_url=URL, error=httpx2.ConnectTimeout("slow"))
WRITE_TIMEOUT = boto.ConnectTimeoutError(endpoint_url=URL, error=httpx2.WriteTimeout("slow"))
READ_TIMEOUT = boto.ReadTimeoutError(endpoint_url=URL, error="x")
INCOMPLETE = boto.IncompleteReadError(actual_bytes=1, expected_bytes=2)


@pytest.mark.parametrize(
    ("error", "sent", "kind", "text"),
    [
        (boto.SSLError(endpoint_url=URL, error="x"), True, StoreError, "cannot be reached by TLS"),
        (boto.ProxyConnectionError(proxy_url=URL, error="x"), True, StoreError, "the proxy before S3"),
        (boto.EndpointConnectionError(endpoint_url=URL, error="x"), True, StoreError, "S3 cannot be reached"),
        (CONNECT_TIMEOUT, True, StoreError, "S3 cannot be reached"),
        (WRITE_TIMEOUT, True, StoreOutcomeUnknownError, "the connection to S3 broke during a write"),
        (
            boto.ReadTimeoutError(endpoint_url=URL, error="x"),
            True,
            StoreOutcomeUnknownError,
            "broke during a write",
        ),
        (httpx2.ReadError("x"), True, StoreOutcomeUnknownError, "broke during a write"),
        (TimeoutError(), True, StoreOutcomeUnknownError, "broke during a write"),
        (ResponseParserError("x"), True, StoreOutcomeUnknownError, "broke during a write"),
        (KeyError("x"), True, StoreOutcomeUnknownError, "S3 sent an invalid answer to a write"),
        (boto.ParamValidationError(report="x"), False, StoreSettingsError, f"S3 cannot be asked for {WHERE}"),
    ],
)
def test_a_write_without_an_answer(error: Exception, sent: bool, kind: type[StoreError], text: str) -> None:
    """The outcome is unknown only if the write may have been sent."""
    found = s3_errors.unanswered(error, WHERE, writing=True, sent=sent)
    assert type(found) is kind
    assert text in found.message
    assert found.detail == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx2.ReadError("x"), "the connection to S3 broke during a read"),
        (
            boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            "the connection to S3 broke during a read",
        ),
        (KeyError("x"), f"S3 sent an invalid answer to a read of {WHERE}: is AWS_ENDPOINT_URL an S3 server?"),
    ],
)
def test_a_read_without_an_answer(error: Exception, text: str) -> None:
    """It is retried."""
    found = s3_errors.unanswered(error, WHERE, writing=False, sent=True)
    assert (type(found), found.message) == (StoreError, text)


@pytest.mark.parametrize(
    ("error", "by_process", "kind", "text"),
    [
        (
            boto.ClientError(answer(403), "AssumeRole"),
            False,
            StoreDeniedError,
            "AWS refuses to issue credentials",
        ),
        (boto.ClientError(answer(503), "AssumeRole"), False, StoreError, "AWS credentials answered 503"),
        (aiohttp.ClientError(), False, StoreError, "cannot be reached"),
        (TimeoutError(), False, StoreError, "cannot be reached"),
        (boto.NoCredentialsError(), False, StoreDeniedError, "no AWS credentials: set AWS_PROFILE"),
        (boto.NoCredentialsError(), True, StoreDeniedError, "credential_process"),
        (FileNotFoundError("x"), False, StoreDeniedError, "the AWS credentials cannot be read"),
    ],
)
def test_missing_credentials(error: Exception, by_process: bool, kind: type[StoreError], text: str) -> None:
    """Only a service that may come back is retried."""
    found = s3_errors.no_credentials(error, by_process=by_process)
    assert type(found) is kind
    assert text in found.message


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (boto.ProfileNotFound(profile="p"), StoreDeniedError, "no AWS credentials: set AWS_PROFILE"),
        (boto.InvalidRegionError(region_name="?"), StoreSettingsError, "AWS_REGION is not a region"),
        (ValueError("Invalid endpoint"), StoreSettingsError, "AWS_ENDPOINT_URL must be a URL"),
        (KeyError("x"), StoreSettingsError, "check the AWS variables and the AWS profile"),
    ],
)
def test_a_client_that_cannot_be_created(error: Exception, kind: type[StoreError], text: str) -> None:
    """The setting is named."""
    found = s3_errors.not_created(error)
    assert type(found) is kind
    assert text in found.message


def test_certificates_that_cannot_be_loaded() -> None:
    """The file is named in the log only."""
    found = s3_errors.no_certificates(FileNotFoundError(2, "No such file"), "/some/ca.pem")
    assert type(found) is StoreSettingsError
    assert "AWS_CA_BUNDLE" in found.message
    assert "ca.pem" not in found.message
    assert found.detail.startswith("/some/ca.pem: FileNotFoundError")
