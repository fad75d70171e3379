"""Each SDK's variables and files, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tailbone.agent import sdk
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

ROLE = "arn:aws:iam::123456789012:role/Deploy"
KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "d", "user": "u", "namespace": "n"}}],
    "clusters": [{"name": "d", "cluster": {"server": "https://k", "certificate-authority": "ca.pem"}}],
    "users": [{"name": "u", "user": {"token": "old"}}],
}


def test_aws(tmp_path: Path) -> None:
    """The web identity provider's variables."""
    setup = sdk.for_aws(tmp_path, ROLE, "a:b", "sts.example")
    assert setup.variables == {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(setup.file.path),
        "AWS_ROLE_ARN": ROLE,
        "AWS_ROLE_SESSION_NAME": "a-b",
    }
    assert setup.file.audience == "sts.example"


def test_gcp(tmp_path: Path) -> None:
    """A copy of the configuration that reads the token from a file; the original stays."""
    config = tmp_path / "config.json"
    original = {"type": "external_account", "audience": "//iam/pool", "credential_source": {"url": "x"}}
    config.write_text(json.dumps(original))
    setup = sdk.for_gcp(tmp_path, config)
    [(path, text)] = setup.documents.items()
    assert setup.variables == {"GOOGLE_APPLICATION_CREDENTIALS": str(path)}
    assert json.loads(text) == original | {"credential_source": {"file": str(setup.file.path)}}
    assert setup.file.audience == "//iam/pool"
    assert json.loads(config.read_text()) == original


def test_azure(tmp_path: Path) -> None:
    """The workload identity's variables."""
    setup = sdk.for_azure(tmp_path, "client:tenant", "a")
    assert setup.variables == {
        "AZURE_CLIENT_ID": "client",
        "AZURE_TENANT_ID": "tenant",
        "AZURE_FEDERATED_TOKEN_FILE": str(setup.file.path),
    }


@pytest.mark.parametrize(("ids", "count"), [("r:o", 3), ("r:o:a", 4), ("r:o:a:w", 5)])
def test_claude(ids: str, count: int, tmp_path: Path) -> None:
    """The ids that are given, and the file."""
    setup = sdk.for_claude(tmp_path, ids, "a")
    assert len(setup.variables) == count
    assert setup.variables["ANTHROPIC_IDENTITY_TOKEN_FILE"] == str(setup.file.path)


def test_kubernetes(tmp_path: Path) -> None:
    """The current context's cluster and namespace, with a user that reads the token."""
    config = tmp_path / "kubeconfig"
    config.write_text(yaml.safe_dump(KUBECONFIG))
    setup = sdk.for_kubernetes(tmp_path / "private", "cluster", config)
    [(path, text)] = setup.documents.items()
    own = yaml.safe_load(text)
    assert setup.variables == {"KUBECONFIG": str(path)}
    assert own["users"] == [{"name": "tailbone", "user": {"tokenFile": str(setup.file.path)}}]
    assert own["contexts"][0]["context"]["namespace"] == "n"
    assert own["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path / "ca.pem")


def test_kubernetes_of_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is in another folder."""
    monkeypatch.chdir(tmp_path)
    Path("kubeconfig").write_text(yaml.safe_dump(KUBECONFIG))
    setup = sdk.for_kubernetes(tmp_path / "private", "cluster", Path("kubeconfig"))
    [text] = setup.documents.values()
    authority = yaml.safe_load(text)["clusters"][0]["cluster"]["certificate-authority"]
    assert authority == str(tmp_path / "ca.pem")


@pytest.mark.parametrize(
    "cluster",
    ["text", {"certificate-authority": 5}, "2026-99-99", "[" * 5000],
    ids=["text", "number", "date", "nested"],
)
def test_a_malformed_kubeconfig_is_refused(cluster: object, tmp_path: Path) -> None:
    """In one line."""
    config = tmp_path / "kubeconfig"
    document = {**KUBECONFIG, "clusters": [{"name": "d", "cluster": cluster}]}
    config.write_text(yaml.safe_dump(document).replace("'", ""))
    with pytest.raises(ConfigError, match="not a kubeconfig"):
        sdk.for_kubernetes(tmp_path, "a", config)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: sdk.for_aws(folder, "role", "s", "a"),
        lambda folder: sdk.for_azure(folder, "client", "a"),
        lambda folder: sdk.for_azure(folder, ":tenant", "a"),
        lambda folder: sdk.for_claude(folder, "r", "a"),
        lambda folder: sdk.for_claude(folder, "r::a", "a"),
        lambda folder: sdk.for_claude(folder, "r:o:a:w:x", "a"),
        lambda folder: sdk.for_gcp(folder, folder / "none"),
        lambda folder: sdk.for_gcp(folder, folder / "list"),
        lambda folder: sdk.for_kubernetes(folder, "a", folder / "none"),
        lambda folder: sdk.for_kubernetes(folder, "a", folder / "list"),
        lambda folder: sdk.parse_pair("audience", "--env", "NAME"),
        lambda folder: sdk.parse_pair("audience=", "--env", "NAME"),
    ],
)
def test_what_is_incomplete_is_refused(make: Callable[[Path], object], tmp_path: Path) -> None:
    """Before a command runs without its credentials."""
    (tmp_path / "list").write_text("[1]")
    with pytest.raises(ConfigError):
        make(tmp_path)


def test_variables_that_would_win_are_named(tmp_path: Path) -> None:
    """With their SDK; an empty one does not win."""
    setups = [sdk.for_aws(tmp_path, ROLE, "s", "a"), sdk.for_azure(tmp_path, "c:t", "a")]
    environ = {"AWS_PROFILE": "p", "AWS_ACCESS_KEY_ID": "k", "AZURE_CLIENT_SECRET": ""}
    assert sdk.shadowed(setups, environ) == [
        "AWS: AWS_ACCESS_KEY_ID, AWS_PROFILE may be used instead of the token: unset it"
    ]


def test_an_audience_may_contain_an_equals_sign() -> None:
    """The last one separates."""
    assert sdk.parse_pair("a=b=PATH", "--file", "PATH") == ("a=b", "PATH")
    assert sdk.parse_pair("=PATH", "--file", "PATH") == ("", "PATH")
