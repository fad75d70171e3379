"""The verifiers that doctor knows: their rules, and what their owners paste. Pure.

The rules are those of the verifiers' own documentation. A value that only the reader knows is a placeholder,
``YOUR_…``, which ``PLACEHOLDERS`` explains.
"""

from __future__ import annotations

import json
import re
from shlex import quote
from typing import TYPE_CHECKING, Final

import msgspec

from tailbone.algorithms import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PLACEHOLDERS: Final = {
    "YOUR_ISSUER_HOST": "the host of the issuer's URL (keys.issuer), and its path",
    "YOUR_SUBJECT": "the claim sub of the caller's tokens",
    "YOUR_AUDIENCE": "the audience that the tokens are for",
    "YOUR_TOKEN_FILE": "the path of a file that will contain a token",
    "YOUR_COMMAND": "the program that uses the token",
    "YOUR_ACCOUNT_ID": "the number of the AWS account",
    "YOUR_PROJECT_NUMBER": "the number of the Google Cloud project",
    "YOUR_PROJECT_ID": "the id of the Google Cloud project",
    "YOUR_GCP_ROLE": "the role that the caller gets, such as roles/storage.objectViewer",
    "YOUR_IDENTITY_NAME": "the name of the user-assigned managed identity",
    "YOUR_RESOURCE_GROUP": "the resource group of that identity",
    "YOUR_CLIENT_ID": "the client id that the verifier shows",
    "YOUR_TENANT_ID": "the id of the Entra tenant",
    "YOUR_POLICY": "the Vault policy that the caller gets",
    "YOUR_SNOWFLAKE_ACCOUNT": "the account's identifier",
    "YOUR_SERVICE_PRINCIPAL_ID": "the number of the service principal",
    "YOUR_WORKSPACE_URL": "the URL of the workspace",
    "YOUR_FEDERATION_RULE_ID": "the id of the federation rule (fdrl_…)",
    "YOUR_ORGANIZATION_ID": "the id of the organization",
    "YOUR_SERVICE_ACCOUNT_ID": "the id of the service account",
    "YOUR_IDENTITY_PROVIDER_ID": "the id of the identity provider",
}


class SnippetValues(msgspec.Struct, frozen=True, kw_only=True):
    """The values in snippets; an unknown one is its placeholder.

    Attributes:
        issuer: the claim iss.
        subject: the caller's claim sub.
        audience: the claim aud; empty for the verifier's own convention.
        tags: the caller's tags.
        has_aws_tags: whether its tokens contain session tags for AWS.
        issuer_url: where the caller gets tokens; empty for the default.
    """

    issuer: str = "https://YOUR_ISSUER_HOST"
    subject: str = "YOUR_SUBJECT"
    audience: str = ""
    tags: tuple[str, ...] = ()
    has_aws_tags: bool = False
    issuer_url: str = ""


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """A text to paste.

    Attributes:
        title: where it goes.
        language: of the text, as code blocks name it.
        text: the text, which ends with a line break.
    """

    title: str
    language: str
    text: str


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A verifier.

    Attributes:
        name: as in ``--for``.
        title: its own name.
        audience: the audience by its convention; ``YOUR_AUDIENCE`` if there is none.
        snippets: makes the snippets for its owner and for callers.
        algorithms: which signatures it accepts.
        is_public: it fetches the documents over the public internet, by https without a port.
        longest_issuer: in characters.
        subject: how many bytes the claim sub may have, at least and at most.
        least_life_s: how long a token must be valid for its SDK, in seconds.
        most_life_s: how long a token may be valid, in seconds.
        shadowing: variables that its SDK prefers to the token's file.
        harmless: of some of these, the values in lower case with which it does not.
    """

    name: str
    title: str
    audience: str
    snippets: Callable[[SnippetValues], list[Snippet]]
    algorithms: tuple[str, ...] = ALGORITHMS
    is_public: bool = True
    longest_issuer: int = 255
    subject: tuple[int, int] = (1, 255)
    least_life_s: float = 0.0
    most_life_s: float = 0.0
    shadowing: tuple[str, ...] = ()
    harmless: Mapping[str, tuple[str, ...]] = {}


def placeholders_in(snippets: Sequence[Snippet]) -> dict[str, str]:
    """Return the placeholders that snippets contain, and what replaces them."""
    words = {word for snippet in snippets for word in re.findall(r"YOUR_[A-Z_]+", snippet.text)}
    return {name: meaning for name, meaning in PLACEHOLDERS.items() if name in words}


def is_placeholder(text: str) -> bool:
    """Return whether a value is unknown, at least in part."""
    return "YOUR_" in text


def snippets_for(target: Target, values: SnippetValues) -> list[Snippet]:
    """Return the snippets for a target: its configuration, then how a caller uses it."""
    audience = values.audience or target.audience
    return target.snippets(msgspec.structs.replace(values, audience=audience))


def _sh(title: str, *lines: str) -> Snippet:
    return Snippet(title=title, language="sh", text="\n".join(lines) + "\n")


def _json(title: str, value: object) -> Snippet:
    return Snippet(title=title, language="json", text=json.dumps(value, indent=2) + "\n")


def _on_caller(values: SnippetValues, command: str, *variables: str) -> Snippet:
    """Return the command that runs another one with a token's file, which it keeps fresh."""
    flags = f"--file {quote(f'{values.audience}=YOUR_TOKEN_FILE')}"
    if values.issuer_url:
        flags += f" --issuer-url {quote(values.issuer_url)}"
    environment = f"env {' '.join(variables)} " if variables else ""
    return _sh("on the caller", f"tailbone exec {flags} -- {environment}{command}")


def _aws(values: SnippetValues) -> list[Snippet]:
    host = values.issuer.removeprefix("https://")
    assume: object = "sts:AssumeRoleWithWebIdentity"
    if values.has_aws_tags:
        # Without it AWS refuses tokens that contain session tags.
        assume = [assume, "sts:TagSession"]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": f"arn:aws:iam::YOUR_ACCOUNT_ID:oidc-provider/{host}"},
                "Action": assume,
                "Condition": {
                    "StringEquals": {f"{host}:aud": values.audience, f"{host}:sub": values.subject}
                },
            }
        ],
    }
    return [
        _json("trust policy, in the file trust.json", trust),
        _sh(
            "identity provider and role",
            "aws iam create-open-id-connect-provider "
            f"--url {quote(values.issuer)} --client-id-list {quote(values.audience)}",
            "aws iam create-role --role-name tailbone --assume-role-policy-document file://trust.json",
        ),
        _on_caller(
            values,
            "aws sts get-caller-identity",
            "AWS_WEB_IDENTITY_TOKEN_FILE=YOUR_TOKEN_FILE",
            "AWS_ROLE_ARN=arn:aws:iam::YOUR_ACCOUNT_ID:role/tailbone",
        ),
    ]


_GCP_PROVIDER: Final = (
    "projects/YOUR_PROJECT_NUMBER/locations/global/workloadIdentityPools/tailbone/providers/tailbone"
)


def _gcp(values: SnippetValues) -> list[Snippet]:
    mapping = "google.subject=assertion.sub,attribute.node=assertion.node"
    if values.tags:
        mapping += ",google.groups=assertion.tags"
    provider = (
        "gcloud iam workload-identity-pools providers create-oidc tailbone --location=global "
        f"--workload-identity-pool=tailbone --issuer-uri={quote(values.issuer)} "
        f"--attribute-mapping={mapping}"
    )
    if values.audience != f"//iam.googleapis.com/{_GCP_PROVIDER}":
        provider += f" --allowed-audiences={quote(values.audience)}"
    member = (
        "principal://iam.googleapis.com/projects/YOUR_PROJECT_NUMBER/locations/global/"
        f"workloadIdentityPools/tailbone/subject/{values.subject}"
    )
    return [
        _sh(
            "pool, provider and role",
            "gcloud iam workload-identity-pools create tailbone --location=global",
            provider,
            "gcloud projects add-iam-policy-binding YOUR_PROJECT_ID --role=YOUR_GCP_ROLE "
            f"--member={quote(member)}",
        ),
        _sh(
            "credential configuration, in the file gcp.json",
            f"gcloud iam workload-identity-pools create-cred-config {_GCP_PROVIDER} "
            "--credential-source-file=YOUR_TOKEN_FILE --output-file=gcp.json",
        ),
        _on_caller(values, "YOUR_COMMAND", "GOOGLE_APPLICATION_CREDENTIALS=gcp.json"),
    ]


def _azure(values: SnippetValues) -> list[Snippet]:
    return [
        _sh(
            "federated credential of a managed identity",
            "az identity federated-credential create --name tailbone --identity-name YOUR_IDENTITY_NAME "
            f"--resource-group YOUR_RESOURCE_GROUP --issuer {quote(values.issuer)} "
            f"--subject {quote(values.subject)} --audiences {quote(values.audience)}",
        ),
        _on_caller(
            values,
            "YOUR_COMMAND",
            "AZURE_CLIENT_ID=YOUR_CLIENT_ID",
            "AZURE_TENANT_ID=YOUR_TENANT_ID",
            "AZURE_FEDERATED_TOKEN_FILE=YOUR_TOKEN_FILE",
        ),
    ]


def _vault(values: SnippetValues) -> list[Snippet]:
    role = {
        "role_type": "jwt",
        "bound_audiences": [values.audience],
        "bound_subject": values.subject,
        "user_claim": "sub",
        "token_policies": ["YOUR_POLICY"],
        "token_ttl": "10m",
    }
    if values.tags:
        role["groups_claim"] = "tags"
    return [
        _sh(
            "auth method and role",
            "bao auth enable jwt",
            f"bao write auth/jwt/config oidc_discovery_url={quote(values.issuer)} "
            f"bound_issuer={quote(values.issuer)}",
            "bao write auth/jwt/role/tailbone - <<'END'",
            json.dumps(role, indent=2),
            "END",
        ),
        _on_caller(values, "bao write auth/jwt/login role=tailbone jwt=@YOUR_TOKEN_FILE"),
    ]


def _kubernetes(values: SnippetValues) -> list[Snippet]:
    configuration = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {json.dumps(values.issuer)}
    audiences: [{json.dumps(values.audience)}]
    audienceMatchPolicy: MatchAny
  claimMappings:
    username:
      claim: sub
      prefix: "tailnet:"
    groups:
      claim: tags
      prefix: "tailnet:"
    uid:
      claim: node_id
"""
    credentials = """\
apiVersion: v1
kind: Config
users:
- name: tailnet
  user:
    tokenFile: YOUR_TOKEN_FILE
"""
    return [
        Snippet(
            title="the file of kube-apiserver --authentication-config",
            language="yaml",
            text=configuration,
        ),
        _sh(
            "a role for the caller",
            "kubectl create clusterrolebinding tailbone --clusterrole=view "
            f"--user={quote('tailnet:' + values.subject)}",
        ),
        Snippet(title="in the caller's kubeconfig", language="yaml", text=credentials),
        _on_caller(values, "kubectl --user=tailnet auth whoami"),
    ]


def _snowflake(values: SnippetValues) -> list[Snippet]:
    issuer, subject, audience = (
        text.replace("'", "''") for text in (values.issuer, values.subject, values.audience)
    )
    user = (
        "CREATE USER tailbone TYPE = SERVICE WORKLOAD_IDENTITY = (\n"
        f"  TYPE = OIDC\n  ISSUER = '{issuer}'\n  SUBJECT = '{subject}'\n"
        f"  OIDC_AUDIENCE_LIST = ('{audience}')\n);\n"
    )
    connect = (
        "snowflake.connector.connect(\n"
        '    account="YOUR_SNOWFLAKE_ACCOUNT",\n    authenticator="WORKLOAD_IDENTITY",\n'
        '    workload_identity_provider="OIDC",\n    token_file_path="YOUR_TOKEN_FILE",\n)\n'
    )
    return [
        Snippet(title="user", language="sql", text=user),
        Snippet(title="in the caller's program", language="python", text=connect),
        _on_caller(values, "YOUR_COMMAND"),
    ]


def _databricks(values: SnippetValues) -> list[Snippet]:
    policy = {
        "oidc_policy": {
            "issuer": values.issuer,
            "audiences": [values.audience],
            "subject": values.subject,
        }
    }
    return [
        _json("federation policy, in the file policy.json", policy),
        _sh(
            "policy of the service principal",
            "databricks account service-principal-federation-policy create YOUR_SERVICE_PRINCIPAL_ID "
            "--json @policy.json",
        ),
        _on_caller(
            values,
            "YOUR_COMMAND",
            "DATABRICKS_AUTH_TYPE=file-oidc",
            "DATABRICKS_OIDC_TOKEN_FILEPATH=YOUR_TOKEN_FILE",
            "DATABRICKS_HOST=YOUR_WORKSPACE_URL",
            "DATABRICKS_CLIENT_ID=YOUR_CLIENT_ID",
        ),
    ]


def _claude(values: SnippetValues) -> list[Snippet]:
    return [
        _form("federation issuer and rule, in the Console", values),
        _on_caller(
            values,
            "YOUR_COMMAND",
            "ANTHROPIC_IDENTITY_TOKEN_FILE=YOUR_TOKEN_FILE",
            "ANTHROPIC_FEDERATION_RULE_ID=YOUR_FEDERATION_RULE_ID",
            "ANTHROPIC_ORGANIZATION_ID=YOUR_ORGANIZATION_ID",
            "ANTHROPIC_SERVICE_ACCOUNT_ID=YOUR_SERVICE_ACCOUNT_ID",
        ),
    ]


def _openai(values: SnippetValues) -> list[Snippet]:
    program = (
        "from openai import OpenAI\n"
        "from openai.auth import k8s_service_account_token_provider\n\n"
        "client = OpenAI(\n    workload_identity={\n"
        '        "identity_provider_id": "YOUR_IDENTITY_PROVIDER_ID",\n'
        '        "service_account_id": "YOUR_SERVICE_ACCOUNT_ID",\n'
        '        "provider": k8s_service_account_token_provider("YOUR_TOKEN_FILE"),\n    }\n)\n'
    )
    return [
        _form("identity provider and service account, in the organization's settings", values),
        Snippet(title="in the caller's program", language="python", text=program),
        _on_caller(values, "YOUR_COMMAND"),
    ]


def _tailscale(values: SnippetValues) -> list[Snippet]:
    return [
        _form("federated identity, in the admin console", values),
        _on_caller(
            values,
            "curl --silent --data client_id=YOUR_CLIENT_ID --data-urlencode jwt@YOUR_TOKEN_FILE "
            "https://api.tailscale.com/api/v2/oauth/token-exchange",
        ),
    ]


def _form(title: str, values: SnippetValues) -> Snippet:
    """Return the values of a form that is filled in by hand."""
    text = f"issuer    {values.issuer}\nsubject   {values.subject}\naudience  {values.audience}\n"
    return Snippet(title=title, language="text", text=text)


TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        Target(
            name="aws",
            title="AWS",
            audience="sts.amazonaws.com",
            snippets=_aws,
            subject=(6, 255),
            shadowing=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ),
        Target(
            name="gcp",
            title="Google Cloud",
            audience=f"//iam.googleapis.com/{_GCP_PROVIDER}",
            snippets=_gcp,
            subject=(1, 127),
            most_life_s=48 * 3600.0,
            # Terraform's and gcloud's.
            shadowing=("GOOGLE_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"),
        ),
        Target(
            name="azure",
            title="Microsoft Entra ID",
            audience="api://AzureADTokenExchange",
            snippets=_azure,
            algorithms=("RS256",),
            longest_issuer=600,
            subject=(1, 600),
            # azure-identity keeps the file's content for 10 minutes.
            least_life_s=20 * 60.0,
            shadowing=(
                "AZURE_CLIENT_SECRET",
                "AZURE_CLIENT_CERTIFICATE_PATH",
                "AZURE_USERNAME",
                "AZURE_TOKEN_CREDENTIALS",
            ),
            harmless={"AZURE_TOKEN_CREDENTIALS": ("prod", "workloadidentitycredential")},
        ),
        Target(
            name="vault",
            title="Vault and OpenBao",
            audience="vault",
            snippets=_vault,
            is_public=False,
            shadowing=("VAULT_TOKEN", "BAO_TOKEN"),
        ),
        Target(
            name="kubernetes",
            title="Kubernetes",
            audience="YOUR_AUDIENCE",
            snippets=_kubernetes,
            is_public=False,
        ),
        Target(
            name="snowflake",
            title="Snowflake",
            audience="snowflakecomputing.com",
            snippets=_snowflake,
        ),
        Target(
            name="databricks",
            title="Databricks",
            audience="YOUR_AUDIENCE",
            snippets=_databricks,
        ),
        Target(
            name="claude",
            title="Claude API",
            audience="https://api.anthropic.com",
            snippets=_claude,
            shadowing=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"),
        ),
        Target(name="openai", title="OpenAI API", audience="YOUR_AUDIENCE", snippets=_openai),
        Target(
            name="tailscale",
            title="Tailscale API",
            audience="api.tailscale.com/YOUR_CLIENT_ID",
            snippets=_tailscale,
        ),
    )
}
"""All targets, by name."""
