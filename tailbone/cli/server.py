"""``tailbone server``: start, housekeeping."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tailbone.cli.options import Command, Group, Invocation, pass_invocation
from tailbone.cli.output import render

if TYPE_CHECKING:
    from tailbone.keys.housekeeping import Housekeeping


@click.group(cls=Group, only_own=True)
def server() -> None:
    """Join the tailnet and issue tokens.

    The flags of the commands may also precede them: `tailbone server --port 81 start`.
    """


@server.command(cls=Command, settings="server start")
@pass_invocation
def start(invocation: Invocation) -> None:
    """Join the tailnet and serve the issuer, the admin API, or both.

    The first login needs an auth key or identity federation; otherwise a login URL is printed. Logs go to
    standard output. SIGHUP rereads log level, audiences, allowed hosts, expiry and deny list from the
    settings file.
    """
    loaded = invocation.load(quiet=True)
    from tailbone.federation.login import log_in
    from tailbone.process import log
    from tailbone.process.signals import exit_on_signals
    from tailbone.tsnet.environment import check_environment

    log.configure(loaded.log, stream=sys.stdout)
    check_environment()
    with exit_on_signals():
        config = log_in(loaded)
    log.add_secret(config.server.tailscale.authkey)
    for note in config.notes:
        log.get_logger().warning("settings", note=note)
    from tailbone.daemon import daemon
    from tailbone.daemon.reload import Reloader

    click.get_current_context().exit(daemon.run(config, Reloader(loaded, invocation.reread)))


@server.command(cls=Command, settings="server housekeeping", only_own=True)
@click.option(
    "--force",
    is_flag=True,
    help="Continue even if the published JWKS is missing, empty or shares no key with the folder.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, without doing it.")
@pass_invocation
def housekeeping(invocation: Invocation, force: bool, dry_run: bool) -> None:
    """Bring this machine's private keys in line with the published JWKS.

    Keys that are no longer published are moved to `removed/` in the key folder. Safe while servers run.
    The other flags of `tailbone server` are also accepted.
    """
    config = invocation.load()
    from tailbone.daemon import keys
    from tailbone.process import log

    log.configure(config.log, stream=sys.stderr)
    _show(keys.housekeeping(config, force=force, dry_run=dry_run), config.output)


def _show(done: Housekeeping, output: str) -> None:
    if output != "text":
        faulty = [{"key_id": kid, "fault": fault} for kid, fault in done.faulty]
        fields = {
            "moved": done.moved,
            "kept": done.kept,
            "finished": done.finished,
            "faulty": faulty,
            "dry_run": done.dry_run,
        }
        click.echo(render(fields, output))
        return
    for kid in done.moved:
        click.echo(f"{kid}: {'would be moved' if done.dry_run else 'moved'} to removed/")
    for kid in done.kept:
        click.echo(f"{kid}: kept")
    for kid in done.finished:
        click.echo(f"{kid}: its removal {'would be' if done.dry_run else 'is'} finished")
    for kid, fault in done.faulty:
        click.echo(f"{kid}: left alone: {fault}")
    if not (done.moved or done.kept or done.finished or done.faulty):
        click.echo("no keys")
