"""``tailbone completion``: shell scripts that complete commands, flags and values."""

from __future__ import annotations

import click

from tailbone.cli.options import Command


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for a shell.

    \b
    bash:  source <(tailbone completion bash)
    zsh:   source <(tailbone completion zsh)
    fish:  tailbone completion fish | source
    """
    from click.shell_completion import get_completion_class

    script = get_completion_class(shell)
    assert script is not None  # noqa: S101 - click knows all three
    click.echo(script(context.find_root().command, {}, "tailbone", "_TAILBONE_COMPLETE").source())
