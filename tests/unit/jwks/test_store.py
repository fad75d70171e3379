"""How long public documents may be cached; tests/harness/store_contract.py has the tests of the stores."""

from __future__ import annotations

import pytest

from tailbone.jwks.store import cache_control


@pytest.mark.parametrize(("max_age_s", "field"), [(300.0, "300"), (1.6, "1"), (0.5, "0")])
def test_a_document_is_never_cached_for_longer_than_max_age(max_age_s: float, field: str) -> None:
    """Cache-Control has whole seconds, rounded down: a key waits for ``max_age_s`` before it signs."""
    assert cache_control(max_age_s) == f"public, max-age={field}"
