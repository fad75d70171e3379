"""The flags of commands that need tokens: which issuer, and how to reach it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import click

from tailbone.client import SOCKET_VARIABLE, URL_VARIABLE
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tailbone.client.issuer import Issuer, Tokens


class IssuerFlags(TypedDict):
    """The values of the flags of ``issuer_options``."""

    issuer_url: str
    proxy: str
    any_address: bool
    join: bool
    join_state: Path | None


_JOIN_VARIABLES = (
    "TS_AUTHKEY",
    "TS_CLIENT_ID",
    "TS_ID_TOKEN_FILE",
    "TS_ID_TOKEN_FROM",
    "TS_ADVERTISE_TAGS",
    "TS_CONTROL_URL",
)
_OPTIONS = (
    click.option(
        "--issuer-url",
        default="",
        metavar="URL",
        help=f"The issuer.  [default: http://tailbone; env: {URL_VARIABLE}]",
    ),
    click.option(
        "--proxy", default="", metavar="URL", help="HTTP proxy to the tailnet; http_proxy is ignored."
    ),
    click.option(
        "--any-address",
        is_flag=True,
        help="Allow an issuer outside 100.64.0.0/10, fd7a:115c:a1e0::/48 and loopback.",
    ),
    click.option(
        "--join",
        is_flag=True,
        help="Join the tailnet as another node, without tailscaled. It logs in with TS_AUTHKEY, or by "
        "identity federation with TS_CLIENT_ID, TS_ADVERTISE_TAGS, and TS_ID_TOKEN_FILE or TS_ID_TOKEN_FROM.",
    ),
    click.option(
        "--join-state",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Keep the login of --join here; by default its node is ephemeral.",
    ),
)


def issuer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the issuer's flags to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def issuer_of(**flags: Unpack[IssuerFlags]) -> Iterator[Issuer]:
    """Return the issuer of the flags; with ``--join``, the node is in the tailnet until the context ends.

    Raises:
        ConfigError: the flags contradict each other, or a URL is malformed.
    """
    from tailbone.client.issuer import Issuer

    url, proxy, any_address = flags["issuer_url"], flags["proxy"], flags["any_address"]
    direct = Issuer(url, proxy=proxy, any_address=any_address)
    if not flags["join"]:
        if flags["join_state"]:
            raise ConfigError("--join-state needs --join")
        yield direct
        return
    if proxy:
        raise ConfigError("--join and --proxy are two ways to the issuer: use one")
    from tailbone.agent.joined import JoinSettings, joined
    from tailbone.config.load import load
    from tailbone.federation.login import log_in

    state = flags["join_state"]
    node = {"server.tailscale.dir": str(state)} if state else {"server.tailscale.ephemeral": "true"}
    variables = {name: os.environ.get(name, "") for name in _JOIN_VARIABLES}
    config = log_in(load(node, environ=variables))
    for note in config.notes:
        click.echo(f"tailbone: note: {note}", err=True)
    tailscale = config.server.tailscale
    settings = JoinSettings(
        authkey=tailscale.authkey,
        tags=tailscale.tags,
        state_dir=state,
        control_url=tailscale.control_url,
    )
    with joined(settings, direct.host, direct.port) as path:
        yield Issuer(url, unix_path=path)


def deciding_values(**flags: Unpack[IssuerFlags]) -> list[str]:
    """Return what decides whose tokens ``tokens_of`` gives, for the keys of caches."""
    names = (URL_VARIABLE, SOCKET_VARIABLE, *(_JOIN_VARIABLES if flags["join"] else ()))
    return [str(flags), *(os.environ.get(name, "") for name in names)]


@contextmanager
def tokens_of(**flags: Unpack[IssuerFlags]) -> Iterator[Tokens]:
    """Return what to ask for tokens.

    With any of the flags, it is their issuer. Otherwise it is the agent of TAILBONE_AGENT, else the issuer of
    TAILBONE_ISSUE_URL, else the user's own agent if it runs, else the default issuer.
    """
    from tailbone.client.local_agent import LocalAgent, default_socket

    flagged = any(flags.values())
    if not flagged and (named := os.environ.get(SOCKET_VARIABLE)):
        yield LocalAgent(Path(named))
    elif not flagged and not os.environ.get(URL_VARIABLE) and LocalAgent(default_socket()).runs:
        yield LocalAgent(default_socket())
    else:
        with issuer_of(**flags) as issuer:
            yield issuer
