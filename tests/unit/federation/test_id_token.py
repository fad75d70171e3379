"""ID tokens from GitHub Actions and Google Cloud, with a web server in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.clouds import REQUEST_TOKEN, Clouds
from harness.web import Page

from tailbone.config.model import Tailscale
from tailbone.errors import ConfigError, ControlUnreachableError, LoginRefusedError
from tailbone.federation.id_token import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "eyJhbGciOi.eyJzdWIi.c2ln"
AUDIENCE = "api.tailscale.com/kClient"
IN_CLOUDS = pytest.mark.parametrize("cloud", ["github", "gcp"])


@pytest.fixture
def clouds(cloud: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    with Clouds(TOKEN, AUDIENCE) as clouds:
        for name, value in clouds.variables[cloud].items():
            monkeypatch.setenv(name, value)
        yield clouds


def settings(cloud: str) -> Tailscale:
    return Tailscale(client_id="kClient?preauthorized=true", id_token_from=cloud)  # type: ignore[arg-type]


@IN_CLOUDS
@pytest.mark.usefixtures("clouds")
def test_the_audience_is_the_one_of_the_client_id(cloud: str) -> None:
    """Tailscale gives it to each federated identity, without what may follow the client id."""
    assert obtain(settings(cloud)) == TOKEN


@pytest.mark.parametrize(("cloud", "needed"), [("github", "id-token: write"), ("gcp", "service account")])
@pytest.mark.parametrize("status", [302, 401, 404])
def test_a_refusal_says_what_was_asked_and_what_is_needed(
    cloud: str, needed: str, status: int, clouds: Clouds
) -> None:
    """A redirect is a refusal, too: nothing is sent to its target."""
    clouds.page = Page(b'{"message": "no  way"}', {"Location": f"{clouds.url}/other"}, status)
    with pytest.raises(LoginRefusedError, match=needed) as raised:
        obtain(settings(cloud))
    assert f"{AUDIENCE} (status {status})" in raised.value.message
    assert ("no way" in raised.value.message) == (cloud == "github")
    assert len(clouds.requests) == 1


@IN_CLOUDS
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_cloud_may_be_asked_again(cloud: str, status: int, clouds: Clouds) -> None:
    """It is as if it had not answered."""
    clouds.page = Page(status=status)
    with pytest.raises(ControlUnreachableError, match=f"status {status}"):
        obtain(settings(cloud))


@IN_CLOUDS
def test_a_cloud_that_does_not_answer(cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it."""
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/?x=y")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", REQUEST_TOKEN)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    name = {"github": "GitHub Actions", "gcp": r"metadata server 127\.0\.0\.1:9"}[cloud]
    with pytest.raises(ControlUnreachableError, match=f"{name} cannot be reached"):
        obtain(settings(cloud))


@IN_CLOUDS
@pytest.mark.parametrize(
    "body", [b"", b"<html>eyJ.a.b</html>", b'{"value": "a.b"}', b"[]", b"\xff", bytes(300000)]
)
def test_anything_else_is_not_an_id_token(cloud: str, body: bytes, clouds: Clouds) -> None:
    """It is neither sent to Tailscale nor shown."""
    clouds.page = Page(body)
    with pytest.raises(LoginRefusedError, match=r"did not answer with an ID token$"):
        obtain(settings(cloud))


@pytest.mark.parametrize("cloud", ["gcp"])
def test_the_metadata_server_is_not_asked_through_a_proxy(
    cloud: str, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy's own metadata server would answer, for another machine."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert obtain(settings(cloud)) == TOKEN
    assert len(clouds.requests) == 1


@pytest.mark.parametrize("cloud", ["github"])
def test_the_secret_of_a_job_is_masked(cloud: str, clouds: Clouds) -> None:
    """Even if GitHub repeats it."""
    clouds.page = Page(f'{{"message": "unknown: Bearer {REQUEST_TOKEN}"}}'.encode(), status=401)
    with pytest.raises(LoginRefusedError, match=r"unknown: Bearer \[redacted\];"):
        obtain(settings(cloud))


@pytest.mark.parametrize("cloud", ["github"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", ""),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "file:///etc/passwd"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", ""),
    ],
)
@pytest.mark.usefixtures("clouds")
def test_outside_a_job_nothing_is_asked(
    cloud: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says how a job gets the variables."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"^server\.tailscale\.idTokenFrom: github needs .*id-token: write"):
        obtain(settings(cloud))
