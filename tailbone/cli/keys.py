"""``tailbone keys``: generate, list, remove, status."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from tailbone.cli.admin import admin_client
from tailbone.cli.options import Command, Group, Invocation, pass_invocation
from tailbone.cli.output import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tailbone.admin._proto.admin_pb2 import Key
    from tailbone.admin.client import AdminClient
    from tailbone.config.model import Config


@click.group(cls=Group)
def keys() -> None:
    """Generate, list and remove the signing keys of a running server.

    Flags may also precede the command: `tailbone keys --host tailbone-2 list`.
    """


@keys.command(cls=Command, settings="keys generate")
@pass_invocation
def generate(invocation: Invocation) -> None:
    """Generate a signing key pair on the server.

    Returns once the public key is published. The key starts signing after verifiers' caches have expired.
    Size and algorithm are those of the server's settings, unless set here.
    """
    config = invocation.load()
    if config.keys.algorithm == "ES256" and config.origin("keys.size").startswith("flag"):
        raise click.UsageError("--size is for RSA keys: every ES256 key is on the curve P-256.")
    with admin_client(config) as client:
        made = client.generate(
            size=config.keys.size if "keys.size" in config.origins else None,
            algorithm=config.keys.algorithm if "keys.algorithm" in config.origins else None,
        )
    if config.output == "text":
        _print_table([made])
    else:
        click.echo(render([{"key": _as_dict(made)}], config.output))


@keys.command("list", cls=Command, settings="keys list", aliases=("ls",))
@click.option("--local", is_flag=True, help="List the keys in the local keys.dir, without asking a server.")
@pass_invocation
def list_(invocation: Invocation, local: bool) -> None:
    """List the keys of the published JWKS."""
    config = invocation.load()
    if local:
        from tailbone.admin.key import folder_keys

        found = folder_keys(config.keys.dir)
    else:
        with admin_client(config) as client:
            found = client.list()
    _print_keys(found, config)


@keys.command(cls=Command, settings="keys remove")
@click.argument("key_id", metavar="KEY_ID")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@pass_invocation
def remove(invocation: Invocation, key_id: str, yes: bool) -> None:
    """Remove a key. The tokens that it signed stop verifying."""
    config = invocation.load()
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask on. Use --yes to remove the key without asking.")
    with admin_client(config) as client:
        if not yes and not _confirmed(client, key_id):
            click.echo("Nothing was removed.", err=True)
            return
        left = client.remove(key_id)
    _print_keys(left, config)
    from tailbone.admin.key import can_sign

    if not any(map(can_sign, left)):
        click.echo(
            "tailbone: warning: no signing key is left; no tokens can be issued until you run "
            "`tailbone keys generate`",
            err=True,
        )


@keys.command(cls=Command, settings="keys status")
@pass_invocation
def status(invocation: Invocation) -> None:
    """Show the server's version, whether it can issue tokens, and why not."""
    config = invocation.load()
    with admin_client(config) as client:
        found = client.status()
    if config.output == "text":
        from tailbone.cli.key_table import status_lines

        click.echo("\n".join(status_lines(found)))
        return
    from google.protobuf.json_format import MessageToDict

    fields = MessageToDict(found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    # Protobuf's JSON form writes 64-bit integers as strings.
    click.echo(render({**fields, "started_at": found.started_at}, config.output))


def _confirmed(client: AdminClient, key_id: str) -> bool:
    from tailbone.admin.key import removal_warning

    warning = removal_warning(client.list(), key_id)
    return click.confirm(f"{warning} Remove it?", err=True)


def _print_keys(found: Sequence[Key], config: Config) -> None:
    if config.output == "text":
        _print_table(found)
    else:
        click.echo(render([_as_dict(key) for key in found], config.output))


def _print_table(found: Sequence[Key]) -> None:
    from tailbone.cli.key_table import show

    show(found)


def _as_dict(key: Key) -> dict[str, object]:
    """Return a key's fields: first those that scripts rely on, then the others that are known."""
    fields: dict[str, object] = {
        "key_id": key.key_id,
        "algorithm": key.algorithm,
        "created_at": key.created_at,
    }
    if key.state:
        fields |= {"state": key.state, "foreign": key.foreign}
    if key.next_change:
        fields |= {"next_change": key.next_change, "next_change_at": key.next_change_at}
    if key.fault:
        fields["fault"] = key.fault
    return fields
