"""The wheel without the library serves clients, verifiers and administrators; nodes say what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jwt
import pytest
from harness.consumers import AUDIENCE, TrustedIssuer
from harness.programs import Program, run

import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.wheels import Wheels

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WHERE = (
    "it is in the wheels for CPython 3.11 or newer on Linux (x86_64 or aarch64, glibc 2.28 or newer), "
    "and in the container image"
)
NODES = [("server", "start"), ("dev",), ("token", "--join")]


@pytest.fixture(scope="module")
def bin_(wheels: Wheels, python_of: Callable[[str], str], environment_with: Callable[..., Path]) -> Path:
    """The programs of an environment with this wheel alone."""
    return environment_with(python_of("3.12"), wheels.pure)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustedIssuer]:
    """A running issuer, from the source tree."""
    started = TrustedIssuer(tmp_path_factory.mktemp("issuer"))
    yield started
    started.close()


@pytest.fixture
def command(bin_: Path, environment: dict[str, str], tmp_path: Path) -> Callable[..., Program]:
    """Run ``tailbone ARGS`` of the wheel."""

    def call(*arguments: str, **variables: str) -> Program:
        return run([str(bin_ / "tailbone"), *arguments], env=environment | variables, cwd=tmp_path)

    return call


def test_it_has_no_library(bin_: Path) -> None:
    """Nothing is compiled."""
    assert list(bin_.parent.glob("lib/*/site-packages/tailbone/**/*.so")) == []


def test_a_token_is_fetched_and_verified(command: Callable[..., Program], issuer: TrustedIssuer) -> None:
    """By the client's and the verifier's commands."""
    fetched = command("token", "--audience", AUDIENCE, "--issuer-url", issuer.issuer_url())
    assert fetched.wait() == 0, fetched.output()
    [token] = fetched.out
    assert jwt.decode(token, options={"verify_signature": False})["sub"] == issuer.subject()
    verified = command("verify", "--issuer", issuer.url, "--audience", AUDIENCE, token)
    assert verified.wait() == 0, verified.output()


def test_keys_and_grants_are_shown(command: Callable[..., Program], issuer: TrustedIssuer) -> None:
    """By the commands that call the admin API."""
    node = jwt.decode(issuer.token(), options={"verify_signature": False})["node"]
    for arguments in (("keys", "list"), ("explain", node, "--audience", AUDIENCE)):
        ended = command(*arguments, *issuer.admin_flags())
        assert ended.wait() == 0, ended.output()
        assert ended.out


def test_doctor_examines_an_issuer(command: Callable[..., Program], issuer: TrustedIssuer) -> None:
    """It reports on each check; an issuer on loopback is not one that clouds accept."""
    ended = command("doctor", "--audience", AUDIENCE, TAILBONE_ISSUE_URL=issuer.issuer_url())
    assert ended.wait() == 1, ended.output()
    assert "Traceback" not in ended.output()
    assert [line for line in ended.out if "issuer" in line]


def test_the_version(command: Callable[..., Program]) -> None:
    """It has the commit too."""
    ended = command("version")
    assert ended.wait() == 0, ended.output()
    assert ended.out[0].startswith(f"tailbone {build.version()} (commit ")


@pytest.mark.parametrize("arguments", NODES)
@pytest.mark.parametrize(
    ("python", "reason"),
    [
        ("", "this is the wheel for any system"),
        ("import sysconfig; sysconfig.get_config_var = lambda name: 1", "this Python is free-threaded"),
        (
            "import platform; platform.libc_ver = lambda: ('', '')",
            "this Python does not use glibc (musl cannot load it)",
        ),
        (
            "import platform; sys.platform, platform.system = 'freebsd14', lambda: 'FreeBSD'",
            "it is not available for FreeBSD",
        ),
    ],
    ids=["glibc", "free-threaded", "musl", "FreeBSD"],
)
def test_nodes_say_what_is_missing_and_where_it_is(
    bin_: Path,
    environment: dict[str, str],
    tmp_path: Path,
    python: str,
    reason: str,
    arguments: tuple[str, ...],
) -> None:
    """In one line; other Pythons than this one are imitated."""
    environment |= {"TS_AUTHKEY": "tskey-x", "TS_CONTROL_URL": "http://127.0.0.1:9"}
    script = f"import sys\n{python}\nfrom tailbone.__main__ import main; main()"
    ended = run([str(bin_ / "python"), "-c", script, *arguments], env=environment, cwd=tmp_path)
    text = f"tailbone: the native library is missing, which nodes need: {reason}; {WHERE}"
    assert (ended.wait(), ended.out, ended.err[-1:]) == (1, [], [text]), ended.output()
    assert "Traceback" not in ended.output()
