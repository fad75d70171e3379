"""Test services with tailbone's tokens: ``FakeIssuer`` without a tailnet, ``Tailnet`` with a private one.

pytest's fixtures are in ``plugin``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailbone.testing.fake_issuer import FakeIssuer
    from tailbone.testing.tailnet import Tailnet

__all__ = ["FakeIssuer", "Tailnet"]

_MODULES = {"FakeIssuer": "fake_issuer", "Tailnet": "tailnet"}


def __getattr__(name: str) -> Any:
    """Import a class when it is used: pytest imports this package at each start, for the plugin."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
