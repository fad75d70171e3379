"""The image runs as a user runs it: hardened, as any user, on a volume, stopped and started again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import s3
from harness.clients import Clients
from harness.containers import container, inspect, messages, podman
from harness.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.containers import Running
    from harness.tailnet import Caller, Route, Tailnet

STATE = "/var/lib/tailbone"
OTHER_USER = "--user=1234567890:0"
"""As on OpenShift: a user id that the image does not know, in group 0."""

LOST = "this state is lost with the container, or at the next reboot: put it on a volume"


def without_shell(tmp_path: Path) -> str:
    """Return the flag that replaces the image's shell with a file that cannot be run."""
    empty = tmp_path / "no-shell"
    empty.touch()
    return f"--volume={empty}:/bin/sh:ro"


def ready(route: Route) -> Route:
    """Wait until the server is ready: it confirms its key in the bucket after it has started."""
    until(lambda: route.get("/_readyz").status == 200, "ready", timeout_s=30)
    return route


def key_ids(route: Route) -> list[str]:
    """Return the ids of the published keys."""
    return [key["kid"] for key in route.get("/.well-known/jwks.json").json["keys"]]


@pytest.mark.parametrize("user", [(), (OTHER_USER,)], ids=["own", "arbitrary"])
def test_a_life_on_a_volume(
    serve: Callable[..., Running],
    caller: Callable[..., Caller],
    tailnet: Tailnet,
    bucket: dict[str, str],
    volume: str,
    user: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Hardened and without a shell, it joins, publishes and issues; it stops and comes back as the same node.

    The stop takes less than 10 s, loses no answer, and needs no auth key afterwards.
    """
    flags = (*user, f"--volume={volume}:{STATE}", without_shell(tmp_path))
    place = bucket | {"TB_KEYS_KEYPATH": f"{volume}/jwks.json"}
    first = serve(*flags, **place)
    route = ready(caller().to(first.name))
    assert route.issue().status == 200
    kids = key_ids(route)
    [published] = json.loads(
        s3.client(bucket["AWS_ENDPOINT_URL"])
        .get_object(Bucket=s3.BUCKET, Key=f"{volume}/jwks.json")["Body"]
        .read()
    )["keys"]
    assert kids == [published["kid"]]
    node = tailnet.known(first.name)

    assert [line for line in first.program.out if not line.startswith('{"time":')] == []
    assert first.events(LOST) == []
    state = inspect("container", first.name)["State"]
    [inside] = [
        line.split()[-1]
        for line in Path(f"/proc/{state['Pid']}/status").read_text().splitlines()
        if line.startswith("NSpid:")
    ]
    assert inside == "1"

    clients = Clients(route)
    began = time.monotonic()
    assert first.stop() == 0
    assert time.monotonic() - began < 10
    clients.join()
    [before] = {line["jti"] for line in first.events("token issued")} - clients.jtis
    assert before == first.events("token issued")[0]["jti"]

    again = serve(*flags, name=first.name, key=False, **place)
    assert tailnet.known(again.name) == node | {"online": tailnet.known(again.name)["online"]}
    route = ready(caller().to(again.name))
    assert route.issue().status == 200
    assert key_ids(route) == kids
    assert again.stop() == 0


def test_the_health_check(
    serve: Callable[..., Running], caller: Callable[..., Caller], bucket: dict[str, str], volume: str
) -> None:
    """It fails while no token can be issued, here because the bucket is unreachable, and says why."""
    flags = [f"--volume={volume}:{STATE}"]
    down = serve(*flags, **bucket | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    with pytest.raises(AssertionError, match="not ready"):
        podman("exec", down.name, "tailbone", "health")
    with pytest.raises(AssertionError):
        podman("healthcheck", "run", down.name)
    assert down.stop() == 0
    up = serve(*flags, name=down.name, key=False, **bucket | {"TB_KEYS_KEYPATH": "health/jwks.json"})
    ready(caller().to(up.name))
    assert podman("exec", up.name, "tailbone", "health").startswith("ready\n")
    podman("healthcheck", "run", up.name)


def test_its_commands(
    serve: Callable[..., Running], caller: Callable[..., Caller], volume: str, tmp_path: Path
) -> None:
    """The image's arguments are those of `tailbone`, for example of `keys list`."""
    server = serve(f"--volume={volume}:{STATE}")
    host, _, port = caller().to(server.name, 50051).address.rpartition(":")
    with container(tmp_path, "keys", "list", "--host", host, "--port", port, "-o", "json") as listing:
        assert listing.wait(60) == 0, listing.output()
    [key] = json.loads("".join(listing.out))
    assert key["algorithm"] == "RS256"
    with container(tmp_path, "version") as version:
        assert version.wait(60) == 0
    assert version.out[0].startswith("tailbone ")


def test_without_a_volume(serve: Callable[..., Running]) -> None:
    """It serves, and warns that node and keys are lost with the container."""
    server = serve("--read-only=false")
    [warning] = server.events(LOST)
    assert (warning["level"], warning["folders"]) == ("warn", [f"{STATE}/keys", f"{STATE}/tsnet"])


def refusal(server: Running) -> str:
    """Return the one line with which a server that cannot start ends."""
    assert server.program.wait(60) == 1, server.program.output()
    [line] = messages(server.program)
    return line


def test_read_only_without_a_volume(serve: Callable[..., Running]) -> None:
    """One line says where to mount one."""
    assert refusal(serve(ready=False)) == (
        f"tailbone: the node's state cannot be written: {STATE} is read-only: mount a volume there"
    )


def test_another_users_state(serve: Callable[..., Running], volume: str) -> None:
    """One line names the user and the command that helps, for the node's state and for a key."""
    flags = [f"--volume={volume}:{STATE}"]
    assert serve(*flags).stop() == 0
    assert refusal(serve(*flags, OTHER_USER, ready=False)) == (
        "tailbone: the node's state cannot be read and written; this process is user 1234567890: "
        f"run chown -R 1234567890 {STATE}/tsnet"
    )
    elsewhere = {"TB_SERVER_TAILSCALE_DIR": f"{STATE}/another"}
    assert refusal(serve(*flags, OTHER_USER, ready=False, **elsewhere)) == (
        f"tailbone: cannot write to the key folder {STATE}/keys: Permission denied; "
        f"this process is user 1234567890: run chown -R 1234567890 {STATE}/keys, "
        "or name another folder (--dir or TB_KEYS_DIR)"
    )
