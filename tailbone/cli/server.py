"""``tailbone server``: start, housekeeping."""

from __future__ import annotations

import os
import sys

import click

from tailbone.cli.options import Command, Group, Invocation, end, pass_invocation


@click.group(cls=Group, only_own=True)
def server() -> None:
    """Join the tailnet and give out tokens.

    The flags of the commands may also stand before them: `tailbone server --port 81 start`.
    """


@server.command(cls=Command, settings="server start")
@pass_invocation
def start(invocation: Invocation) -> None:
    """Join the tailnet and serve the issuer, the admin API, or both.

    The first login needs an auth key; without one, a login URL is printed. Logs go to standard output.
    """
    config = invocation.load(quiet=True)
    from tailbone.config import check_tailscale_environment

    check_tailscale_environment(os.environ)
    from tailbone import log

    log.configure(config.log, stream=sys.stdout, secrets=[config.server.tailscale.authkey])
    for note in config.notes:
        log.get_logger().warn("settings", note=note)
    from tailbone import daemon

    end(daemon.run(config))


@server.command(cls=Command, settings="server housekeeping", only_own=True)
@click.option(
    "--force",
    is_flag=True,
    help="Go on when the published JWKS is missing, empty or shares no key with the folder.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@pass_invocation
def housekeeping(invocation: Invocation, force: bool, dry_run: bool) -> None:
    """Bring this machine's private keys in line with the published JWKS.

    Keys that are no longer published are moved to `removed/` in the key folder. Safe while servers run.
    The other flags of `tailbone server` are accepted, too.
    """
    config = invocation.load()
    from tailbone import daemon, log

    log.configure(config.log, stream=sys.stderr)
    end(daemon.housekeeping(config, force=force, dry_run=dry_run))
