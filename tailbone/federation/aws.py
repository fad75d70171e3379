"""An ID token from AWS: sts:GetWebIdentityToken, with the credentials of the AWS default chain."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from botocore import exceptions as boto
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.parsers import ResponseParserError

from tailbone.errors import ConfigError, ControlUnreachableError, LoginRefusedError
from tailbone.federation.answers import SETTING, checked, words
from tailbone.http_request import post

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIFE_S: Final = 300
_THROTTLED: Final = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException"})


def id_token(audience: str) -> str:
    """Return a new ID token of the machine's or the user's role.

    Raises:
        ConfigError: there are no credentials, or no region.
        ControlUnreachableError: AWS does not answer.
        LoginRefusedError: AWS refuses.
    """
    try:
        client = _client()
        answer = client.get_web_identity_token(
            Audience=[audience], SigningAlgorithm="ES384", DurationSeconds=_LIFE_S
        )
    except boto.ClientError as error:
        raise _refusal(error, audience) from None
    except (ResponseParserError, LookupError):
        # botocore looks for members of other XML.
        answer = {}
    except (OSError, boto.ConnectionError, boto.HTTPClientError):
        # botocore's are of the credentials: for a role that it assumes, for example.
        raise ControlUnreachableError("AWS STS cannot be reached for an ID token") from None
    except (boto.BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"{SETTING}: no ID token with these AWS settings ({type(error).__name__}): set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        ) from None
    return checked("AWS STS", str(answer.get("WebIdentityToken")))


def _client() -> Any:
    session = botocore.session.get_session()
    # botocore alone reads only AWS_DEFAULT_REGION. Without a region it asks the global STS, which lacks this
    # call.
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region:
        raise ConfigError(f"{SETTING}: aws needs the region: set AWS_REGION")
    client = session.create_client(
        "sts", region_name=region, config=Config(retries={"total_max_attempts": 1})
    )
    client.meta.events.register("before-send.sts.GetWebIdentityToken", _send)
    return client


class _Body(io.BytesIO):
    """The body of an answer, as botocore reads it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _send(request: Any, **_: Any) -> Any:
    """Send a signed request in botocore's place, which has no limit for the length of an answer."""
    fields = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in request.headers.items()
    }
    body = request.body if isinstance(request.body, bytes) else request.body.encode()
    answer = post(request.url, body, fields)
    return AWSResponse(request.url, answer.status, {}, _Body(answer.body))


def _refusal(error: boto.ClientError, audience: str) -> ControlUnreachableError | LoginRefusedError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    if status >= 500 or code in _THROTTLED:
        return ControlUnreachableError(f"AWS STS answered with status {status} instead of an ID token")
    text = words(error.response.get("Error", {}).get("Message"), ())
    return LoginRefusedError(
        f"AWS STS refuses an ID token for {audience} (status {status}, {words(code, ())}): "
        f"{text or 'no reason given'}; the role needs sts:GetWebIdentityToken, and the account outbound web "
        "identity federation"
    )
