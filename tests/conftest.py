"""Fixtures for every test: programs as a user starts them, a private tailnet, servers and callers on it.

Fixtures are created only for tests that use them; unit tests do not load the native library.
"""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harness.programs import TAILBONE, Program, clean_environment, run
from hypothesis import settings

from tailbone.process import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.servers import Server
    from harness.tailnet import Caller, Tailnet


# How long an example takes says how busy the machine is. All else stays as hypothesis sets it.
settings.register_profile("tailbone", parent=settings.default, deadline=None)
settings.load_profile("tailbone")


def pytest_configure() -> None:
    """Handle signals as a program in the foreground does: in the background they are ignored."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Undo what a command that ran in this process set up."""
    level = logging.getLogger().level
    yield
    log.reset()
    logging.getLogger().setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of a fresh machine; a test may add to it before it starts programs."""
    home = tmp_path / "home"
    home.mkdir()
    return clean_environment(home)


@pytest.fixture
def tailbone(environment: dict[str, str], tmp_path: Path) -> Callable[..., Program]:
    """Run ``tailbone ARGS`` to its end, in its own folder."""

    def call(*args: str, timeout_s: float = 30.0, **variables: str) -> Program:
        return run([*TAILBONE, *args], env=environment | variables, cwd=tmp_path, timeout_s=timeout_s)

    return call


def _starter(stack: ExitStack, environment: dict[str, str], folder: Path) -> Callable[..., Program]:
    def call(*args: str, new_session: bool = False, **variables: str) -> Program:
        return stack.enter_context(
            Program([*TAILBONE, *args], env=environment | variables, cwd=folder, new_session=new_session)
        )

    return call


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start ``tailbone ARGS``; a program that still runs at the end of the test is ended."""
    with ExitStack() as stack:
        yield _starter(stack, environment, tmp_path)


@pytest.fixture(scope="module")
def tailnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tailnet]:
    """A private tailnet that the tests of a module share; all nodes can connect to each other."""
    from harness.tailnet import Tailnet

    with Tailnet(tmp_path_factory.mktemp("tailnet")) as shared:
        # The first node of a process starts parts of tsnet that keep running: no test leaks them.
        shared.caller().close()
        yield shared


@pytest.fixture
def caller(tailnet: Tailnet) -> Iterator[Callable[..., Caller]]:
    """Join a node that calls others: ``caller("tag:ci")``. It leaves at the end of the test."""
    with ExitStack() as stack:

        def join(identity: str = "dev@example.com", **options: Any) -> Caller:
            return stack.enter_context(tailnet.caller(identity, **options))

        yield join


@pytest.fixture
def server(tailnet: Tailnet, start: Callable[..., Program], tmp_path: Path) -> Callable[..., Server]:
    """Start ``tailbone server start`` as a node of the tailnet; see ``start_server``.

    ``server("--audience", "x", TB_KEYS_ISSUER="y", hostname="z", ready=False)``.
    """
    from harness.servers import start_server

    return partial(start_server, tailnet, start, tmp_path)


@pytest.fixture(scope="module")
def shared_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """Like ``start``, for programs that all tests of a module use."""
    folder = tmp_path_factory.mktemp("programs")
    with ExitStack() as stack:
        yield _starter(stack, clean_environment(folder), folder)


@pytest.fixture(scope="module")
def shared_server(
    tailnet: Tailnet, shared_start: Callable[..., Program], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Server]:
    """Like ``server``, for servers that all tests of a module use."""
    from harness.servers import start_server

    return partial(start_server, tailnet, shared_start, tmp_path_factory.mktemp("servers"))
