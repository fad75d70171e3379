"""``tailbone explain``: what a node would get for an audience, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from tailbone.cli.admin import admin_client
from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.cli.output import columns, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailbone.admin._proto.admin_pb2 import ExplainResponse


@click.command(cls=Command, settings="explain")
@click.argument("node")
@click.option("--audience", metavar="AUDIENCE", help="Audience of the token.  [default: none]")
@pass_invocation
def explain(invocation: Invocation, node: str, audience: str | None) -> None:
    """Show what NODE would get for an audience, and why: each rule, and the claims or the refusal.

    NODE is a name or a tailnet address, as the server knows it. Nothing is issued.
    """
    config = invocation.load()
    with admin_client(config) as client:
        found = client.explain(node, audience)
    if config.output == "text":
        click.echo("\n".join(columns(list(_lines(found)))))
        return
    click.echo(render(_as_dict(found), config.output))


def _lines(found: ExplainResponse) -> Iterator[tuple[str, str]]:
    yield "node", f"{found.node} ({', '.join(found.addresses)})"
    yield "caller", f"{found.caller} ({found.sub})"
    for rule in found.rules:
        if rule.void:
            yield "void", json.loads(rule.rule)
            yield "", rule.void
        else:
            yield ("matches" if rule.matches else "other"), rule.rule
    for note in found.notes:
        yield "note", note
    if found.error:
        yield "refused", f"{found.error}: {found.message}"
        if found.detail:
            yield "", found.detail
        return
    for name, value in json.loads(found.claims).items():
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_dict(found: ExplainResponse) -> dict[str, object]:
    fields: dict[str, object] = {
        "node": found.node,
        "sub": found.sub,
        "caller": found.caller,
        "addresses": list(found.addresses),
        "rules": [
            {"rule": json.loads(rule.rule), "matches": rule.matches}
            | ({"void": rule.void} if rule.void else {})
            for rule in found.rules
        ],
        "notes": list(found.notes),
    }
    if found.error:
        refusal = {"error": found.error, "message": found.message}
        return fields | {"refusal": refusal | ({"detail": found.detail} if found.detail else {})}
    return fields | {"claims": json.loads(found.claims)}
