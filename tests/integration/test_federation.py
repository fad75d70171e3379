"""Identity federation: a server and a client log in with an ID token, at stubs of Tailscale's endpoints."""

from __future__ import annotations

import json
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from harness.clouds import SECRETS, Clouds
from harness.federation import FederatingControl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.programs import Program
    from harness.servers import Server
    from harness.tailnet import Tailnet


@pytest.fixture
def control(tailnet: Tailnet) -> Iterator[FederatingControl]:
    with FederatingControl(tailnet) as control:
        yield control


@pytest.fixture
def id_token(control: FederatingControl, tmp_path: Path) -> Path:
    """The file with the ID token, as a cloud writes it."""
    file = tmp_path / "id-token"
    file.write_text(f"{control.id_token}\n")
    return file


@pytest.fixture
def joining(control: FederatingControl, id_token: Path) -> dict[str, str]:
    """The variables of `--join`."""
    return {
        "TS_CLIENT_ID": control.client_id,
        "TS_ID_TOKEN_FILE": str(id_token),
        "TS_ADVERTISE_TAGS": "tag:job",
        "TS_CONTROL_URL": control.url,
    }


def test_a_client_joins_with_an_id_token(
    control: FederatingControl,
    joining: dict[str, str],
    server: Callable[..., Server],
    tailbone: Callable[..., Program],
) -> None:
    """Its key is for one ephemeral node of the tag, and for ten minutes; no secret is in the output."""
    issuer = f"http://{server().name}"
    arguments = ("token", "--join", "--claims", "--issuer-url", issuer, "--log-level", "trace")
    done = tailbone(*arguments, **joining)
    assert done.wait() == 0, done.output()
    assert json.loads("\n".join(done.out))["tags"] == ["tag:job"]
    create = {"reusable": False, "ephemeral": True, "preauthorized": False, "tags": ["tag:job"]}
    assert control.created == [{"capabilities": {"devices": {"create": create}}, "expirySeconds": 600}]
    assert "tskey" not in done.output()


def test_a_state_folder_keeps_the_login(
    control: FederatingControl,
    joining: dict[str, str],
    id_token: Path,
    server: Callable[..., Server],
    tailbone: Callable[..., Program],
    tmp_path: Path,
) -> None:
    """The next run needs no ID token: that it has none is a note."""
    state = str(tmp_path / "node")
    arguments = (
        "token",
        "--join",
        "--join-state",
        state,
        "--claims",
        "--issuer-url",
        f"http://{server().name}",
    )
    first = tailbone(*arguments, **joining)
    assert first.wait() == 0, first.output()
    id_token.unlink()
    again = tailbone(*arguments, **joining)
    assert again.wait() == 0, again.output()
    assert json.loads("\n".join(again.out))["sub"] == json.loads("\n".join(first.out))["sub"]
    [note] = again.err
    assert note.startswith("tailbone: note: no auth key; relying on the node's existing login: ")
    quiet = tailbone("gcp", "--audience", "x", *arguments[1:4], *arguments[5:], **joining)
    assert (quiet.wait(), quiet.err, len(quiet.out)) == (0, [], 1)
    assert [key["capabilities"]["devices"]["create"]["ephemeral"] for key in control.created] == [False]


def test_a_server_joins_with_an_id_token(
    control: FederatingControl, id_token: Path, server: Callable[..., Server]
) -> None:
    """Of a client id that says that its nodes are approved already."""
    flags = ("--ts-client-id", f"{control.client_id}?preauthorized=true", "--ts-id-token-file", str(id_token))
    started = server(
        *flags, "--ts-tags", "tag:tailbone", authkey="", TB_SERVER_TAILSCALE_CONTROLURL=control.url
    )
    [created] = control.created
    assert created["capabilities"]["devices"]["create"] == {
        "reusable": False,
        "ephemeral": False,
        "preauthorized": True,
        "tags": ["tag:tailbone"],
    }
    output = started.program.output()
    assert "tskey" not in output
    assert control.id_token not in output


@pytest.mark.parametrize("cloud", ["github", "gcp", "aws"])
def test_a_server_joins_with_the_id_token_of_its_cloud(
    cloud: str, control: FederatingControl, server: Callable[..., Server]
) -> None:
    """It asks for the audience of its client id; no secret of the cloud is in its output."""
    with Clouds(control.id_token, f"api.tailscale.com/{control.client_id}") as clouds:
        flags = (
            "--ts-client-id",
            control.client_id,
            "--ts-id-token-from",
            cloud,
            "--ts-tags",
            "tag:tailbone",
        )
        variables = {**clouds.variables[cloud], "TB_SERVER_TAILSCALE_CONTROLURL": control.url}
        started = server(*flags, "--log-level", "trace", authkey="", **variables)
        assert len(clouds.requests) == 1
    assert len(control.created) == 1
    output = started.program.output()
    found = [secret for secret in (*SECRETS, control.id_token, "tskey") if secret in output]
    assert found == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_cloud_does_not_answer(
    number: signal.Signals, server: Callable[..., Server]
) -> None:
    """It ends the server in order and soon, which is the first process of its container."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        flags = ("--ts-client-id", "k", "--ts-id-token-from", "gcp", "--ts-tags", "tag:tailbone")
        program = server(*flags, authkey="", ready=False, GCE_METADATA_HOST=host).program
        connection, _ = silent.accept()
        with connection:
            began = time.monotonic()
            assert program.stop(number) == 0
            assert time.monotonic() - began < 5
    assert program.event("stopped before it was up") is not None


def test_a_job_of_github_actions_joins(
    control: FederatingControl, server: Callable[..., Server], tailbone: Callable[..., Program]
) -> None:
    """With a variable instead of the file."""
    issuer = f"http://{server().name}"
    with Clouds(control.id_token, f"api.tailscale.com/{control.client_id}") as clouds:
        joining = {
            "TS_CLIENT_ID": control.client_id,
            "TS_ID_TOKEN_FROM": "github",
            "TS_ADVERTISE_TAGS": "tag:job",
            "TS_CONTROL_URL": control.url,
            **clouds.variables["github"],
        }
        done = tailbone("token", "--join", "--claims", "--issuer-url", issuer, **joining)
        assert done.wait() == 0, done.output()
    assert json.loads("\n".join(done.out))["tags"] == ["tag:job"]


def test_a_refusal_is_one_line(
    joining: dict[str, str], id_token: Path, tailbone: Callable[..., Program]
) -> None:
    """With Tailscale's own text, without the ID token."""
    id_token.write_text("eyJhbGciOi.eyJzdWIi.b3RoZXI")
    done = tailbone("token", "--join", **joining)
    assert (done.wait(), done.out, len(done.err)) == (1, [], 1)
    assert "(status 401): no federated identity matches" in done.err[0]
    assert "eyJ" not in done.err[0]


@pytest.mark.parametrize("missing", ["TS_CLIENT_ID", "TS_ADVERTISE_TAGS", "file"])
def test_incomplete_settings_are_wrong_usage(
    missing: str, joining: dict[str, Any], id_token: Path, tailbone: Callable[..., Program]
) -> None:
    """The message names what is missing."""
    if missing == "file":
        id_token.unlink()
    joining.pop(missing, None)
    done = tailbone("token", "--join", **joining)
    assert (done.wait(), len(done.err)) == (2, 1)
    assert "server.tailscale.idTokenFile" in done.err[0]
