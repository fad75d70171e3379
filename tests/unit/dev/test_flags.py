"""The flags of dev, and the refusal of anything that may be production's."""

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
def test_loopback_endpoints_are_parsed(text: str, endpoint: Endpoint) -> None:
    """Formatting an endpoint gives the same text."""
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
def test_other_endpoints_are_refused(text: str) -> None:
    """The error names the flag."""
    with pytest.raises(ConfigError, match="flag --admin-listen: "):
        parse_endpoint(text, "--admin-listen")


def test_further_callers_get_the_next_ports() -> None:
    """Port 0 stays 0."""
    assert Endpoint("127.0.0.1", 8080).next(2) == Endpoint("127.0.0.1", 8082)
    assert Endpoint("127.0.0.1", 0).next(2) == Endpoint("127.0.0.1", 0)


def test_identities_are_logins_and_tags() -> None:
    """Their order is kept; without any, there are two default ones."""
    given = ["tag:a-1", "dev@example.com", "tag:CI", "ä@b"]
    assert check_identities(given) == tuple(given)
    assert check_identities([]) == ("dev@example.com", "tag:ci")


def test_an_identity_is_given_once() -> None:
    """Its URL could be listed only once."""
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
def test_the_name_of_a_node_is_one_dns_label(identity: str, name: str) -> None:
    """It is made of the identity's ASCII letters and digits, and has at most 40 characters."""
    assert node_name(identity) == name


@pytest.mark.parametrize("identity", NO_IDENTITIES)
def test_other_identities_are_refused(identity: str) -> None:
    """The error names the flag and what is allowed."""
    with pytest.raises(ConfigError, match=r"flag --as: .* allowed: a login"):
        check_identities([identity])


def bucket(name: str) -> Config:
    return load({"keys.bucket": name}, environ={})


def test_a_bucket_on_this_machine_is_accepted() -> None:
    """The AWS variables point at a loopback address."""
    for url in ("http://127.0.0.1:7070", "http://localhost:7070", "http://[::1]:7070"):
        assert check_bucket(bucket("some-bucket"), {"AWS_ENDPOINT_URL": url}) == "some-bucket"
        assert (
            check_bucket(bucket("some-bucket"), {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_S3": url})
            == "some-bucket"
        )


def test_without_a_bucket_the_aws_variables_do_not_matter() -> None:
    """Dev then uses a folder."""
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
def test_a_bucket_that_may_be_productions_is_refused(environ: dict[str, str]) -> None:
    """The error names the variable to set."""
    with pytest.raises(ConfigError, match="AWS_"):
        check_bucket(bucket("some-bucket"), environ)


def test_a_folder_as_bucket_is_refused() -> None:
    """It could be production's too."""
    with pytest.raises(ConfigError, match="is not a bucket's name"):
        check_bucket(bucket("file:///srv/jwks"), {"AWS_ENDPOINT_URL": "http://127.0.0.1:7070"})
