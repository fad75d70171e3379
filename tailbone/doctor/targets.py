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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the texts to paste are made from; what is unknown is its placeholder.

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


class Paste(msgspec.Struct, frozen=True, kw_only=True):
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
        paste: makes the texts to paste.
        algorithms: which signatures it accepts.
        is_public: it fetches the documents over the public internet, by https without a port.
        longest_issuer: in characters.
        subject: how many bytes the claim sub may have, at least and at most.
        least_life_s: how long a token must be valid for its SDK, in seconds.
        most_life_s: how long a token may be valid, in seconds.
        shadowing: variables that its SDK prefers to the token's file.
    """

    name: str
    title: str
    audience: str
    paste: Callable[[Facts], list[Paste]]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    is_public: bool = True
    longest_issuer: int = 255
    subject: tuple[int, int] = (1, 255)
    least_life_s: float = 0.0
    most_life_s: float = 0.0
    shadowing: tuple[str, ...] = ()


def placeholders_in(texts: Sequence[Paste]) -> dict[str, str]:
    """Return the placeholders that texts contain, and what replaces them."""
    words = {word for paste in texts for word in re.findall(r"YOUR_[A-Z_]+", paste.text)}
    return {name: meaning for name, meaning in PLACEHOLDERS.items() if name in words}


def is_placeholder(text: str) -> bool:
    """Return whether a value is unknown, at least in part."""
    return "YOUR_" in text


def paste_for(target: Target, facts: Facts) -> list[Paste]:
    """Return all that is pasted for a target: its configuration, then how a caller uses it."""
    audience = facts.audience or target.audience
    return target.paste(msgspec.structs.replace(facts, audience=audience))


def _sh(title: str, *lines: str) -> Paste:
    return Paste(title=title, language="sh", text="\n".join(lines) + "\n")


def _json(title: str, value: object) -> Paste:
    return Paste(title=title, language="json", text=json.dumps(value, indent=2) + "\n")


def _on_caller(facts: Facts, command: str, *variables: str) -> Paste:
    """Return the command that runs another one with a token's file, which it keeps fresh."""
    flags = f"--file {quote(f'{facts.audience}=YOUR_TOKEN_FILE')}"
    if facts.issuer_url:
        flags += f" --issuer-url {quote(facts.issuer_url)}"
    environment = f"env {' '.join(variables)} " if variables else ""
    return _sh("on the caller", f"tailbone exec {flags} -- {environment}{command}")


def _aws(facts: Facts) -> list[Paste]:
    host = facts.issuer.removeprefix("https://")
    assume: object = "sts:AssumeRoleWithWebIdentity"
    if facts.has_aws_tags:
        # Without it AWS refuses tokens that contain session tags.
        assume = [assume, "sts:TagSession"]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": f"arn:aws:iam::YOUR_ACCOUNT_ID:oidc-provider/{host}"},
                "Action": assume,
                "Condition": {"StringEquals": {f"{host}:aud": facts.audience, f"{host}:sub": facts.subject}},
            }
        ],
    }
    return [
        _json("trust policy, in the file trust.json", trust),
        _sh(
            "identity provider and role",
            "aws iam create-open-id-connect-provider "
            f"--url {quote(facts.issuer)} --client-id-list {quote(facts.audience)}",
            "aws iam create-role --role-name tailbone --assume-role-policy-document file://trust.json",
        ),
        _on_caller(
            facts,
            "aws sts get-caller-identity",
            "AWS_WEB_IDENTITY_TOKEN_FILE=YOUR_TOKEN_FILE",
            "AWS_ROLE_ARN=arn:aws:iam::YOUR_ACCOUNT_ID:role/tailbone",
        ),
    ]


_GCP_PROVIDER: Final = (
    "projects/YOUR_PROJECT_NUMBER/locations/global/workloadIdentityPools/tailbone/providers/tailbone"
)


def _gcp(facts: Facts) -> list[Paste]:
    mapping = "google.subject=assertion.sub,attribute.node=assertion.node"
    if facts.tags:
        mapping += ",google.groups=assertion.tags"
    provider = (
        "gcloud iam workload-identity-pools providers create-oidc tailbone --location=global "
        f"--workload-identity-pool=tailbone --issuer-uri={quote(facts.issuer)} "
        f"--attribute-mapping={mapping}"
    )
    if facts.audience != f"//iam.googleapis.com/{_GCP_PROVIDER}":
        provider += f" --allowed-audiences={quote(facts.audience)}"
    member = (
        "principal://iam.googleapis.com/projects/YOUR_PROJECT_NUMBER/locations/global/"
        f"workloadIdentityPools/tailbone/subject/{facts.subject}"
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
        _on_caller(facts, "YOUR_COMMAND", "GOOGLE_APPLICATION_CREDENTIALS=gcp.json"),
    ]


def _azure(facts: Facts) -> list[Paste]:
    return [
        _sh(
            "federated credential of a managed identity",
            "az identity federated-credential create --name tailbone --identity-name YOUR_IDENTITY_NAME "
            f"--resource-group YOUR_RESOURCE_GROUP --issuer {quote(facts.issuer)} "
            f"--subject {quote(facts.subject)} --audiences {quote(facts.audience)}",
        ),
        _on_caller(
            facts,
            "YOUR_COMMAND",
            "AZURE_CLIENT_ID=YOUR_CLIENT_ID",
            "AZURE_TENANT_ID=YOUR_TENANT_ID",
            "AZURE_FEDERATED_TOKEN_FILE=YOUR_TOKEN_FILE",
        ),
    ]


def _vault(facts: Facts) -> list[Paste]:
    role = {
        "role_type": "jwt",
        "bound_audiences": [facts.audience],
        "bound_subject": facts.subject,
        "user_claim": "sub",
        "token_policies": ["YOUR_POLICY"],
        "token_ttl": "10m",
    }
    if facts.tags:
        role["groups_claim"] = "tags"
    return [
        _sh(
            "auth method and role",
            "bao auth enable jwt",
            f"bao write auth/jwt/config oidc_discovery_url={quote(facts.issuer)} "
            f"bound_issuer={quote(facts.issuer)}",
            "bao write auth/jwt/role/tailbone - <<'END'",
            json.dumps(role, indent=2),
            "END",
        ),
        _on_caller(facts, "bao write auth/jwt/login role=tailbone jwt=@YOUR_TOKEN_FILE"),
    ]


def _kubernetes(facts: Facts) -> list[Paste]:
    configuration = f"""\
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer:
    url: {json.dumps(facts.issuer)}
    audiences: [{json.dumps(facts.audience)}]
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
        Paste(
            title="the file of kube-apiserver --authentication-config",
            language="yaml",
            text=configuration,
        ),
        _sh(
            "a role for the caller",
            "kubectl create clusterrolebinding tailbone --clusterrole=view "
            f"--user={quote('tailnet:' + facts.subject)}",
        ),
        Paste(title="in the caller's kubeconfig", language="yaml", text=credentials),
        _on_caller(facts, "kubectl --user=tailnet auth whoami"),
    ]


def _snowflake(facts: Facts) -> list[Paste]:
    issuer, subject, audience = (
        text.replace("'", "''") for text in (facts.issuer, facts.subject, facts.audience)
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
        Paste(title="user", language="sql", text=user),
        Paste(title="in the caller's program", language="python", text=connect),
        _on_caller(facts, "YOUR_COMMAND"),
    ]


def _databricks(facts: Facts) -> list[Paste]:
    policy = {
        "oidc_policy": {
            "issuer": facts.issuer,
            "audiences": [facts.audience],
            "subject": facts.subject,
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
            facts,
            "YOUR_COMMAND",
            "DATABRICKS_AUTH_TYPE=file-oidc",
            "DATABRICKS_OIDC_TOKEN_FILEPATH=YOUR_TOKEN_FILE",
            "DATABRICKS_HOST=YOUR_WORKSPACE_URL",
            "DATABRICKS_CLIENT_ID=YOUR_CLIENT_ID",
        ),
    ]


def _claude(facts: Facts) -> list[Paste]:
    return [
        _form("federation issuer and rule, in the Console", facts),
        _on_caller(
            facts,
            "YOUR_COMMAND",
            "ANTHROPIC_IDENTITY_TOKEN_FILE=YOUR_TOKEN_FILE",
            "ANTHROPIC_FEDERATION_RULE_ID=YOUR_FEDERATION_RULE_ID",
            "ANTHROPIC_ORGANIZATION_ID=YOUR_ORGANIZATION_ID",
            "ANTHROPIC_SERVICE_ACCOUNT_ID=YOUR_SERVICE_ACCOUNT_ID",
        ),
    ]


def _openai(facts: Facts) -> list[Paste]:
    program = (
        "from openai import OpenAI\n"
        "from openai.auth import k8s_service_account_token_provider\n\n"
        "client = OpenAI(\n    workload_identity={\n"
        '        "identity_provider_id": "YOUR_IDENTITY_PROVIDER_ID",\n'
        '        "service_account_id": "YOUR_SERVICE_ACCOUNT_ID",\n'
        '        "provider": k8s_service_account_token_provider("YOUR_TOKEN_FILE"),\n    }\n)\n'
    )
    return [
        _form("identity provider and service account, in the organization's settings", facts),
        Paste(title="in the caller's program", language="python", text=program),
        _on_caller(facts, "YOUR_COMMAND"),
    ]


def _tailscale(facts: Facts) -> list[Paste]:
    return [
        _form("federated identity, in the admin console", facts),
        _on_caller(
            facts,
            "curl --silent --data client_id=YOUR_CLIENT_ID --data-urlencode jwt@YOUR_TOKEN_FILE "
            "https://api.tailscale.com/api/v2/oauth/token-exchange",
        ),
    ]


def _form(title: str, facts: Facts) -> Paste:
    """Return the values of a form that is filled in by hand."""
    text = f"issuer    {facts.issuer}\nsubject   {facts.subject}\naudience  {facts.audience}\n"
    return Paste(title=title, language="text", text=text)


TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        Target(
            name="aws",
            title="AWS",
            audience="sts.amazonaws.com",
            paste=_aws,
            subject=(6, 255),
            shadowing=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        ),
        Target(
            name="gcp",
            title="Google Cloud",
            audience=f"//iam.googleapis.com/{_GCP_PROVIDER}",
            paste=_gcp,
            subject=(1, 127),
            most_life_s=48 * 3600.0,
        ),
        Target(
            name="azure",
            title="Microsoft Entra ID",
            audience="api://AzureADTokenExchange",
            paste=_azure,
            algorithms=("RS256",),
            longest_issuer=600,
            subject=(1, 600),
            # azure-identity keeps the file's content for 10 minutes.
            least_life_s=20 * 60.0,
            shadowing=("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"),
        ),
        Target(
            name="vault",
            title="Vault and OpenBao",
            audience="vault",
            paste=_vault,
            is_public=False,
            shadowing=("VAULT_TOKEN", "BAO_TOKEN"),
        ),
        Target(
            name="kubernetes",
            title="Kubernetes",
            audience="YOUR_AUDIENCE",
            paste=_kubernetes,
            is_public=False,
        ),
        Target(
            name="snowflake",
            title="Snowflake",
            audience="snowflakecomputing.com",
            paste=_snowflake,
        ),
        Target(
            name="databricks",
            title="Databricks",
            audience="YOUR_AUDIENCE",
            paste=_databricks,
        ),
        Target(
            name="claude",
            title="Claude API",
            audience="https://api.anthropic.com",
            paste=_claude,
            shadowing=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
        ),
        Target(name="openai", title="OpenAI API", audience="YOUR_AUDIENCE", paste=_openai),
        Target(
            name="tailscale",
            title="Tailscale API",
            audience="api.tailscale.com/YOUR_CLIENT_ID",
            paste=_tailscale,
        ),
    )
}
"""All targets, by name."""
