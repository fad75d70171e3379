"""``tailbone health``: whether the server on this machine can issue tokens."""

from __future__ import annotations

from pathlib import Path

import click

from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import render


@click.command(cls=Command)
@pass_invocation
def health(invocation: Invocation) -> None:
    """Check whether the server on this machine can issue tokens, for probes of containers.

    It asks the server that uses the same node's folder, over a Unix socket. The exit code is 0 if tokens can
    be issued, else 1.
    """
    config = invocation.load()
    from tailbone.daemon.health import ask

    found = ask(Path(config.server.tailscale.dir))
    if config.output == "text":
        click.echo("not ready" if found.reasons else "ready")
        for problem in (*found.reasons, *found.notes):
            click.echo(f"{problem.code}: {problem.text}")
    else:
        facts = {
            "ready": not found.reasons,
            "reasons": [problem._asdict() for problem in found.reasons],
            "notes": [problem._asdict() for problem in found.notes],
        }
        click.echo(render(facts, config.output))
    click.get_current_context().exit(1 if found.reasons else 0)
