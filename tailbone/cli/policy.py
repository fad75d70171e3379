"""``tailbone policy``: lint, example."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tailbone.cli.options import Command, Group, Invocation, pass_invocation
from tailbone.cli.output import render
from tailbone.errors import TailboneError

if TYPE_CHECKING:
    from tailbone.policy_file.lint import Finding


@click.group(cls=Group)
def policy() -> None:
    """Check the tailnet's policy file, which grants tokens and roles."""


@policy.command(cls=Command, settings="policy lint")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@pass_invocation
def lint(invocation: Invocation, file: str) -> None:
    """Check the rules for tailbone in a policy FILE; - is standard input.

    FILE is HuJSON, as Tailscale and Headscale write it. Capabilities and ports are those of the settings.
    The exit code is 1 if there is an error.
    """
    from tailbone.policy_file.lint import Server
    from tailbone.policy_file.lint import lint as lint_text

    config = invocation.load()
    with click.open_file(file, "rb") as opened:
        content: bytes = opened.read()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise TailboneError(f"{file} is not UTF-8") from None
    found, valid = lint_text(
        text,
        Server(
            token_capability=config.issuer.capability,
            admin_capability=config.admin.capability,
            port=config.server.port,
            admin_port=config.admin.port,
        ),
    )
    if config.output == "text":
        for finding in found:
            click.echo(f"{file}:{finding.line}: {finding.level}: {finding.message}")
        click.echo(f"{valid} valid {'rule' if valid == 1 else 'rules'}", err=True)
    else:
        click.echo(render([_as_dict(finding) for finding in found], config.output))
    click.get_current_context().exit(1 if any(finding.level == "error" for finding in found) else 0)


@policy.command(cls=Command, settings="policy example")
def example() -> None:
    """Print a minimal policy."""
    from tailbone.policy_file.example import EXAMPLE

    click.echo(EXAMPLE, nl=False)


def _as_dict(finding: Finding) -> dict[str, object]:
    return {"line": finding.line, "level": finding.level, "message": finding.message}
