"""S3 servers for the whole session, a bucket for each test, and a proxy that injects faults."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from harness import s3

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3.moto(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = s3.find_versitygw()
    if program is None:
        pytest.skip("versitygw is not installed; .ci/run installs it, or set TAILBONE_VERSITYGW")
    with s3.versitygw(program, tmp_path_factory.mktemp("versitygw")) as endpoint:
        yield endpoint


@pytest.fixture(params=["moto", pytest.param("versitygw", marks=pytest.mark.s3)])
def endpoint(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server, which is also in the AWS default chain."""
    url: str = request.getfixturevalue(request.param)
    _set_environment(monkeypatch, url)
    return url


@pytest.fixture
def bucket(endpoint: str) -> str:
    """A bucket that no other test uses."""
    name = f"{s3.BUCKET}-{next(_numbers)}"
    s3.make_bucket(endpoint, name)
    return name


@pytest.fixture
async def proxy(moto: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[s3.FaultProxy]:
    """A proxy in front of moto; it is the server of the AWS default chain."""
    async with s3.FaultProxy(moto) as between:
        _set_environment(monkeypatch, between.url)
        yield between


@pytest.fixture
def behind(proxy: s3.FaultProxy, moto: str) -> str:
    """A bucket behind the proxy."""
    name = f"{s3.BUCKET}-{next(_numbers)}"
    s3.make_bucket(moto, name)
    return name


def _set_environment(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3.environment(url).items():
        monkeypatch.setenv(name, value)
