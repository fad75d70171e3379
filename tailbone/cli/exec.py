"""``tailbone exec``: run a command with tokens."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from tailbone.cli.issuer import issuer_options, tokens_of
from tailbone.cli.options import Command, Invocation, pass_invocation
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tailbone.agent.command import CommandProcess
    from tailbone.agent.sdk import Setup
    from tailbone.cli.issuer import IssuerFlags


@click.command("exec", cls=Command)
@click.option("--aws", "role_arn", metavar="ROLE_ARN", help="AWS: assume this role.")
@click.option(
    "--aws-session-name", default="tailbone", show_default=True, metavar="NAME", help="Shown in CloudTrail."
)
@click.option("--aws-audience", default="sts.amazonaws.com", show_default=True, metavar="AUDIENCE")
@click.option(
    "--gcp",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Google Cloud: a configuration made by `gcloud iam workload-identity-pools create-cred-config`.",
)
@click.option("--azure", metavar="CLIENT:TENANT", help="Azure: a client id and a tenant id.")
@click.option("--azure-audience", default="api://AzureADTokenExchange", show_default=True, metavar="AUDIENCE")
@click.option("--vault", metavar="ADDR:ROLE", help="Vault or OpenBao: log in once at start.")
@click.option("--vault-audience", default="vault", show_default=True, metavar="AUDIENCE")
@click.option(
    "--kubernetes",
    metavar="AUDIENCE",
    help="Kubernetes: the current context's cluster, with a token of this audience.",
)
@click.option(
    "--claude",
    metavar="RULE:ORGANIZATION[:SERVICE_ACCOUNT[:WORKSPACE]]",
    help="Claude API: the ids of a federation rule.",
)
@click.option("--claude-audience", default="https://api.anthropic.com", show_default=True, metavar="AUDIENCE")
@click.option(
    "--file", "files", multiple=True, metavar="AUDIENCE=PATH", help="Keep a token in this file. Repeatable."
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="AUDIENCE=NAME",
    help="Put a token into this variable, once at start. Repeatable.",
)
@issuer_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
@pass_invocation
def exec_(
    invocation: Invocation,
    role_arn: str | None,
    aws_session_name: str,
    aws_audience: str,
    gcp: Path | None,
    azure: str | None,
    azure_audience: str,
    vault: str | None,
    vault_audience: str,
    kubernetes: str | None,
    claude: str | None,
    claude_audience: str,
    files: tuple[str, ...],
    variables: tuple[str, ...],
    command: tuple[str, ...],
    **flags: Unpack[IssuerFlags],
) -> None:
    """Run COMMAND with tokens, and exit with its status.

    The tokens are in files of a private folder, are renewed while COMMAND runs, and are removed with it. The
    variables of each SDK are set, and TAILBONE_AGENT for further commands of tailbone. COMMAND replaces this
    process, so it has its terminal and gets its signals; a child of it renews the tokens.
    """
    from tailbone.agent import sdk
    from tailbone.agent.command import VaultLogin, Wanted, become_command, serve_command
    from tailbone.agent.files import token_file
    from tailbone.process import log
    from tailbone.process.command import check_command
    from tailbone.temporary import TemporaryFolder

    config = invocation.load()
    log.configure(config.log, stream=sys.stderr)
    login = None
    if vault:
        address, _, role = vault.rpartition(":")
        if not role or "//" not in address:
            raise ConfigError("--vault must be ADDR:ROLE, such as https://vault.example:8200:ci")
        login = VaultLogin(address, role, vault_audience)
    named = dict(sdk.parse_pair(text, "--env", "NAME")[::-1] for text in variables)
    own_files = [
        token_file(path, audience)
        for audience, path in (sdk.parse_pair(text, "--file", "PATH") for text in files)
    ]
    check_command(command)

    def setups(folder: Path) -> Iterator[Setup]:
        if role_arn:
            yield sdk.for_aws(folder, role_arn, aws_session_name, aws_audience)
        if gcp:
            yield sdk.for_gcp(folder, gcp)
        if azure:
            yield sdk.for_azure(folder, azure, azure_audience)
        if claude:
            yield sdk.for_claude(folder, claude, claude_audience)
        if kubernetes:
            first = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
            yield sdk.for_kubernetes(
                folder, kubernetes, Path(first) if first else Path.home() / ".kube" / "config"
            )

    def agent(process: CommandProcess) -> None:
        folder = TemporaryFolder.make(name="exec-")
        try:
            wanted = Wanted(list(setups(folder.path)), own_files, named, login)
            for warning in sdk.shadowed(wanted.setups, os.environ):
                click.echo(f"tailbone: warning: {warning}", err=True)
            with tokens_of(**flags) as issuer:
                serve_command(process, issuer, wanted, folder.path)
        finally:
            folder.remove()

    click.get_current_context().exit(become_command(command, os.environ, agent))
