"""RefusalLog: how many lines refusals make."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from harness.log import Lines
from harness.waiting import until_async

from tailbone.process import refusal_log
from tailbone.process.refusal_log import RefusalLog

if TYPE_CHECKING:
    import pytest

    from tailbone.process.log import Logger


async def test_refusals_of_one_code_and_address_are_one_line_and_a_count() -> None:
    """Whatever the port; other codes and other addresses have lines of their own."""
    log = Lines()
    refusals = RefusalLog(cast("Logger", log))
    for port in (1, 2, 3):
        refusals.add("wrong_host", f"100.64.0.7:{port}", "info", "refused", number=port)
    refusals.add("not_found", "100.64.0.7:1", "info", "refused", number=4)
    refusals.add("wrong_host", "100.64.0.8:1", "info", "refused", number=5)
    assert log.lines == [("info", "refused", {"number": number}) for number in (1, 4, 5)]
    refusals.close()
    assert log.lines[3:] == [("info", "refused", {"number": 3, "count": 2})]


async def test_the_count_is_logged_after_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second after the first line."""
    assert refusal_log.PAUSE_S == 1.0
    monkeypatch.setattr(refusal_log, "PAUSE_S", 0.01)
    log = Lines()
    refusals = RefusalLog(cast("Logger", log))
    for _ in range(2):
        refusals.add("wrong_host", "100.64.0.7:1", "info", "refused")
    await until_async(lambda: len(log.lines) >= 2, timeout_s=5)
    assert [fields.get("count") for _, _, fields in log.lines] == [None, 1]
    refusals.close()
