"""Keys and a server's status as text for people: a table on a terminal, plain columns in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from tailbone.cli.output import columns
from tailbone.text import UNKNOWN, about, escape, moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.admin._proto.admin_pb2 import GetStatusResponse, Key

_HEADERS = ("KEY ID", "ALGORITHM", "STATE", "CREATED", "NEXT")
_STYLES = {"active": "green", "faulty": "red", "foreign": "dim"}


def show(keys: Sequence[Key]) -> None:
    """Print keys to standard output.

    Args:
        keys: the keys, in the order to show them.
    """
    now = time.time()
    rows = [row(key, now) for key in keys]
    if not rows:
        click.echo("no keys")
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for line in columns((_HEADERS, *rows)):
            click.echo(line)


def row(key: Key, now: float) -> tuple[str, ...]:
    """Return the cells of a key's row.

    Args:
        key: the key.
        now: Unix seconds.
    """
    created = moment(key.created_at)
    state = key.state
    if key.foreign:
        state = "foreign" if created == UNKNOWN else f"foreign, {about(now - key.created_at)} old"
    return tuple(map(escape, (key.key_id, key.algorithm, state, created, _next(key, now))))


def status_lines(status: GetStatusResponse) -> list[str]:
    """Return a server's status as lines."""
    void_rules = [("void rules", f"{status.void_rules} in the tailnet's policy: the log says why")]
    rows = [
        ("server", f"tailbone {status.version} (commit {status.commit})"),
        ("up since", moment(status.started_at)),
        ("tokens", "yes" if status.ready else "no"),
        *(("", reason) for reason in status.reasons),
        ("signs", status.signing_key_id or "no key"),
        ("issuer", status.issuer),
        ("JWKS", status.jwks or "not published: no bucket is set"),
        *(void_rules if status.void_rules else ()),
        ("you are", f"{status.caller} ({', '.join(status.roles)})"),
    ]
    return columns(rows)


def _next(key: Key, now: float) -> str:
    if not key.next_change:
        return key.fault
    if not key.next_change_at:
        return f"{key.next_change} soon"
    left = key.next_change_at - now
    return f"{key.next_change} in {about(left)}" if left >= 1 else f"{key.next_change} now"


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    # These imports take as long as the rest of the command, so a pipe does without.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in _HEADERS:
        table.add_column(header, no_wrap=header == _HEADERS[0])
    for cells in rows:
        style = _STYLES.get(cells[2].partition(",")[0], "")
        table.add_row(*(Text(cell, style=style) for cell in cells))
    Console().print(table)
