"""tailbone-verify: the verifier without the rest of tailbone."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tailbone.testing import FakeIssuer

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.wheels import Wheels

ROOT = Path(__file__).parents[2]
VERIFY = """
import sys
from tailbone.verify import Verifier
print(Verifier(sys.argv[1], "service").verify(sys.argv[2]).sub)
"""
IMPORT_ALL = """
import importlib, json, pkgutil, tailbone.verify
failed = {}
for module in pkgutil.iter_modules(tailbone.verify.__path__):
    try:
        importlib.import_module(f"tailbone.verify.{module.name}")
    except ModuleNotFoundError as error:
        failed[module.name] = error.name
print(json.dumps(failed))
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bin_(wheels: Wheels, python_of: Callable[[str], str], environment_with: Callable[..., Path]) -> Path:
    """The programs of an environment with this wheel alone."""
    return environment_with(python_of("3.11"), wheels.verifier)


def output(bin_: Path, outside: dict[str, str], *arguments: str) -> str:
    command = [bin_ / "python", "-c", *arguments]
    return subprocess.run(command, cwd=bin_, env=outside, capture_output=True, text=True, check=True).stdout


def test_a_token_is_verified(bin_: Path, outside: dict[str, str]) -> None:
    """With the same import names as tailbone's."""
    with FakeIssuer(algorithm="ES256") as issuer:
        token = issuer.token(audience="service", as_="tag:ci")
        assert output(bin_, outside, VERIFY, issuer.url, token) == "node:nFaketag-ci\n"


def test_nothing_else_is_installed(bin_: Path, uv: str) -> None:
    """cryptography and msgspec, and what these need: no Sanic, gRPC or aiobotocore, and no command."""
    command = [uv, "pip", "list", "--format", "json", "--python", bin_ / "python"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {package["name"] for package in json.loads(listed)}
    assert names == {"cffi", "cryptography", "msgspec", "pycparser", "tailbone-verify"}
    assert not (bin_ / "tailbone").exists()


def test_the_modules_for_frameworks_need_their_framework_alone(bin_: Path, outside: dict[str, str]) -> None:
    """All other modules can be imported without one."""
    assert json.loads(output(bin_, outside, IMPORT_ALL)) == {
        "django": "django",
        "fastapi": "fastapi",
        "grpc": "grpc",
        "rest_framework": "django",
        "sanic": "sanic",
        "starlette": "starlette",
    }


def test_the_modules_for_frameworks_work_beside_their_framework(
    wheels: Wheels,
    python_of: Callable[[str], str],
    environment_with: Callable[..., Path],
    outside: dict[str, str],
) -> None:
    """With the frameworks that this project tests with, all modules can be imported."""
    frameworks = f"{ROOT / 'pyproject.toml'}:frameworks"
    bin_ = environment_with(python_of("3.12"), wheels.verifier, "--group", frameworks, "sanic", "grpcio")
    assert json.loads(output(bin_, outside, IMPORT_ALL)) == {}


def test_its_metadata_agrees_with_tailbones() -> None:
    """It accepts the same versions of Python and of its dependencies."""
    light, whole = (
        tomllib.loads((ROOT / path).read_text())["project"]
        for path in ("release/verify/pyproject.toml", "pyproject.toml")
    )
    assert set(light["dependencies"]) <= set(whole["dependencies"])
    assert light["requires-python"] == whole["requires-python"]
