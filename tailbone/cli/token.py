"""``tailbone token``: print a token, its claims, or why it would contain what."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Unpack

import click

from tailbone.cli.durations import DurationType
from tailbone.cli.issuer import issuer_of, issuer_options, tokens_of
from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import render
from tailbone.errors import ConfigError, IssuerUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tailbone.cli.issuer import IssuerFlags

_PAUSE_S = 0.5


@click.command(cls=Command)
@click.option("--audience", "-a", default="", help="The claim aud; default: none.")
@click.option("--ttl", type=DurationType(), metavar="DURATION", help="Lifetime; by default the issuer's.")
@click.option(
    "--wait",
    "wait_s",
    type=DurationType(),
    default=0.0,
    metavar="DURATION",
    help="Keep trying this long while the issuer is unreachable.",
)
@click.option("--claims", is_flag=True, help="Print the token's claims instead of the token.")
@click.option("--explain", is_flag=True, help="Print what a token would contain and why; nothing is signed.")
@issuer_options
@pass_invocation
def token(
    invocation: Invocation,
    audience: str,
    ttl: float | None,
    wait_s: float,
    claims: bool,
    explain: bool,
    **flags: Unpack[IssuerFlags],
) -> None:
    """Get a token from the issuer, and print it.

    Standard output is the token and a newline, and nothing else.
    """
    if claims and explain:
        raise ConfigError("--claims and --explain exclude each other")
    form = invocation.output()
    if explain:
        with issuer_of(**flags) as issuer:
            _print(_until(wait_s, lambda: issuer.explain(audience, ttl)), form)
        return
    with tokens_of(**flags) as tokens:
        issued = _until(wait_s, lambda: tokens.issue(audience, ttl))
    if claims:
        from tailbone.client.token import claims_of

        _print(claims_of(issued.value), form)
    elif form == "text":
        click.echo(issued.value)
    else:
        _print({"token": issued.value, "expires_at": issued.expires_at}, form)


def _until(wait_s: float, ask: Callable[[], Any]) -> Any:
    """Ask until the issuer answers, or the time is up."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return ask()
        except IssuerUnreachableError:
            if time.monotonic() + _PAUSE_S > end:
                raise
        time.sleep(_PAUSE_S)


def _print(value: dict[str, Any], form: str) -> None:
    if form == "text":
        import json

        click.echo(json.dumps(value, indent=2))
    else:
        click.echo(render(value, form))
