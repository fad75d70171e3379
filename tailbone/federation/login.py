"""The auth key of a node's login: as set, from its file, or by identity federation."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from tailbone.config.kinds import refuse_wrapping
from tailbone.config.table import BY_PATH
from tailbone.errors import ConfigError, ControlUnreachableError, LoginRefusedError, TailboneError
from tailbone.federation.answers import words
from tailbone.federation.id_token import obtain
from tailbone.federation.secret_file import read_secret
from tailbone.json_object import parse_object
from tailbone.process.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.config.model import Config, Tailscale

_API: Final = "https://api.tailscale.com"
_STATE: Final = "tailscaled.state"
_KEY_LIFE_S: Final = 600
"""How long the auth key can be used. A node that has logged in does not need it."""


def log_in(
    config: Config,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Config:
    """Return *config* with the auth key that its settings lead to.

    With identity federation, each attempt gets a new ID token, since they expire within minutes. While
    Tailscale's API or the cloud is unreachable, retry for joinTimeout. If the node has state, it may be
    logged in already: then there is one attempt, and a failure becomes a note.

    Raises:
        ConfigError: the settings lead neither to an auth key nor to an ID token.
        LoginRefusedError: the cloud refuses an ID token, or Tailscale refuses it or the tags.
        ControlUnreachableError: the cloud or Tailscale's API cannot be reached.
    """
    settings = config.server.tailscale
    # An ephemeral node has logged out when it ended. A folder that this user cannot search is reported later.
    if not settings.ephemeral and os.path.lexists(Path(settings.dir, _STATE)):
        try:
            return _with_key(config)
        except TailboneError as error:
            note = f"no auth key; relying on the node's existing login: {error.message}"
            config = msgspec.structs.replace(config, notes=(*config.notes, note))
            return _with(config, authkey="", authkey_file="")
    end = clock() + settings.join_timeout_s
    warned = False
    while True:
        try:
            return _with_key(config)
        except ControlUnreachableError as error:
            if clock() + settings.join_retry_s > end:
                raise
            if not warned:
                get_logger().warning("identity federation fails; trying again", error=error.message)
                warned = True
        sleep(settings.join_retry_s)


def _with_key(config: Config) -> Config:
    settings = config.server.tailscale
    if settings.id_token_file or settings.asks_cloud:
        return _with(config, authkey=_exchange(settings))
    return _with(config, authkey=_authkey(config), authkey_file="")


def _authkey(config: Config) -> str:
    """Return the auth key that is set, read from its file if a setting names one."""
    path = "server.tailscale.authkey"
    node = config.server.tailscale
    authkey = node.authkey
    file = node.authkey_file or (authkey.removeprefix("file:") if authkey.startswith("file:") else "")
    if file:
        setting = f"{path} ({config.origin(f'{path}File' if node.authkey_file else path)})"
        text = read_secret(file, setting)
        try:
            refuse_wrapping(text, is_list=False)
            authkey = str(BY_PATH[path].kind.parse(text))
        except ValueError as error:
            raise ConfigError(f"{setting}: the content of {file} {error}") from None
    if authkey.startswith("tskey-client-") and not node.tags:
        raise ConfigError(
            f"{path} ({config.origin(path)}): an OAuth client secret needs tags for the node: "
            "set --ts-tags, TS_ADVERTISE_TAGS or server.tailscale.tags"
        )
    return authkey


def _with(config: Config, **changes: str) -> Config:
    node = msgspec.structs.replace(config.server.tailscale, **changes)
    return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, tailscale=node))


def _exchange(settings: Tailscale) -> str:
    """Return a new auth key for one node."""
    client_id, _, attribute = settings.client_id.partition("?")
    api = settings.control_url.rstrip("/") or _API
    jwt = obtain(settings)
    form = urlencode({"client_id": client_id, "jwt": jwt})
    access = _post(f"{api}/api/v2/oauth/token-exchange", form, {}, "access_token", secrets=[jwt])
    create = {
        "reusable": False,
        "ephemeral": settings.ephemeral,
        "preauthorized": attribute == "preauthorized=true",
        "tags": settings.tags,
    }
    wanted = {"capabilities": {"devices": {"create": create}}, "expirySeconds": _KEY_LIFE_S}
    fields = {"Authorization": f"Bearer {access}", "Content-Type": "application/json"}
    return _post(f"{api}/api/v2/tailnet/-/keys", json.dumps(wanted), fields, "key", secrets=[jwt, access])


def _post(url: str, body: str, fields: dict[str, str], member: str, *, secrets: list[str]) -> str:
    """Send a request, and return a member of its answer. Its secrets are masked in a refusal."""
    from tailbone.http_request import post  # a node with an auth key starts sooner without it

    try:
        status, content = post(url, body.encode(), fields)
    except OSError:
        raise ControlUnreachableError(f"{url} cannot be reached") from None
    if status >= 500:
        raise ControlUnreachableError(f"{url} answered with status {status}")
    answer = parse_object(content) or {}
    if status >= 300:
        text = words(answer.get("message"), secrets)
        raise LoginRefusedError(f"Tailscale refuses identity federation (status {status}): {text}")
    value = answer.get(member)
    if not isinstance(value, str) or not value:
        raise LoginRefusedError(f"{url} did not answer with {member}")
    return value
