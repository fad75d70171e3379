"""The issuers that all consumers trust."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from harness.consumers import TrustedIssuer
from harness.web import Certificate, WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustedIssuer]:
    issuer = TrustedIssuer(tmp_path_factory.mktemp("issuer"))
    yield issuer
    issuer.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The certificate of the issuer by https."""
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def https_web(certificate: Certificate) -> Iterator[WebServer]:
    """The web server of the issuer by https."""
    with WebServer(certificate) as web:
        yield web


@pytest.fixture(scope="session")
def https_issuer(https_web: WebServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrustedIssuer]:
    """An issuer whose documents are served by https, with a certificate that only tests trust."""
    issuer = TrustedIssuer(tmp_path_factory.mktemp("https-issuer"), https_web)
    yield issuer
    issuer.close()
