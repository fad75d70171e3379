"""require: who is permitted."""

from __future__ import annotations

from typing import Any

import pytest

from tailbone.verify import Claims, NotPermittedError, require

PERSON = Claims(iss="i", sub="user:1", exp=1, user="a@example.com", groups=("ops",), scope="read write")
NODE = Claims(iss="i", sub="node:n1", exp=1, tags=("tag:ci", "tag:web"))


@pytest.mark.parametrize(
    ("rules", "person", "node"),
    [
        ({}, True, True),
        ({"tags": "tag:ci"}, False, True),
        ({"tags": ["tag:web", "tag:other"]}, False, True),
        ({"users": "a@example.com"}, True, False),
        ({"users": ["user:1"]}, True, False),
        ({"users": ["node:n1"]}, False, True),
        ({"users": [""]}, True, True),
        ({"groups": "ops"}, True, False),
        ({"tags": "tag:ci", "groups": "ops"}, True, True),
        ({"tags": "tag:other", "users": "b@example.com"}, False, False),
        ({"scope": "read"}, True, False),
        ({"scope": "read write"}, True, False),
        ({"scope": ["read", "admin"]}, False, False),
        ({"users": "a@example.com", "scope": "admin"}, False, False),
    ],
)
def test_who_is_permitted(rules: dict[str, Any], person: bool, node: bool) -> None:
    """One of the tags, users or groups is enough; every word of the scope is needed."""
    requirement = require(**rules)
    assert (requirement.permits(PERSON), requirement.permits(NODE)) == (person, node)


def test_check_raises() -> None:
    """For callers that prefer an error."""
    require(tags="tag:ci").check(NODE)
    with pytest.raises(NotPermittedError):
        require(tags="tag:ci").check(PERSON)
