"""pytest's fixtures for tests with tailbone's tokens. Each imports what it needs only when a test uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tailbone.testing import FakeIssuer, Tailnet


@pytest.fixture(scope="session")
def tailbone_tailnet() -> Iterator[Tailnet]:
    """A private tailnet with a real issuer, for all tests; each worker of pytest-xdist has its own.

    A fixture of the same name in a conftest.py replaces it: ``with Tailnet("alice@example.com") as …``.
    """
    from tailbone.testing import Tailnet

    with Tailnet() as tailnet:
        yield tailnet


@pytest.fixture
def tailbone_token(tailbone_tailnet: Tailnet) -> Callable[..., str]:
    """Get a token on the tailnet: ``tailbone_token(audience="my-service", as_="tag:ci")``."""
    return tailbone_tailnet.token


@pytest.fixture
def tailbone_env(tailbone_tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables with which tailbone's client finds the tailnet's issuer; set during the test."""
    variables = tailbone_tailnet.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def tailbone_fake_issuer() -> Iterator[FakeIssuer]:
    """An issuer without a tailnet, which also issues tokens that must be refused."""
    from tailbone.testing import FakeIssuer

    with FakeIssuer() as issuer:
        yield issuer
