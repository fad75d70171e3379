"""Facts about signals, in this process and in one of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from tailbone.process.signals import Stop, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_asks(number: signal.Signals) -> None:
    """The process goes on, and knows which one it was."""
    with stop_on_signals() as stop:
        assert not stop.asked.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.asked.wait(), 5)
        assert stop.signal is number


async def test_handlers_are_restored() -> None:
    """What handled the signals before does so again."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stop_on_signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


async def test_nohup_is_respected() -> None:
    """An ignored SIGHUP stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert not stop.asked.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_work_that_ends_by_itself() -> None:
    """Its result is given."""
    assert await Stop().unless(asyncio.sleep(0, "done")) == "done"


async def test_work_that_fails() -> None:
    """Its failure is raised."""

    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await Stop().unless(fail())


async def test_work_is_cancelled_and_waited_for() -> None:
    """When the end is asked for, work gets time to tidy up, and there is no result."""
    stop, tidied = Stop(), False

    async def work() -> str:
        nonlocal tidied
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            tidied = True
        return "never"

    waiting = asyncio.ensure_future(stop.unless(work()))
    await asyncio.sleep(0)
    stop.received(signal.SIGTERM)
    assert await waiting is None
    assert tidied


async def test_work_that_fails_while_it_tidies_up() -> None:
    """The failure is raised, not swallowed."""
    stop = Stop()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while tidying up")

    waiting = asyncio.ensure_future(stop.unless(work()))
    await asyncio.sleep(0)
    stop.received(signal.SIGTERM)
    with pytest.raises(ValueError, match="while tidying up"):
        await waiting


def test_the_end_asked_for_before_work_began() -> None:
    """It is cancelled at once."""

    async def main() -> object:
        stop = Stop()
        stop.received(signal.SIGINT)
        return await stop.unless(asyncio.sleep(60, "never"))

    assert asyncio.run(main()) is None


SECOND = """
import os, signal
from tailbone.process.signals import Stop
stop = Stop()
stop.before_exit += [lambda: os.write(1, b"first"), lambda: os.write(1, b"last ")]
stop.received(signal.SIGTERM)
stop.received(signal.SIGINT)
os.write(1, b"after")
"""


def test_the_second_signal_ends_the_process() -> None:
    """At once, with 128 and its number; what must happen before does."""
    done = subprocess.run([sys.executable, "-c", SECOND], check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, b"last first")


INTERRUPTED_IMPORT = """
import os, signal, sys
from tailbone.__main__ import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
main()
"""


def test_an_interrupt_in_the_middle_of_an_import() -> None:
    """SIGINT ends the command as a signal does, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], check=False, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
