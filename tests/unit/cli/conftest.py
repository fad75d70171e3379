"""Admin servers for the tests of ``tailbone keys``, an issuer on loopback, and the command itself."""

from __future__ import annotations

import asyncio
import os
import pty
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from harness.admin import (  # noqa: F401  fixtures
    admin,
    closed_port,
    go_server,
    granting,
    http_port,
    run,
    start_admin,
)
from harness.issuers import LoopbackIssuer
from harness.web import WebServer

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]


class Ended(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def tailbone(tmp_path: Path) -> Callable[..., Any]:
    """Run ``tailbone ARGUMENTS`` with an empty home, and only the given TB_ variables.

    ``typed`` is typed on a terminal; without it there is no terminal.
    With ``screen``, the output goes to the terminal too.
    """

    async def invoke(
        *arguments: object, typed: str | None = None, screen: bool = False, **variables: str
    ) -> Ended:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TB_")}
        environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), **variables}
        near, far = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tailbone",
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL if typed is None else far,
            stdout=far if screen else asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        if typed is not None:
            os.write(near, typed.encode())
        out, err = await process.communicate()
        if screen:
            out = os.read(near, 65536)
        for end in (near, far):
            os.close(end)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())

    return invoke


@pytest.fixture
def issuer() -> Iterator[LoopbackIssuer]:
    with FakeIssuer(algorithm="ES256") as fake, WebServer() as web:
        yield LoopbackIssuer(web, fake.token(audience="service"))
