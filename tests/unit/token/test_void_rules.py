"""Void rules are warned of once, and counted while callers have them."""

from __future__ import annotations

from typing import Any

from tailbone.token.grants import TOKEN_CAPABILITY, Void
from tailbone.token.identity import Identity
from tailbone.token.void_rules import VoidRules

ONE = Identity(node_id="n1", node="one.dev.tailnet.test", user_id=1)
OTHER = Identity(node_id="n2", node="other.dev.tailnet.test", user_id=1)
VOID = Void(capability=TOKEN_CAPABILITY, source='{"x":1}', reason="Object contains unknown field `x`")


class Warnings:
    """A log that keeps its warnings."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))


def test_one_warning_for_a_rule() -> None:
    """A rule is warned of once, however many callers and requests it concerns."""
    log = Warnings()
    rules = VoidRules(log)  # type: ignore[arg-type]
    for _ in range(3):
        rules.note(ONE, TOKEN_CAPABILITY, [VOID])
        rules.note(OTHER, TOKEN_CAPABILITY, [VOID, VOID])
    assert log.lines == [
        (
            "a rule in the tailnet's policy is void and grants nothing",
            {
                "capability": "tailbone.dev/cap/token",
                "rule": '{"x":1}',
                "reason": "Object contains unknown field `x`",
                "node": "one.dev.tailnet.test",
            },
        )
    ]
    assert rules.count == 1


def test_a_corrected_rule_no_longer_counts() -> None:
    """The count is that of each caller's last request."""
    rules = VoidRules(Warnings())  # type: ignore[arg-type]
    rules.note(ONE, TOKEN_CAPABILITY, [VOID])
    rules.note(ONE, "tailbone.dev/cap/admin", [])
    assert rules.count == 1
    rules.note(ONE, TOKEN_CAPABILITY, [])
    assert rules.count == 0


def test_what_is_remembered_is_bounded() -> None:
    """Thousands of callers with void rules neither fill the log nor the memory."""
    log = Warnings()
    rules = VoidRules(log)  # type: ignore[arg-type]
    for number in range(2500):
        node = Identity(node_id=f"n{number}", node="a", user_id=1)
        rules.note(node, TOKEN_CAPABILITY, [Void(capability="c", source=str(number), reason="r")])
    assert (len(log.lines), rules.count) == (1001, 1000)
    assert "more than 1000 different rules" in log.lines[-1][0]
