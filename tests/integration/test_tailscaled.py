"""The client through a real tailscaled with userspace networking, as in a container."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from harness.programs import Program, clean_environment
from harness.waiting import until

from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.servers import Server
    from harness.tailnet import Tailnet

TAILSCALED = Path(__file__).parents[2] / "build" / "bin" / "tailscaled"
# No other network is needed, and no log leaves the machine.
SETTINGS = {
    "TS_ASSUME_NETWORK_UP_FOR_TEST": "1",
    "TS_NO_LOGS_NO_SUPPORT": "true",
    "TS_DISABLE_PORTMAPPER": "1",
}


def local_api(path: Path, method: str, target: str, body: object = None) -> bytes:
    """Send a request to tailscaled's LocalAPI, and return the body of its answer."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    connection.request(method, target, json.dumps(body), {"Host": "local-tailscaled.sock"})
    answer = connection.getresponse()
    try:
        assert answer.status < 300, answer.read()
        return answer.read()
    finally:
        connection.close()


@pytest.fixture
def tailscaled(tailnet: Tailnet, tmp_path: Path) -> Iterator[Path]:
    """The socket of a tailscaled that is in the tailnet as tag:ci."""
    if not TAILSCALED.exists():
        pytest.skip("tailscaled is not built: .ci/run builds it")
    path = tmp_path / "tailscaled.sock"
    command = [
        str(TAILSCALED),
        "--tun=userspace-networking",
        f"--socket={path}",
        f"--statedir={tmp_path / 'state'}",
        "--port=0",
        "--no-logs-no-support",
    ]
    with Program(command, env=clean_environment(tmp_path, **SETTINGS), cwd=tmp_path) as program:
        until(path.exists, "the LocalAPI listens", shows=program.output)
        preferences = {"ControlURL": tailnet.control_url, "WantRunning": True, "Hostname": "daemon"}
        options = {"AuthKey": tailnet.key("tag:ci"), "UpdatePrefs": preferences}
        local_api(path, "POST", "/localapi/v0/start", options)
        local_api(path, "POST", "/localapi/v0/login-interactive")

        def status() -> Any:
            return json.loads(local_api(path, "GET", "/localapi/v0/status"))

        until(lambda: status()["BackendState"] == "Running", "it joins", timeout_s=20, shows=program.output)
        yield path


def test_a_token_by_way_of_tailscaled(
    tailscaled: Path, server: Callable[..., Server], tailbone: Callable[..., Program]
) -> None:
    """The name is unknown to this machine's resolver; the LocalAPI resolves it and connects."""
    server(hostname="tailbone")
    done = tailbone("token", TS_SOCKET=str(tailscaled))
    assert done.wait() == 0, done.output()
    claims = claims_of(done.out[0])
    assert claims["tags"] == ["tag:ci"]
    assert claims["node"].startswith("daemon.")


def test_a_host_that_the_tailnet_does_not_have(tailscaled: Path, tailbone: Callable[..., Program]) -> None:
    """Both ways are named, in one line."""
    done = tailbone("token", "--issuer-url", "http://nowhere", TS_SOCKET=str(tailscaled))
    assert (done.wait(), len(done.err)) == (1, 1)
    assert "unknown here" in done.err[0]
    assert f"tailscaled at {tailscaled}" in done.err[0]
