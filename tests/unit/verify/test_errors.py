"""The reasons why a token does not verify."""

from __future__ import annotations

from tailbone import errors as others
from tailbone.verify import errors

CLASSES = {
    kind
    for module in (errors, others)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, others.TailboneError)
}


def test_each_error_has_its_own_code() -> None:
    """Scripts can distinguish all reasons, also from tailbone's other errors."""
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
