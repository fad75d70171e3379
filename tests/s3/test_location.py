"""The location of an S3 store: it is unique, and is where the SDK connects."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from harness import s3

from tailbone.errors import ConfigError
from tailbone.jwks.s3 import S3Store

if TYPE_CHECKING:
    from pathlib import Path

FILE = "http://from-file:1"
SERVICES = f"[services s]\nsts =\n  endpoint_url = http://sts:1\ns3 =\n  endpoint_url = {FILE}\n"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all AWS settings that are not the test's own."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in s3.environment("").items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.mark.parametrize(
    ("endpoint", "location"),
    [
        ("", "s3://b"),
        ("http://127.0.0.1:7391", "s3://b at http://127.0.0.1:7391"),
        ("http://127.0.0.1:7391/", "s3://b at http://127.0.0.1:7391"),
        ("http://localhost:7391", "s3://b at http://127.0.0.1:7391"),
        ("http://[::1]:7391", "s3://b at http://127.0.0.1:7391"),
        ("HTTP://LocalHost:7391//", "s3://b at http://127.0.0.1:7391"),
        ("https://s3.Example.com:443/", "s3://b at https://s3.example.com"),
        ("http://s3.example.com:80", "s3://b at http://s3.example.com"),
        ("http://s3.example.com:443", "s3://b at http://s3.example.com:443"),
        ("https://s3.example.com/store/", "s3://b at https://s3.example.com/store"),
        ("https://me:secret@s3.example.com", "s3://b at https://s3.example.com"),
        ("http://[FD00::2]:9000", "s3://b at http://[fd00::2]:9000"),
        ("http://s3.example.com:port", "s3://b at http://s3.example.com:port"),
        ("s3.example.com", "s3://b at s3.example.com"),
    ],
)
def test_all_spellings_of_a_store_have_one_location(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, location: str
) -> None:
    """A key that is confirmed at one location is not confirmed at another."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert S3Store("b").location == location


@pytest.mark.parametrize(
    ("variables", "config", "credentials"),
    [
        ({}, "", ""),
        ({}, f"[default]\nendpoint_url = {FILE}\n", ""),
        ({"AWS_ENDPOINT_URL": ""}, f"[default]\nendpoint_url = {FILE}\n", ""),
        ({"AWS_ENDPOINT_URL": "http://variable:1"}, f"[default]\nendpoint_url = {FILE}\n", ""),
        ({"AWS_ENDPOINT_URL": "http://variable:1", "AWS_ENDPOINT_URL_S3": "http://s3:1"}, "", ""),
        ({"AWS_PROFILE": "p"}, f"[default]\nregion = x\n[profile p]\nendpoint_url = {FILE}\n", ""),
        ({"AWS_PROFILE": "a p"}, f'[profile "a p"]\nendpoint_url = {FILE}\n', ""),
        (
            {"AWS_PROFILE": "p", "AWS_DEFAULT_PROFILE": "q"},
            f"[profile p]\nendpoint_url = http://p:1\n[profile q]\nendpoint_url = {FILE}\n",
            "",
        ),
        ({"AWS_PROFILE": "p"}, f"[p]\nendpoint_url = {FILE}\n[profile p]\nregion = eu-west-3\n", ""),
        ({}, "", f"[default]\nendpoint_url = {FILE}\n"),
        ({}, "[default]\nendpoint_url = http://other:1\n", f"[default]\nendpoint_url = {FILE}\n"),
        (
            {},
            "[default]\nservices = s\nendpoint_url = http://all:1\n" + SERVICES,
            "",
        ),
        (
            {},
            f"[default]\nservices = here\nendpoint_url = {FILE}\n[services here]\nsts =\n  endpoint_url = http://x:1\n",
            "",
        ),
        ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True", "AWS_ENDPOINT_URL": "http://variable:1"}, "", ""),
        (
            {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false", "AWS_ENDPOINT_URL": "http://variable:1"},
            "[default]\nignore_configured_endpoint_urls = true\n",
            "",
        ),
        (
            {"AWS_ENDPOINT_URL": "http://variable:1"},
            "[default]\nignore_configured_endpoint_urls = true\n",
            "",
        ),
    ],
)
async def test_the_place_is_where_the_sdk_goes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], config: str, credentials: str
) -> None:
    """The location is needed before there is a client, and must not differ from the client's."""
    (tmp_path / "config").write_text(config)
    (tmp_path / "credentials").write_text(credentials)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    async with S3Store("b") as store:
        url = (await store._connected()).meta.endpoint_url
        found = "" if url.endswith(".amazonaws.com") else f" at {url}"
        assert store.location == f"s3://b{found}"


@pytest.mark.parametrize("content", [b"no section\n", b"\xff\xfe", b"[profile 'p]\n"])
def test_a_file_that_cannot_be_understood_names_no_endpoint(tmp_path: Path, content: bytes) -> None:
    """The first call reports the file."""
    (tmp_path / "config").write_bytes(content)
    assert S3Store("b").location == "s3://b"


@pytest.mark.parametrize(
    "endpoint", ["https://b.s3.example.com", "http://127.0.0.1:1/b", "http://127.0.0.1:1/x/b/"]
)
def test_a_server_whose_address_names_the_bucket_is_refused(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The JWKS would be published at bucket/bucket/…, where no verifier looks."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ConfigError, match="address of the S3 server without it"):
        S3Store("b")
