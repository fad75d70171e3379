"""``tailbone doctor``: checks, and what to paste."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Unpack

import click

from tailbone.cli.issuer import issuer_of, issuer_options
from tailbone.cli.options import Command, Invocation, pass_invocation

if TYPE_CHECKING:
    from tailbone.cli.issuer import Way
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
def doctor(invocation: Invocation, target: str | None, audience: str, **way: Unpack[Way]) -> None:
    """Check whether verifiers will accept the tokens, and print what to paste to configure them.

    Runs on any machine: on the server's with its settings, on a caller's with none. Exits with 1 if a check
    fails.
    """
    config = invocation.load()
    from tailbone.doctor.doctor import examine
    from tailbone.doctor.targets import TARGETS
    from tailbone.process import log

    log.configure(config.log, stream=sys.stderr)
    with issuer_of(**way) as server:
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
    sys.exit(0 if report.ok else 1)


def _print(report: Report, form: str) -> None:
    import msgspec

    from tailbone.cli.output import render
    from tailbone.doctor.targets import placeholders_in

    facts = {
        "ok": report.ok,
        "checks": msgspec.to_builtins(report.findings),
        "paste": msgspec.to_builtins(report.pastes),
        "replace": placeholders_in(report.pastes),
    }
    click.echo(render(facts, form))


def _print_text(report: Report) -> None:
    from tailbone.cli.key_table import columns, printable
    from tailbone.doctor.targets import placeholders_in

    rows = [(finding.level, finding.check, str(finding)) for finding in report.findings]
    for line in columns([tuple(map(printable, row)) for row in rows]):
        click.echo(line)
    for paste in report.pastes:
        click.echo(f"\n# {paste.title}\n\n{paste.text}", nl=False)
    replace = placeholders_in(report.pastes)
    if replace:
        click.echo("\n# replace\n")
        for line in columns(list(replace.items())):
            click.echo(line)
