"""``tailbone agent``: keep token files fresh, and answer local programs."""

from __future__ import annotations

import asyncio
import shlex
import signal
import stat
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack

import click

from tailbone.cli.issuer import issuer_of, issuer_options
from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.agent.agent import Agent
    from tailbone.cli.issuer import IssuerFlags

_BEARER_LIMIT: Final = 1 << 12


@click.command(cls=Command)
@click.option(
    "--file", "pairs", multiple=True, metavar="AUDIENCE=PATH", help="Keep a token in this file. Repeatable."
)
@click.option("--ttl", default="", metavar="DURATION", help="Lifetime of these tokens.")
@click.option("--mode", default="0600", show_default=True, help="Permissions of these files.")
@click.option("--owner", default="", metavar="USER", help="Owner of these files.")
@click.option("--group", default="", help="Group of these files.")
@click.option(
    "--from",
    "list_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="More files: TOML with [[agent.files]] path, audience, ttl, mode, owner, group.",
)
@click.option("--signal", "signal_name", default="", metavar="NAME", help="After a renewal, send HUP, USR1 …")
@click.option(
    "--pid-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="… to the process of this file.",
)
@click.option("--command", default="", help="After a renewal, run this, without a shell.")
@click.option("--once", is_flag=True, help="Write the files once, and exit.")
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Unix socket for local programs.  [default: $XDG_RUNTIME_DIR/tailbone/agent.sock, or in /run]",
)
@click.option("--listen", metavar="HOST:PORT", help="Also listen on loopback; needs --bearer-file.")
@click.option(
    "--bearer-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Contains the bearer token of --listen, at least 16 characters; not readable by everybody.",
)
@issuer_options
@pass_invocation
def agent(
    invocation: Invocation,
    pairs: tuple[str, ...],
    ttl: str,
    mode: str,
    owner: str,
    group: str,
    list_file: Path | None,
    signal_name: str,
    pid_file: Path | None,
    command: str,
    once: bool,
    socket_path: Path | None,
    listen: str | None,
    bearer_file: Path | None,
    **flags: Unpack[IssuerFlags],
) -> None:
    """Keep token files fresh, and give tokens to local programs.

    A file is renewed at half of its token's life; if tokens live for 20 minutes or more, at least 15 minutes
    before its end. It is written again if a reader deletes it. SIGHUP renews all tokens now. The files stay
    when the agent ends. Other commands of tailbone ask the agent if it runs.
    """
    from tailbone.agent.agent import Agent, Reload
    from tailbone.agent.files import read_files, token_file
    from tailbone.agent.sdk import parse_pair
    from tailbone.client.local_agent import default_socket
    from tailbone.process import log

    config = invocation.load()
    files = [
        token_file(path, audience, ttl=ttl, mode=mode, owner=owner, group=group)
        for audience, path in (parse_pair(text, "--file", "PATH") for text in pairs)
    ]
    files += read_files(list_file) if list_file else []
    if once and not files:
        raise ConfigError("flag --once: there is no file to write; name one with --file or --from")
    reload = Reload(signal_name.removeprefix("SIG"), pid_file, command)
    reload.check()
    loopback = _loopback(listen, bearer_file)
    log.configure(config.log, stream=sys.stderr)
    with issuer_of(**flags) as issuer:
        made = Agent(issuer, files, reload=reload)
        if once:
            asyncio.run(made.write())
        else:
            asyncio.run(_serve(made, socket_path or _prepared(default_socket()), loopback))


def _prepared(path: Path) -> Path:
    """Make the folder of the default socket."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    return path


def _loopback(listen: str | None, bearer_file: Path | None) -> tuple[str, int, bytes] | None:
    """Return host, port and bearer token of ``--listen``.

    Raises:
        ConfigError: it is not on loopback, or the bearer token is missing or short, or everybody can read it.
        OSError: the bearer token cannot be read.
    """
    if (listen is None) != (bearer_file is None):
        raise ConfigError("--listen and --bearer-file need each other")
    if listen is None or bearer_file is None:
        return None
    from tailbone.config.checks import is_loopback, parse_host_port

    try:
        host, port = parse_host_port(listen)
    except ValueError:
        host, port = "", 0
    if not is_loopback(host):
        raise ConfigError("--listen must be a loopback address and a port, such as 127.0.0.1:8125")
    return host, port, _read_bearer(bearer_file)


def _read_bearer(path: Path) -> bytes:
    from tailbone.files import others_who_can, read_regular

    try:
        data, status = read_regular(path, _BEARER_LIMIT)
    except ValueError as error:
        raise ConfigError(f"{path} {error}") from None
    who = others_who_can(stat.S_IROTH | stat.S_IWOTH, status.st_mode, status.st_uid)
    if who == "everybody":
        raise ConfigError(f"everybody can read or write {path}: run chmod 600 {shlex.quote(str(path))}")
    if who:
        click.echo(f"tailbone: warning: {who} can read or write {path}", err=True)
    bearer = data.strip()
    if len(bearer) < 16:
        raise ConfigError(f"{path} must contain at least 16 characters")
    return bearer


async def _serve(agent: Agent, path: Path, loopback: tuple[str, int, bytes] | None) -> None:
    from tailbone.process.log import get_logger
    from tailbone.process.signals import stop_on_signals
    from tailbone.process.systemd import notify

    log = get_logger()

    def ready() -> None:
        notify("READY=1")
        log.info("started", socket=str(path))

    with stop_on_signals() as stop:
        # Not a reason to stop here: a service manager's reload means "renew now".
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, agent.renew)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(agent.listen(path))
            stack.callback(path.unlink, missing_ok=True)
            if loopback is not None:
                port = await stack.enter_async_context(agent.listen_on_loopback(*loopback))
                log.info("listening", port=port)
            await stop.run_until_stopped(agent.keep(ready))
            notify("STOPPING=1")
        log.info("stopped")
