"""``tailbone doctor``: checks, and what to paste."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Unpack

import click

from tailbone.cli.issuer import issuer_of, issuer_options
from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import columns, render

if TYPE_CHECKING:
    from tailbone.cli.issuer import IssuerFlags
    from tailbone.doctor.doctor import Report

TARGETS = (
    "aws",
    "gcp",
    "azure",
    "vault",
    "kubernetes",
    "snowflake",
    "databricks",
    "claude",
    "openai",
    "tailscale",
)


@click.command(cls=Command, settings="doctor")
@click.option("--for", "target", type=click.Choice(TARGETS), help="Check the rules of this verifier too.")
@click.option(
    "--audience",
    default="",
    metavar="AUDIENCE",
    help="Audience of the tokens.  [default: the verifier's]",
)
@issuer_options
@pass_invocation
def doctor(invocation: Invocation, target: str | None, audience: str, **flags: Unpack[IssuerFlags]) -> None:
    """Check whether verifiers will accept the tokens, and print what to paste to configure them.

    Runs on any machine: on the server's with its settings, on a caller's with none. Exits with 1 if a check
    fails.
    """
    config = invocation.load()
    from tailbone.doctor.doctor import examine
    from tailbone.doctor.targets import TARGETS
    from tailbone.process import log

    log.configure(config.log, stream=sys.stderr)
    with issuer_of(**flags) as server:
        report = asyncio.run(
            examine(
                config,
                TARGETS[target] if target else None,
                audience=audience,
                server=server,
                log=log.get_logger(),
            )
        )
    if config.output == "text":
        _print_text(report)
    else:
        _print(report, config.output)
    click.get_current_context().exit(0 if report.ok else 1)


def _print(report: Report, form: str) -> None:
    import msgspec

    from tailbone.doctor.targets import placeholders_in

    fields = {
        "ok": report.ok,
        "checks": msgspec.to_builtins(report.findings),
        "paste": msgspec.to_builtins(report.snippets),
        "replace": placeholders_in(report.snippets),
    }
    click.echo(render(fields, form))


def _print_text(report: Report) -> None:
    from tailbone.doctor.targets import placeholders_in

    for line in columns([(finding.level, finding.check, str(finding)) for finding in report.findings]):
        click.echo(line)
    for snippet in report.snippets:
        click.echo(f"\n# {snippet.title}\n\n{snippet.text}", nl=False)
    replace = placeholders_in(report.snippets)
    if replace:
        click.echo("\n# replace\n")
        for line in columns(list(replace.items())):
            click.echo(line)
