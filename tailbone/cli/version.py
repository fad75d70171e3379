"""``tailbone version``: print version and commit."""

from __future__ import annotations

import click

from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import render


@click.command(cls=Command)
@pass_invocation
def version(invocation: Invocation) -> None:
    """Print version and commit."""
    print_version(invocation.output())


def print_version(form: str) -> None:
    """Print version and commit.

    Args:
        form: text, json or yaml.
    """
    from tailbone import version as this

    if form == "text":
        click.echo(f"tailbone {this.version()} (commit {this.commit()})")
    else:
        click.echo(render({"version": this.version(), "commit": this.commit()}, form))
