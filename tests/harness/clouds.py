"""The three clouds that give ID tokens to their machines, in one web server on loopback."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from harness.web import Page, WebServer

if TYPE_CHECKING:
    from collections.abc import Mapping

REQUEST_TOKEN: Final = "github-request-token"
"""The secret of a GitHub Actions job. It has no form by which it could be masked."""

_SECRET: Final = "aws-secret-access-key"
SECRETS: Final = (REQUEST_TOKEN, _SECRET)
_REGION: Final = "eu-north-1"
_GCP_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/identity"
_STS_ANSWER: Final = (
    '<GetWebIdentityTokenResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetWebIdentityTokenResult>'
    "<WebIdentityToken>{}</WebIdentityToken><Expiration>2030-01-01T00:00:00Z</Expiration>"
    "</GetWebIdentityTokenResult></GetWebIdentityTokenResponse>"
)
_STS_REFUSAL: Final = (
    '<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>'
    "<Code>SignatureDoesNotMatch</Code><Message>wrong</Message></Error></ErrorResponse>"
)


class Clouds(WebServer):
    """Gives an ID token to each request that the cloud would accept.

    Attributes:
        id_token: what it gives.
        audience: the audience that it gives it for.
        variables: the environment of a machine in each cloud.
        page: if set, the answer to everything.
    """

    def __init__(self, id_token: str, audience: str) -> None:
        super().__init__()
        self.id_token = id_token
        self.audience = audience
        self.page: Page | None = None
        self.variables = {
            "github": {
                "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.url}/github?api-version=2.0",
                "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
            },
            "gcp": {"GCE_METADATA_HOST": self.url.removeprefix("http://")},
            "aws": {
                "AWS_ENDPOINT_URL_STS": self.url,
                "AWS_REGION": _REGION,
                "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
                "AWS_SECRET_ACCESS_KEY": _SECRET,
            },
        }

    def answer(self, request: dict[str, str]) -> Page:
        """Return the answer to a request."""
        if self.page is not None:
            return self.page
        url = urlsplit(request["path"])
        query = parse_qs(url.query)
        if url.path == "/github":
            accepted = request.get("Authorization") == f"Bearer {REQUEST_TOKEN}"
            accepted = accepted and query == {"api-version": ["2.0"], "audience": [self.audience]}
            return Page(json.dumps({"count": 1, "value": self.id_token}).encode()) if accepted else _FORBIDDEN
        if url.path == _GCP_PATH:
            accepted = request.get("Metadata-Flavor") == "Google"
            accepted = accepted and query == {"audience": [self.audience], "format": ["full"]}
            return Page(self.id_token.encode(), {}) if accepted else _FORBIDDEN
        form = parse_qs(request["body"])
        assert form["Audience.member.1"] == [self.audience]
        if request["Authorization"].rpartition("Signature=")[2] != _signature(request):
            return Page(_STS_REFUSAL.encode(), {}, 403)
        return Page(_STS_ANSWER.format(self.id_token).encode(), {})


_FORBIDDEN: Final = Page(b'{"message": "forbidden"}', status=403)


def _signature(request: Mapping[str, str]) -> str:
    """Return the request's right signature (AWS Signature Version 4)."""
    fields = {name.lower(): value for name, value in request.items()}
    scope, signed = (
        fields["authorization"].partition(f"{name}=")[2].partition(",")[0]
        for name in ("Credential", "SignedHeaders")
    )
    scope = scope.partition("/")[2]
    canonical = "\n".join(
        (
            "POST",
            "/",
            "",
            *(f"{name}:{fields[name]}" for name in signed.split(";")),
            "",
            signed,
            hashlib.sha256(request["body"].encode()).hexdigest(),
        )
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{_SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    text = "\n".join(("AWS4-HMAC-SHA256", fields["x-amz-date"], scope, digest))
    return hmac.digest(key, text.encode(), "sha256").hex()
