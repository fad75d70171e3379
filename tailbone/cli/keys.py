"""``tailbone keys``: generate, list, remove, status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tailbone.cli.options import Command, Group, Invocation, pass_invocation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.admin.client import AdminClient
    from tailbone.admin.listing import Key
    from tailbone.config.model import Config

DEFAULT_HOST = "tailbone"


@click.group(cls=Group)
def keys() -> None:
    """Make, list and remove the signing keys of a running server.

    The flags of the commands may also stand before them: `tailbone keys --host tailbone-2 list`.
    """


@keys.command(cls=Command, settings="keys generate")
@pass_invocation
def generate(invocation: Invocation) -> None:
    """Make a signing key pair on the server.

    It answers when the public half is published; the key signs when verifiers had time to see it.
    Size and algorithm are the server's own, unless set here.
    """
    config = invocation.load()
    if config.keys.algorithm == "ES256" and config.origin("keys.size").startswith("flag"):
        raise click.UsageError("--size is for RSA keys: every ES256 key is on the curve P-256.")
    with _client(config) as client:
        made = client.generate(
            size=config.keys.size if "keys.size" in config.origins else None,
            algorithm=config.keys.algorithm if "keys.algorithm" in config.origins else None,
        )
    if config.output == "text":
        _print_table([made])
    else:
        _print([{"key": _facts(made)}], config)


@keys.command("list", cls=Command, settings="keys list", aliases=("ls",))
@click.option("--local", is_flag=True, help="List the keys in this machine's keys.dir; no server is asked.")
@pass_invocation
def list_(invocation: Invocation, local: bool) -> None:
    """List the keys of the published JWKS."""
    config = invocation.load()
    if local:
        from tailbone.admin.listing import folder_keys

        found = folder_keys(config.keys.dir)
    else:
        with _client(config) as client:
            found = client.list()
    _print_keys(found, config)


@keys.command(cls=Command, settings="keys remove")
@click.argument("key_id", metavar="KEY_ID")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@pass_invocation
def remove(invocation: Invocation, key_id: str, yes: bool) -> None:
    """Remove a key: the tokens that it signed stop verifying."""
    config = invocation.load()
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on: --yes removes the key without asking.")
    with _client(config) as client:
        if not yes and not _confirmed(client, key_id):
            click.echo("Nothing was removed.", err=True)
            return
        left = client.remove(key_id)
    _print_keys(left, config)
    if not any(key.can_sign for key in left):
        click.echo(
            "tailbone: warning: no key can sign now: no token is issued until `tailbone keys generate`",
            err=True,
        )


@keys.command(cls=Command, settings="keys status")
@pass_invocation
def status(invocation: Invocation) -> None:
    """Say what the server is, whether it can issue tokens, and why not."""
    config = invocation.load()
    with _client(config) as client:
        found = client.status()
    if config.output == "text":
        from tailbone.cli.key_table import status_lines

        click.echo("\n".join(status_lines(found)))
        return
    import msgspec

    _print(msgspec.to_builtins(found), config)


def _client(config: Config) -> AdminClient:
    from tailbone.admin.client import AdminClient

    return AdminClient(config.admin.client.host or DEFAULT_HOST, config.admin.client.port)


def _confirmed(client: AdminClient, key_id: str) -> bool:
    from tailbone.admin.listing import removal_warning

    warning = removal_warning(client.list(), key_id)
    return click.confirm(f"{warning} Remove it?", err=True)


def _print_keys(found: Sequence[Key], config: Config) -> None:
    if config.output == "text":
        _print_table(found)
    else:
        _print([_facts(key) for key in found], config)


def _print_table(found: Sequence[Key]) -> None:
    from tailbone.cli.key_table import show

    show(found)


def _print(value: object, config: Config) -> None:
    from tailbone.cli.output import render

    click.echo(render(value, config.output))


def _facts(key: Key) -> dict[str, object]:
    """Give a key as scripts know it, and after that what else is known of it."""
    facts: dict[str, object] = {
        "key_id": key.key_id,
        "algorithm": key.algorithm,
        "created_at": key.created_at,
    }
    if key.state:
        facts |= {"state": key.state, "foreign": key.foreign}
    if key.next_change:
        facts |= {"next_change": key.next_change, "next_change_at": key.next_change_at}
    if key.fault:
        facts["fault"] = key.fault
    return facts
