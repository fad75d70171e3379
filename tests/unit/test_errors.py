"""The exceptions and their stable codes."""

from __future__ import annotations

import re
from collections import Counter

from tailbone import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.TailboneError)
]


def test_each_class_has_its_own_code() -> None:
    """Scripts can distinguish all failures by their codes."""
    codes = Counter(kind.code for kind in CLASSES)
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code in codes if not re.fullmatch(r"[a-z_]+", code)] == []


def test_a_class_without_a_status_has_the_one_of_its_parent() -> None:
    """Its own status counts before that of a class above it."""
    table = {errors.TailboneError: 500, errors.StoreError: 503}

    class LaterError(errors.StoreDeniedError):
        code = "later"

    kinds = (errors.TailboneError, errors.StoreError, LaterError, errors.TailnetError)
    assert [errors.status_in(table, kind) for kind in kinds] == [500, 503, 503, 500]


def test_the_text_of_an_error_omits_its_detail() -> None:
    """The detail is for the log only."""
    error = errors.TailnetError("the node is closed", detail="inner text")
    assert (str(error), error.message, error.detail) == (
        "the node is closed",
        "the node is closed",
        "inner text",
    )
