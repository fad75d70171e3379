"""The variables by which each SDK finds its token file, and the files that it needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tailbone.agent.files import TokenFile
from tailbone.client import aws
from tailbone.errors import ConfigError
from tailbone.json_object import parse_object
from tailbone.text import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


class Setup(NamedTuple):
    """What one SDK needs.

    Attributes:
        name: of the SDK, for messages.
        file: its token file.
        variables: its variables.
        documents: further files, by path.
        shadowing: variables that would win over these.
    """

    name: str
    file: TokenFile
    variables: Mapping[str, str]
    documents: Mapping[Path, str] = {}
    shadowing: tuple[str, ...] = ()


def for_aws(folder: Path, role_arn: str, session_name: str, audience: str) -> Setup:
    """Return AWS's setup: the SDKs exchange the token themselves (``AWS_WEB_IDENTITY_TOKEN_FILE``).

    Raises:
        ConfigError: the ARN is not a role's.
    """
    role = aws.Role(arn=role_arn, session_name=session_name, audience=audience)
    assert role.account  # noqa: S101 -- checks the ARN
    path = folder / "aws"
    return Setup(
        "AWS",
        TokenFile(path=path, audience=role.audience),
        {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(path),
            "AWS_ROLE_ARN": role.arn,
            "AWS_ROLE_SESSION_NAME": role.legal_session_name,
        },
        shadowing=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
    )


def for_gcp(folder: Path, config: Path) -> Setup:
    """Return Google Cloud's setup, from a configuration of ``gcloud … create-cred-config``.

    The copy reads the token from a file; the audience of tokens is that of the configuration.

    Raises:
        ConfigError: the file is not such a configuration.
    """
    try:
        document = parse_object(config.read_bytes())
    except OSError as error:
        raise ConfigError(f"{config}: {error.strerror}") from None
    if document is None or document.get("type") != "external_account":
        raise ConfigError(f"{config} is not an external_account configuration of gcloud")
    path, copy = folder / "gcp", folder / "gcp.json"
    document["credential_source"] = {"file": str(path)}
    return Setup(
        "Google Cloud",
        TokenFile(path=path, audience=str(document.get("audience", ""))),
        {"GOOGLE_APPLICATION_CREDENTIALS": str(copy)},
        {copy: json.dumps(document)},
        shadowing=("GOOGLE_CREDENTIALS", "GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"),
    )


def for_azure(folder: Path, client_and_tenant: str, audience: str) -> Setup:
    """Return Azure's setup from ``CLIENT:TENANT``.

    Raises:
        ConfigError: one of the two is missing.
    """
    client, _, tenant = client_and_tenant.partition(":")
    if not client or not tenant:
        raise ConfigError("--azure must be CLIENT:TENANT, two ids")
    path = folder / "azure"
    return Setup(
        "Azure",
        TokenFile(path=path, audience=audience),
        {
            "AZURE_CLIENT_ID": client,
            "AZURE_TENANT_ID": tenant,
            "AZURE_FEDERATED_TOKEN_FILE": str(path),
        },
        shadowing=("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME"),
    )


def for_claude(folder: Path, ids: str, audience: str) -> Setup:
    """Return the Claude API's setup from ``RULE:ORGANIZATION[:SERVICE_ACCOUNT[:WORKSPACE]]``.

    Raises:
        ConfigError: an id is missing.
    """
    names = (
        "ANTHROPIC_FEDERATION_RULE_ID",
        "ANTHROPIC_ORGANIZATION_ID",
        "ANTHROPIC_SERVICE_ACCOUNT_ID",
        "ANTHROPIC_WORKSPACE_ID",
    )
    values = ids.split(":")
    if not 2 <= len(values) <= len(names) or not all(values):
        raise ConfigError("--claude must be RULE:ORGANIZATION[:SERVICE_ACCOUNT[:WORKSPACE]]")
    path = folder / "claude"
    return Setup(
        "Claude API",
        TokenFile(path=path, audience=audience),
        {
            "ANTHROPIC_IDENTITY_TOKEN_FILE": str(path),
            **dict(zip(names, values, strict=False)),
        },
        shadowing=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE"),
    )


def for_kubernetes(folder: Path, audience: str, kubeconfig: Path) -> Setup:
    """Return Kubernetes' setup: the current context's cluster, with a user that reads the token file.

    Raises:
        ConfigError: the file has no current context with a cluster.
    """
    import yaml

    try:
        document: Any = yaml.safe_load(kubeconfig.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = dict(_named(document["clusters"], context["cluster"])["cluster"])
        if "certificate-authority" in cluster:
            # Relative paths start at the folder of the original.
            authority = kubeconfig.absolute().parent / cluster["certificate-authority"]
            cluster["certificate-authority"] = str(authority)
    except OSError as error:
        raise ConfigError(f"{kubeconfig}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError):
        raise ConfigError(
            f"{kubeconfig} is not a kubeconfig with a current context and its cluster"
        ) from None
    path, copy = folder / "kubernetes", folder / "kubeconfig"
    own = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tailbone",
        "clusters": [{"name": "tailbone", "cluster": cluster}],
        "contexts": [{"name": "tailbone", "context": {**context, "cluster": "tailbone", "user": "tailbone"}}],
        "users": [{"name": "tailbone", "user": {"tokenFile": str(path)}}],
    }
    return Setup(
        "Kubernetes",
        TokenFile(path=path, audience=audience),
        {"KUBECONFIG": str(copy)},
        {copy: yaml.safe_dump(own)},
    )


def _named(rows: Any, name: str) -> Any:
    return next((row for row in rows if row["name"] == name), {})


def shadowed(setups: Iterable[Setup], environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each SDK that would use a variable of the environment instead of the token."""
    warnings = []
    for setup in setups:
        found = [name for name in setup.shadowing if environ.get(name)]
        if found:
            warnings.append(f"{setup.name}: {', '.join(found)} may be used instead of the token: unset it")
    return warnings


def parse_pair(text: str, flag: str, right: str) -> tuple[str, str]:
    """Split ``AUDIENCE=PATH`` or ``AUDIENCE=NAME``; audiences may contain ``=``, the right side may not.

    Raises:
        ConfigError: it is not such a pair.
    """
    audience, equals, value = text.rpartition("=")
    if not equals or not value:
        raise ConfigError(f"{flag} must be AUDIENCE={right}, not {quote(text)}")
    return audience, value
