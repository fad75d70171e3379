"""``tailbone verify``: check a token, or serve a forward-auth endpoint that checks tokens for a proxy."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import columns, render
from tailbone.errors import ConfigError
from tailbone.text import quote

if TYPE_CHECKING:
    from tailbone.verify import Requirement
    from tailbone.verify.report import Report

_TIMES = ("exp", "iat", "nbf")


@click.command(cls=Command)
@click.option("--issuer", default="", metavar="URL", help="What the claim iss must be.")
@click.option("--jwks-url", metavar="URL", help="The JWKS.  [default: found by the issuer]")
@click.option(
    "--audience", "audiences", multiple=True, metavar="NAME", help="What the claim aud must have. Repeatable."
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Permit nodes with this tag. Repeatable.")
@click.option(
    "--user", "users", multiple=True, metavar="USER", help="Permit this login or claim sub. Repeatable."
)
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Permit this group. Repeatable.")
@click.option("--scope", default="", metavar="WORDS", help="Words that the claim scope must have.")
@click.option("--serve", metavar="HOST:PORT", help="Answer a proxy's requests (forward auth).")
@click.argument("token", required=False)
@pass_invocation
def verify(
    invocation: Invocation,
    issuer: str,
    jwks_url: str | None,
    audiences: tuple[str, ...],
    tags: tuple[str, ...],
    users: tuple[str, ...],
    groups: tuple[str, ...],
    scope: str,
    serve: str | None,
    token: str | None,
) -> None:
    """Show what is in a token, whether it verifies, and why not.

    Without TOKEN it is read from standard input, where other users of the machine cannot see it:
    `tailbone token | tailbone verify`. Exits with 1 if the token does not verify.

    With --tag, --user or --group, the caller must be one of them. With --serve, it answers each request with
    200 and the caller's identity in X-Tailbone-* fields, or with 401 or 403, for nginx, Caddy, Traefik and
    Envoy; it then needs --issuer and --audience.
    """
    from tailbone.verify import require

    requirement = require(tags=tags, users=users, groups=groups, scope=scope)
    if serve is not None:
        if token is not None:
            raise ConfigError("flag --serve: use it without a token")
        _serve(invocation, serve, issuer, jwks_url, audiences, requirement)
        return
    from tailbone.verify.report import report_on

    form = invocation.output()
    report = report_on(
        token or _from_standard_input(),
        issuer=issuer,
        jwks_url=jwks_url,
        audience=audiences,
        require=requirement,
    )
    if form == "text":
        _show(report)
    else:
        import msgspec

        click.echo(render(msgspec.to_builtins(report), form))
    click.get_current_context().exit(0 if report.verified else 1)


def _serve(
    invocation: Invocation,
    serve: str,
    issuer: str,
    jwks_url: str | None,
    audiences: tuple[str, ...],
    requirement: Requirement,
) -> None:
    from tailbone.config.checks import parse_host_port

    try:
        address = parse_host_port(serve)
    except ValueError as error:
        raise ConfigError(f"flag --serve: {quote(serve)} {error}, such as 127.0.0.1:9000") from None
    if not issuer or not audiences:
        raise ConfigError("flag --serve: it needs --issuer and --audience")
    config = invocation.load()
    import fcntl  # noqa: F401 -- the server's signals need Unix, too; `Root` reports that in one line

    from tailbone import forward_auth, web
    from tailbone.process import log
    from tailbone.verify import AsyncVerifier

    log.configure(config.log, stream=sys.stdout)
    verifier = AsyncVerifier(issuer, audiences, jwks_url=jwks_url)
    forward_auth.run(verifier, requirement, web.listen(*address))


def _from_standard_input() -> str:
    if sys.stdin.isatty():
        raise ConfigError("no token: name it, or pipe it to standard input")
    return sys.stdin.read().strip()


def _show(report: Report) -> None:
    verdict = "yes" if report.verified else f"no: {report.message} ({report.error})"
    rows = [("verified", verdict)]
    rows += [(f"header {name}", _text(value)) for name, value in report.header.items()]
    for name, value in report.claims.items():
        rows.append((name, _time(value) if name in _TIMES else _text(value)))
    for line in columns(rows):
        click.echo(line)
    for note in report.notes:
        click.echo(f"tailbone: note: {note}", err=True)


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def _time(value: Any) -> str:
    """Return a NumericDate with its date."""
    try:
        return f"{value} ({datetime.fromtimestamp(value, UTC).isoformat(timespec='seconds')})"
    except (TypeError, ValueError, OverflowError, OSError):
        return _text(value)
