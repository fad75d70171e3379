"""The checks of text values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.config import checks
from tailbone.config.load import load
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        (checks.binding, "auto", "auto"),
        (checks.binding, "0.0.0.0", "auto"),
        (checks.binding, "::", "auto"),
        (checks.binding, "100.64.0.1", "100.64.0.1"),
        (checks.binding, "fd7a:115c:a1e0:0::1", "fd7a:115c:a1e0::1"),
        (checks.metrics_binding, "tailnet", "tailnet"),
        (checks.metrics_binding, "127.0.0.1:9464", "127.0.0.1:9464"),
        (checks.metrics_binding, "::1:9464", "[::1]:9464"),
        (checks.metrics_binding, "localhost:9464", "localhost:9464"),
        (checks.probe_binding, "0.0.0.0:8081", "0.0.0.0:8081"),
        (checks.probe_binding, "[::]:8081", "[::]:8081"),
        (checks.host_name, "Issuer.Example.", "issuer.example"),
        (checks.host_name, "127.0.0.1", "127.0.0.1"),
        (checks.host_name, "[::1]", "::1"),
        (checks.web_url, "https://headscale.example/x", "https://headscale.example/x"),
        (checks.web_url, "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        (checks.bucket, "my-bucket", "my-bucket"),
        (checks.bucket, "file:///var/jwks", "file:///var/jwks"),
        (checks.bucket, "arn:aws:s3:x:1:accesspoint/a", "arn:aws:s3:x:1:accesspoint/a"),
        (checks.object_path, ".well-known/jwks.json", ".well-known/jwks.json"),
        (checks.issuer, "tailbone", "tailbone"),
        (checks.issuer, "Any name: 1", "Any name: 1"),
        (checks.issuer, "https://issuer.example/prod", "https://issuer.example/prod"),
        (checks.issuer, "http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        (checks.issuer, "http://[::1]:8090", "http://[::1]:8090"),
        (checks.tag, "tag:ci", "tag:ci"),
        (checks.caller, "tag:ci", "tag:ci"),
        (checks.caller, "user:123", "user:123"),
        (checks.caller, "user:Dev@Example.com", "user:dev@example.com"),
        (checks.caller, "user:dev", "user:dev"),
        (checks.caller, "node:nABC123CNTRL", "node:nABC123CNTRL"),
    ],
)
def test_valid_text_is_normalized(check: Callable[[str], str], text: str, value: str) -> None:
    """Each check returns the one spelling of a value."""
    assert check(text) == value


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (checks.binding, "eth0"),
        (checks.binding, "100.64.0.1:80"),
        (checks.binding, "localhost"),
        (checks.metrics_binding, "on"),
        (checks.metrics_binding, "127.0.0.1"),
        (checks.metrics_binding, "0.0.0.0:9464"),
        (checks.metrics_binding, "100.64.0.1:9464"),
        (checks.probe_binding, ":8081"),
        (checks.probe_binding, "8081"),
        (checks.probe_binding, "tailnet"),
        (checks.host_name, "http://issuer.example"),
        (checks.host_name, "issuer.example:80"),
        (checks.host_name, "-issuer"),
        (checks.host_name, "a..b"),
        (checks.web_url, "headscale.example"),
        (checks.web_url, "ftp://headscale.example"),
        (checks.web_url, "http://"),
        (checks.web_url, "http://h:99999"),
        (checks.web_url, "http://h/?q=1"),
        (checks.bucket, "s3://bucket"),
        (checks.bucket, "file://relative"),
        (checks.bucket, "file:///"),
        (checks.bucket, "file://host/dir"),
        (checks.bucket, "file:relative"),
        (checks.bucket, "file:///a?b"),
        (checks.bucket, "file:///a#b"),
        (checks.bucket, "bucket/with/path"),
        (checks.bucket, "two words"),
        (checks.object_path, "a/../../etc/passwd"),
        (checks.object_path, "folder/"),
        (checks.object_path, "."),
        (checks.issuer, "https://"),
        (checks.issuer, "https:issuer.example"),
        (checks.issuer, "https://issuer.example/a b"),
        (checks.issuer, "https://issuer.example:port"),
        (checks.issuer, "https://a..b"),
        (checks.issuer, "https://-a.b"),
        (checks.issuer, "https://127.1"),
        (checks.issuer, "https://1"),
        (checks.issuer, "https://[fe80::1%eth0]"),
        (checks.issuer, "https://issuer.example/%zz"),
        (checks.issuer, "https://issuer.example/a\\b"),
        (checks.issuer, "https://issuer.example/a/../b"),
        (checks.public_url, "issuer.example/jwks.json"),
        (checks.public_url, "ftp://issuer.example"),
        (checks.tag, "ci"),
        (checks.tag, "tag:1"),
        (checks.caller, "dev@example.com"),
        (checks.caller, "user: dev"),
        (checks.caller, "node:n 1"),
        (checks.caller, "node:ci.dev.tailnet.test"),
        (checks.caller, "node:web-1"),
        (checks.caller, "tag:1"),
        (checks.caller, "group:ci"),
        (checks.caller, "USER:123"),
    ],
)
def test_invalid_text_is_refused(check: Callable[[str], str], text: str) -> None:
    """The reason does not repeat the text."""
    with pytest.raises(ValueError) as refused:
        check(text)
    assert str(refused.value)
    assert text not in str(refused.value) or len(text) < 3


@pytest.mark.parametrize("url", ["http://user:secret@h", "user:secret@h", "http://u:secret@h:x"])
def test_a_url_with_a_password_is_marked_as_secret(url: str) -> None:
    """The error tells the loader to leave the value out of its message."""
    with pytest.raises(checks.SecretInValueError):
        checks.web_url(url)


@pytest.mark.parametrize(
    "text", ["/.well-known/jwks.json", "./.well-known/jwks.json", ".well-known//jwks.json"]
)
def test_an_object_path_has_one_spelling(text: str) -> None:
    """A directory treats all of these as one file, S3 as different objects."""
    with pytest.raises(ValueError, match=r"must be written \.well-known/jwks\.json$"):
        checks.object_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://issuer.example/prod/",
        "https://issuer.example//prod",
        "https://issuer.example/./prod",
        "//issuer.example/prod",
        "https://Issuer.Example/prod",
        "HTTPS://issuer.example/prod",
        "http://issuer.example/prod",
        "htps://issuer.example/prod",
        "ftp://issuer.example/prod",
        "https://issuer.example:443/prod",
        "https://issuer.example:8443/prod",
        "https://issuer.example./prod",
        "https://issuer.example/prod?tenant=1",
        "https://issuer.example/prod#here",
        "https://user:secret@issuer.example/prod",
    ],
)
def test_an_issuer_url_has_one_spelling(text: str) -> None:
    """Verifiers compare it byte by byte, and the reason shows the right spelling; so has keys.jwksUri."""
    for check in checks.issuer, checks.public_url:
        with pytest.raises(ValueError, match=r"^must be written https://issuer\.example/prod$"):
            check(text)


def test_an_issuer_with_a_password_is_not_shown() -> None:
    """A password must not reach the log."""
    with pytest.raises(ConfigError) as refused:
        load({"keys.issuer": "https://user:secret@issuer.example"}, environ={})
    assert "secret" not in str(refused.value)
    assert "must be written https://issuer.example" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:0", ("::1", 0)),
        (":9000", ("", 9000)),
        ("name:65535", ("name", 65535)),
    ],
)
def test_parse_host_port(text: str, split: tuple[str, int]) -> None:
    """The last colon precedes the port."""
    assert checks.parse_host_port(text) == split


@pytest.mark.parametrize("text", ["", "80", "name", "name:", "name:x", "name:65536", "name:-1", "name:²"])
def test_what_is_not_host_port(text: str) -> None:
    """The port is a decimal number of at most 65535."""
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        checks.parse_host_port(text)
