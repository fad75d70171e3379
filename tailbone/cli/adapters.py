"""Commands that SDKs and tools run themselves: ``aws``, ``gcp``, ``kubernetes``, ``vault login``."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import click

from tailbone.cli.durations import DurationType
from tailbone.cli.issuer import deciding_values, issuer_options, tokens_of
from tailbone.cli.options import Command, Group, Invocation, pass_invocation
from tailbone.cli.output import render
from tailbone.errors import ConfigError, TailboneError
from tailbone.json_object import parse_object

if TYPE_CHECKING:
    from tailbone.cli.issuer import IssuerFlags

_REUSED_S = 900
"""AWS SDKs ask for new credentials from 15 min before the end of the old ones."""

_KUBERNETES_EARLY_S = 30
"""client-go runs the plugin only after the end that it was given."""

_GCP_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:jwt"  # noqa: S105 -- a name, not a token


@click.command(cls=Command)
@click.argument("role_arn")
@click.option("--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], default="", help="Region of STS.")
@click.option(
    "--duration", type=DurationType(), default="1h", show_default=True, help="Life of the credentials."
)
@click.option("--session-name", default="tailbone", show_default=True, help="Shown in CloudTrail.")
@click.option("--audience", "-a", default="sts.amazonaws.com", show_default=True)
@click.option(
    "--endpoint-url", envvar="AWS_ENDPOINT_URL_STS", default="", metavar="URL", help="Another STS server."
)
@issuer_options
def aws(
    role_arn: str,
    region: str,
    duration: float,
    session_name: str,
    audience: str,
    endpoint_url: str,
    **flags: Unpack[IssuerFlags],
) -> None:
    """Print credentials of an AWS role, for `credential_process`.

    They are kept in $XDG_CACHE_HOME/tailbone, since SDKs run this for each process.
    """
    from tailbone.client.aws import Role
    from tailbone.client.credentials_cache import CredentialsCache

    role = Role(role_arn, region, audience, int(duration), session_name, endpoint_url)
    account = role.account
    cache = CredentialsCache([*map(str, role), *deciding_values(**flags)])
    with cache.locked():
        entry = cache.read()
        if _left_s(entry.get("Expiration")) < min(_REUSED_S, duration / 2):
            from tailbone.client.sts import assume  # a cached answer must not wait for it

            with tokens_of(**flags) as tokens:
                token = tokens.issue(audience)
            found = assume(role, token.value)
            entry = {
                "Version": 1,
                "AccessKeyId": found.access_key_id,
                "SecretAccessKey": found.secret_access_key,
                "SessionToken": found.session_token,
                "Expiration": found.expiration,
                "AccountId": account,
            }
            cache.write(entry)
    click.echo(json.dumps(entry))


def _left_s(expiration: object) -> float:
    """Return the seconds until an ISO 8601 time; 0 if it is not one."""
    try:
        end = dt.datetime.fromisoformat(str(expiration))
    except ValueError:
        return 0.0
    return (end - dt.datetime.now(dt.UTC)).total_seconds() if end.tzinfo else 0.0


@click.command(cls=Command)
@click.option(
    "--audience",
    "-a",
    envvar="GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE",
    default="",
    help="By default that of the credential configuration, which Google's SDKs put into a variable.",
)
@issuer_options
def gcp(audience: str, **flags: Unpack[IssuerFlags]) -> None:
    """Print a token for Google Cloud's SDKs, as their executable credential source.

    Google's SDKs need GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1. They read standard error as part of the
    answer, so failures are in the answer as well, with exit code 0.
    """
    answer: dict[str, Any]
    try:
        if not audience:
            raise ConfigError("there is no audience: set GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE or --audience")
        # Notes too would be read as part of the answer.
        with contextlib.redirect_stderr(io.StringIO()), tokens_of(**flags) as tokens:
            token = tokens.issue(audience)
        answer = {
            "version": 1,
            "success": True,
            "token_type": _GCP_TOKEN_TYPE,
            "id_token": token.value,
            "expiration_time": token.expires_at,
        }
        output_file = os.environ.get("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE")
        if output_file:
            from tailbone.files import Disk

            Disk().replace(Path(output_file).absolute(), json.dumps(answer).encode(), mode=0o600)
    except TailboneError as error:
        answer = {"version": 1, "success": False, "code": error.code, "message": error.message}
    except OSError as error:
        text = f"{error.filename}: {error.strerror}"
        answer = {"version": 1, "success": False, "code": "system_error", "message": text}
    click.echo(json.dumps(answer))


@click.command(cls=Command)
@click.option(
    "--audience", "-a", default="", help="By default the cluster's, in its extension client.authentication.…"
)
@issuer_options
def kubernetes(audience: str, **flags: Unpack[IssuerFlags]) -> None:
    """Print a token for kubectl and client-go, as their exec plugin.

    \b
    users:
    - name: tailnet
      user:
        exec:
          apiVersion: client.authentication.k8s.io/v1
          command: tailbone
          args: [kubernetes, --audience, my-cluster]
          interactiveMode: Never
    """
    version, from_cluster = _exec_info(os.environ.get("KUBERNETES_EXEC_INFO", ""))
    wanted = audience or from_cluster
    if not wanted:
        raise ConfigError("there is no audience: set --audience, or the cluster's extension")
    with tokens_of(**flags) as tokens:
        token = tokens.issue(wanted)
    end = dt.datetime.fromtimestamp(token.expires_at - _KUBERNETES_EARLY_S, dt.UTC)
    status = {"token": token.value, "expirationTimestamp": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
    click.echo(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))


def _exec_info(text: str) -> tuple[str, str]:
    """Return the requested version of the answer, and the cluster's audience, of KUBERNETES_EXEC_INFO."""
    version = "client.authentication.k8s.io/v1"
    if not text:
        return version, ""
    info: Any = parse_object(text)
    try:
        config = ((info.get("spec") or {}).get("cluster") or {}).get("config") or {}
        return str(info.get("apiVersion", version)), str(config.get("audience", ""))
    except AttributeError:
        raise ConfigError("KUBERNETES_EXEC_INFO is not an ExecCredential") from None


@click.group(cls=Group)
def vault() -> None:
    """Log in to Vault or OpenBao."""


@vault.command(cls=Command)
@click.option("--address", envvar=["VAULT_ADDR", "BAO_ADDR"], required=True, metavar="URL", help="Vault.")
@click.option("--role", required=True, help="A role of the auth method.")
@click.option("--audience", "-a", default="vault", show_default=True, help="The role's bound audience.")
@click.option("--mount", default="jwt", show_default=True, help="Where the auth method is enabled.")
@click.option("--print", "shows", is_flag=True, help="Print Vault's token, instead of storing it.")
@issuer_options
@pass_invocation
def login(
    invocation: Invocation,
    address: str,
    role: str,
    audience: str,
    mount: str,
    shows: bool,
    **flags: Unpack[IssuerFlags],
) -> None:
    """Log in with a token, and store Vault's token where its own commands look: ~/.vault-token."""
    from tailbone.client.vault import log_in

    form = invocation.output()
    with tokens_of(**flags) as tokens:
        token = tokens.issue(audience)
    found = log_in(address, role, token.value, mount=mount)
    if form != "text":
        fields = {"token": found.token, "lease_duration": found.lease_s, "renewable": found.renewable}
        click.echo(render(fields, form))
    elif shows:
        click.echo(found.token)
    else:
        from tailbone.files import Disk

        path = Path.home() / ".vault-token"
        Disk().replace(path, found.token.encode(), mode=0o600)
        click.echo(f"logged in as {role} for {found.lease_s} s; the token is in {path}")
