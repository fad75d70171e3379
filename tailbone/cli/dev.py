"""``tailbone dev``: parse its flags, run it, print its addresses."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import render

if TYPE_CHECKING:
    from tailbone.dev import DevInfo

_UNUSED = ("admin.binding", "components", "keys.dir", "server.binding", "server.tailscale.")
_WIDER_THAN_ANY = 1000
_URL_WIDTH = len("http://127.0.0.1:65535/issue")


@click.command(cls=Command, settings="dev")
@click.option(
    "--as",
    "identities",
    multiple=True,
    metavar="IDENTITY",
    help="A caller: a login (dev@example.com) or a tag (tag:ci). Repeatable; the default is these two.",
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Address of the first caller; each further one gets the next port. Port 0 picks free ports.",
)
@click.option("--jwks-listen", metavar="HOST:PORT", help="Address of the JWKS.  [default: 127.0.0.1:8090]")
@click.option(
    "--admin-listen", metavar="HOST:PORT", help="Address of the admin API.  [default: 127.0.0.1:50051]"
)
@click.option(
    "--state-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep tailnet, nodes and keys in this folder between runs, instead of in a temporary one.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@pass_invocation
def dev(
    invocation: Invocation,
    identities: tuple[str, ...],
    listen: str,
    jwks_listen: str | None,
    admin_listen: str | None,
    state_dir: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run everything locally on a private tailnet, for evaluation and tests.

    Needs no account, no root and no internet. With `-- COMMAND`, runs COMMAND with TAILBONE_ISSUE_URL,
    TAILBONE_JWKS_URL, TAILBONE_ADMIN, TB_ADMIN_CLIENT_HOST and TB_ADMIN_CLIENT_PORT set, and exits with its
    status. Standard output is then COMMAND's; the table or line goes to standard error, as logs do.
    """
    config = invocation.load(isolated=True)
    unused = [f"{path} ({origin})" for path, origin in config.origins.items() if path.startswith(_UNUSED)]
    if unused:
        click.echo(f"tailbone: note: dev sets these itself, and ignores {', '.join(unused)}", err=True)
    from tailbone import dev as dev_mode
    from tailbone.process import log
    from tailbone.tsnet.environment import check_environment

    check_environment()
    log.configure(config.log, stream=sys.stderr)
    first = dev_mode.parse_endpoint(listen, "--listen")
    free = first.port == 0
    settings = dev_mode.DevSettings(
        identities=dev_mode.check_identities(identities),
        listen=first,
        jwks_listen=dev_mode.parse_endpoint(
            jwks_listen or ("127.0.0.1:0" if free else "127.0.0.1:8090"), "--jwks-listen"
        ),
        admin_listen=dev_mode.parse_endpoint(
            admin_listen or ("127.0.0.1:0" if free else "127.0.0.1:50051"), "--admin-listen"
        ),
        state_dir=state_dir,
        bucket=dev_mode.check_bucket(config),
    )

    def show(info: DevInfo) -> None:
        stream = sys.stderr if command else sys.stdout
        if config.output == "text":
            _show_text(info, stream)
        else:
            _show_for_programs(info, config.output, stream)

    click.get_current_context().exit(dev_mode.run(config, settings, on_ready=show, command=command))


def _show_for_programs(info: DevInfo, form: str, stream: TextIO) -> None:
    import msgspec

    click.echo(render(msgspec.to_builtins(info), form), file=stream)


def _rows(info: DevInfo) -> list[tuple[str, str, str]]:
    rows = [("tailnet", info.tailnet, "(private, on 127.0.0.1)")]
    for number, (identity, url) in enumerate(info.callers.items()):
        rows.append(("" if number else "issuer", f"{url}/issue", f"as {identity}"))
    rows.append(("admin", info.admin, ""))
    rows.append(("JWKS", info.jwks_url, ""))
    rows.append(("try", f"curl -X POST {next(iter(info.callers.values()))}/issue", ""))
    return rows


def _show_text(info: DevInfo, stream: TextIO) -> None:
    """Print a table on a terminal, plain columns elsewhere."""
    rows = _rows(info)
    if stream.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold cyan", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        # Wider than any terminal: a URL that the terminal wraps can be copied, one that rich wraps cannot.
        Console(file=stream, width=_WIDER_THAN_ANY).print(table)
    else:
        width = max(_URL_WIDTH, *(len(what) for _, what, note in rows if note))
        for name, what, note in rows:
            print(f"{name:<11} {what:<{width}}  {note}".rstrip(), file=stream)
    stream.flush()
