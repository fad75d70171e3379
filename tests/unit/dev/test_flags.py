"""Facts about the flags of dev, and what it refuses to touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tailbone.config.load import load
from tailbone.dev.flags import Endpoint, check_bucket, check_identities, node_name, parse_endpoint
from tailbone.errors import ConfigError

if TYPE_CHECKING:
    from tailbone.config.model import Config


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:8080", Endpoint("127.0.0.1", 8080)),
        ("127.0.0.2:0", Endpoint("127.0.0.2", 0)),
        ("localhost:1", Endpoint("localhost", 1)),
        ("[::1]:65535", Endpoint("::1", 65535)),
    ],
)
def test_loopback_endpoints(text: str, endpoint: Endpoint) -> None:
    """They are read, and written again as they were."""
    assert parse_endpoint(text, "--listen") == endpoint
    assert str(endpoint) == text


NOT_LOOPBACK = ["0.0.0.0", "192.0.2.1", "[::]", "localhost.example", "127.0.0.1.example", "example.com", ""]
NO_PORTS = ["", "x", "65536", "-1", "٣", "1.0"]
NO_ENDPOINTS = ["", "8080", "127.0.0.1", *(f"{host}:80" for host in NOT_LOOPBACK)]
NO_ENDPOINTS += [f"127.0.0.1:{port}" for port in NO_PORTS]
NO_IDENTITIES = [
    "",
    "dev",
    "@b",
    "a@",
    "a@b@c",
    "a b@c",
    "tag:",
    "tag:1",
    "a*@b",
    "a,b@c",
    "a\x01@b",
    "a@b\n",
    "tag:a\n",
]


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_other_endpoints(text: str) -> None:
    """An error that names the flag."""
    with pytest.raises(ConfigError, match="flag --admin-listen: "):
        parse_endpoint(text, "--admin-listen")


def test_next_ports() -> None:
    """The next one, but a free port stays a free port."""
    assert Endpoint("127.0.0.1", 8080).next(2) == Endpoint("127.0.0.1", 8082)
    assert Endpoint("127.0.0.1", 0).next(2) == Endpoint("127.0.0.1", 0)


def test_identities() -> None:
    """Logins and tags, in the order asked for; two where none is."""
    asked = ["tag:a-1", "dev@example.com", "tag:CI", "ä@b"]
    assert check_identities(asked) == tuple(asked)
    assert check_identities([]) == ("dev@example.com", "tag:ci")


def test_an_identity_twice() -> None:
    """Its URL would be there once only."""
    with pytest.raises(ConfigError, match="flag --as: 'a@b' is given twice"):
        check_identities(["a@b", "tag:x", "a@b"])


@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ("dev@example.com", "dev-example-com"),
        ("tag:ci", "tag-ci"),
        ("Ä.Ö@b", "b"),
        ("ä@ö", "caller"),
        ("a" * 39 + ".b@c", "a" * 39),
        ("x" * 200 + "@y", "x" * 40),
    ],
)
def test_names_of_nodes(identity: str, name: str) -> None:
    """One DNS label that is no longer than allowed."""
    assert node_name(identity) == name


@pytest.mark.parametrize("identity", NO_IDENTITIES)
def test_no_identity(identity: str) -> None:
    """An error that names the flag and what is allowed."""
    with pytest.raises(ConfigError, match=r"flag --as: .* allowed: a login"):
        check_identities([identity])


def bucket(name: str) -> Config:
    return load({"keys.bucket": name}, environ={})


def test_bucket_on_this_machine() -> None:
    """AWS' variables lead to a loopback address."""
    for url in ("http://127.0.0.1:7070", "http://localhost:7070", "http://[::1]:7070"):
        assert check_bucket(bucket("some-bucket"), {"AWS_ENDPOINT_URL": url}) == "some-bucket"
        assert (
            check_bucket(bucket("some-bucket"), {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_S3": url})
            == "some-bucket"
        )


def test_no_bucket() -> None:
    """Then AWS' variables do not matter."""
    assert check_bucket(load({}, environ={}), {"AWS_ENDPOINT_URL": "https://s3.example"}) == ""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_ENDPOINT_URL": ""},
        {"AWS_ENDPOINT_URL": "https://s3.example"},
        {"AWS_ENDPOINT_URL": "127.0.0.1:7070"},
        {"AWS_ENDPOINT_URL": "http://[::1"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1@s3.example"},
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:7070"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:7070", "AWS_ENDPOINT_URL_S3": "https://s3.example"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:7070", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "TRUE"},
    ],
    ids=str,
)
def test_bucket_that_may_be_a_real_one(environ: dict[str, str]) -> None:
    """Refused, and the variable to set is named."""
    with pytest.raises(ConfigError, match="AWS_"):
        check_bucket(bucket("some-bucket"), environ)


def test_folder_as_bucket() -> None:
    """It could be production's, too."""
    with pytest.raises(ConfigError, match="is not a bucket's name"):
        check_bucket(bucket("file:///srv/jwks"), {"AWS_ENDPOINT_URL": "http://127.0.0.1:7070"})
