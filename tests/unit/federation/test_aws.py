"""ID tokens from AWS, with a web server in the place of STS, which checks signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from harness.clouds import Clouds
from harness.web import Page

from tailbone.errors import ConfigError, ControlUnreachableError, LoginRefusedError
from tailbone.federation.aws import id_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "eyJhbGciOi.eyJzdWIi.c2ln"
AUDIENCE = "api.tailscale.com/kClient"
REFUSAL = b"<ErrorResponse><Error><Code>%s</Code><Message>no  way</Message></Error></ErrorResponse>"


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Clouds]:
    with Clouds(TOKEN, AUDIENCE) as clouds:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        for name, value in clouds.variables["aws"].items():
            monkeypatch.setenv(name, value)
        yield clouds


def test_a_signed_request_gets_an_id_token(sts: Clouds) -> None:
    """It is valid for five minutes, as tailscale's own."""
    assert id_token(AUDIENCE) == TOKEN
    [request] = sts.requests
    assert "SigningAlgorithm=ES384&DurationSeconds=300" in request["body"]


def test_a_wrong_signature_is_refused(sts: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above shows that the signature is right."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(LoginRefusedError, match=r"\(status 403, SignatureDoesNotMatch\): wrong;"):
        id_token(AUDIENCE)
    assert len(sts.requests) == 1


@pytest.mark.parametrize("status", [302, 400, 403])
def test_a_refusal_says_what_was_asked_and_what_is_needed(sts: Clouds, status: int) -> None:
    """A redirect is a refusal, too: its target would get the signature."""
    sts.page = Page(REFUSAL % b"AccessDenied", {"Location": f"{sts.url}/other"}, status)
    with pytest.raises(LoginRefusedError, match="needs sts:GetWebIdentityToken") as raised:
        id_token(AUDIENCE)
    assert f"for {AUDIENCE} (status {status}, AccessDenied): no way;" in raised.value.message
    assert len(sts.requests) == 1


@pytest.mark.parametrize(("status", "code"), [(400, b"Throttling"), (500, b"InternalFailure"), (503, b"")])
def test_a_busy_sts_may_be_asked_again(sts: Clouds, status: int, code: bytes) -> None:
    """Once at each attempt to log in."""
    sts.page = Page(REFUSAL % code, status=status)
    with pytest.raises(ControlUnreachableError, match=f"status {status}"):
        id_token(AUDIENCE)
    assert len(sts.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"<a/>", bytes(300000)])
@pytest.mark.parametrize("status", [200, 403])
def test_anything_else_is_not_an_id_token(sts: Clouds, body: bytes, status: int) -> None:
    """Another server than STS, or an answer without end."""
    sts.page = Page(body, {}, status)
    with pytest.raises(LoginRefusedError, match=r"STS"):
        id_token(AUDIENCE)


@pytest.mark.usefixtures("sts")
def test_an_sts_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be asked again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    with pytest.raises(ControlUnreachableError, match="AWS STS cannot be reached"):
        id_token(AUDIENCE)


@pytest.mark.usefixtures("sts")
def test_credentials_that_cannot_be_fetched_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As those of a role: it may be asked again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_PROFILE", "role")
    (tmp_path / "config").write_text(
        "[profile role]\nrole_arn = arn:aws:iam::123456789012:role/x\ncredential_source = Environment\n"
    )
    with pytest.raises(ControlUnreachableError, match="AWS STS cannot be reached"):
        id_token(AUDIENCE)


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("AWS_REGION", "set AWS_REGION"),
        ("AWS_ACCESS_KEY_ID", "set AWS_PROFILE"),
        ("AWS_PROFILE", "set AWS_PROFILE"),
    ],
)
def test_incomplete_aws_settings_are_wrong_usage(
    sts: Clouds, monkeypatch: pytest.MonkeyPatch, name: str, needed: str
) -> None:
    """The message says which to set; nothing is sent, above all not to the global STS."""
    if name == "AWS_REGION":
        monkeypatch.delenv("AWS_ENDPOINT_URL_STS")
        monkeypatch.setenv("https_proxy", sts.url)
    monkeypatch.delenv(name, raising=False)
    if name == "AWS_PROFILE":
        monkeypatch.setenv(name, "missing")
    with pytest.raises(ConfigError, match=f"^server.tailscale.idTokenFrom: .*{needed}"):
        id_token(AUDIENCE)
    assert sts.requests == []
