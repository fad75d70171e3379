"""The ID token that identity federation sends to Tailscale: from a file, or from the cloud itself."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from tailbone.errors import ConfigError, ControlUnreachableError, LoginRefusedError
from tailbone.federation.answers import SETTING, checked, words
from tailbone.federation.secret_file import read_secret
from tailbone.json_object import parse_object

if TYPE_CHECKING:
    from tailbone.config.model import Tailscale

_GITHUB_URL: Final = "ACTIONS_ID_TOKEN_REQUEST_URL"
_GITHUB_TOKEN: Final = "ACTIONS_ID_TOKEN_REQUEST_TOKEN"  # noqa: S105 -- a variable's name
_GCP_HOST: Final = "GCE_METADATA_HOST"
_GCP_PATH: Final = "/computeMetadata/v1/instance/service-accounts/default/identity"


def obtain(settings: Tailscale) -> str:
    """Return a new ID token.

    From a cloud, its audience is the one that Tailscale gives each federated identity: api.tailscale.com/ID.

    Raises:
        ConfigError: the file cannot be read, or this process is not where the settings say.
        ControlUnreachableError: the cloud does not answer.
        LoginRefusedError: the cloud refuses.
    """
    audience = f"api.tailscale.com/{settings.client_id.partition('?')[0]}"
    match settings.id_token_from:
        case "github":
            return _from_github(audience)
        case "gcp":
            return _from_gcp(audience)
        case "aws":
            from tailbone.federation import aws  # it loads the AWS SDK

            return aws.id_token(audience)
        case _:
            return read_secret(settings.id_token_file, "server.tailscale.idTokenFile")


def _from_github(audience: str) -> str:
    """Ask GitHub Actions (docs.github.com, "OpenID Connect reference")."""
    url, request_token = os.environ.get(_GITHUB_URL, ""), os.environ.get(_GITHUB_TOKEN, "")
    if not re.match(r"https?://", url) or not request_token:
        raise ConfigError(
            f"{SETTING}: github needs the variables {_GITHUB_URL} and {_GITHUB_TOKEN}, which a job of GitHub "
            "Actions has with `permissions: id-token: write`"
        )
    full = f"{url}{'&' if '?' in url else '?'}{urlencode({'audience': audience})}"
    fields = {"Authorization": f"Bearer {request_token}", "Accept": "application/json"}
    status, body = _get("GitHub Actions", full, fields)
    answer = parse_object(body) or {}
    if status != 200:
        text = words(answer.get("message"), [request_token])
        raise LoginRefusedError(
            f"GitHub Actions refuses an ID token for {audience} (status {status}): "
            f"{text or 'no reason given'}; the job needs `permissions: id-token: write`"
        )
    return checked("GitHub Actions", str(answer.get("value")))


def _from_gcp(audience: str) -> str:
    """Ask the metadata server (cloud.google.com, "Verify the identity of a VM")."""
    host = os.environ.get(_GCP_HOST) or "metadata.google.internal"
    query = urlencode({"audience": audience, "format": "full"})
    asked = f"Google Cloud's metadata server {host}"
    # A proxy has another metadata server, or none.
    status, body = _get(
        asked, f"http://{host}{_GCP_PATH}?{query}", {"Metadata-Flavor": "Google"}, by_proxy=False
    )
    if status != 200:
        raise LoginRefusedError(
            f"{asked} refuses an ID token for {audience} (status {status}): "
            "the machine needs a service account"
        )
    return checked(asked, body.decode("ascii", "replace").strip())


def _get(asked: str, url: str, fields: dict[str, str], *, by_proxy: bool = True) -> tuple[int, bytes]:
    from tailbone.http_request import get  # a node with an auth key starts sooner without it

    try:
        status, body = get(url, fields, by_proxy=by_proxy)
    except OSError:
        raise ControlUnreachableError(f"{asked} cannot be reached for an ID token") from None
    if status >= 500 or status == 429:
        raise ControlUnreachableError(f"{asked} answered with status {status} instead of an ID token")
    return status, body
