"""The image, built once, and a bucket beside the private tailnet."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness import containers, s3
from harness.containers import HARDENED, Running, container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.tailnet import Tailnet

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and let the first one build the image."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def image() -> str:
    """The project's image."""
    if reason := containers.missing():
        pytest.skip(reason)
    containers.build_image()
    return containers.IMAGE


@pytest.fixture
def volume(image: str) -> Iterator[str]:
    """A new, empty volume for a server's state."""
    name = f"tailbone-test-{next(_numbers)}"
    containers.podman("volume", "create", name)
    yield name
    containers.podman("volume", "rm", "--force", name)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket, as the variables of a container."""
    with s3.moto(tmp_path_factory.mktemp("moto")) as endpoint:
        s3.make_bucket(endpoint)
        yield s3.environment(endpoint) | {"TB_KEYS_BUCKET": s3.BUCKET}


@pytest.fixture
def serve(image: str, tailnet: Tailnet, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start the image's own command: ``serve("--volume=v:/var/lib/tailbone", TB_KEYS_BUCKET="b")``."""
    with ExitStack() as stack:

        def start(
            *flags: str, name: str = "", key: bool = True, ready: bool = True, **variables: str
        ) -> Running:
            name = name or f"tailbone-test-{next(_numbers)}"
            settings = {
                "TB_SERVER_TAILSCALE_HOSTNAME": name,
                "TB_SERVER_TAILSCALE_CONTROLURL": tailnet.control_url,
                "TB_SERVER_TAILSCALE_AUTHKEY": tailnet.key("tag:tailbone") if key else "",
                "TB_SERVER_RATELIMIT": "0",
            }
            program = stack.enter_context(
                container(
                    tmp_path, flags=(*HARDENED, f"--name={name}", *flags), variables=settings | variables
                )
            )
            if ready:
                program.wait_for('"event":"started"', timeout_s=60)
            return Running(name, program)

        yield start
