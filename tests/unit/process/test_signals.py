"""Signals, in this process and in child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading

import pytest

from tailbone.process import log
from tailbone.process.signals import Stop, exit_on_signals, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_the_first_signal_requests_a_stop(number: signal.Signals) -> None:
    """The process continues, and knows which signal it was."""
    with stop_on_signals() as stop:
        assert not stop.asked.is_set()
        os.kill(os.getpid(), number)
        await asyncio.wait_for(stop.asked.wait(), 5)
        assert stop.signal is number


async def test_handlers_are_restored() -> None:
    """The previous handlers are active again afterwards."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stop_on_signals():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_there_is_an_event_loop(number: signal.Signals) -> None:
    """It ends what waits; the previous handlers are active again afterwards."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended, exit_on_signals():
        os.kill(os.getpid(), number)
        threading.Event().wait(5)
    assert (ended.value.code, signal.getsignal(number)) == (0, before)


def test_a_signal_within_a_line_of_the_log() -> None:
    """What it logs waits until the other line has ended."""
    log.set_level("info")
    with pytest.raises(SystemExit), exit_on_signals(), log._output.sink._lock:
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)


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


async def test_the_result_of_finished_work_is_returned() -> None:
    """Without a signal, `run_until_stopped` returns what the work returns."""
    assert await Stop().run_until_stopped(asyncio.sleep(0, "done")) == "done"


async def test_the_error_of_failed_work_is_raised() -> None:
    """Without a signal, `run_until_stopped` raises what the work raises."""

    async def fail() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await Stop().run_until_stopped(fail())


async def test_work_is_cancelled_and_waited_for() -> None:
    """After a signal, the work can clean up, and there is no result."""
    stop, cleaned_up = Stop(), False

    async def work() -> str:
        nonlocal cleaned_up
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned_up = True
        return "never"

    waiting = asyncio.ensure_future(stop.run_until_stopped(work()))
    await asyncio.sleep(0)
    stop.received(signal.SIGTERM)
    assert await waiting is None
    assert cleaned_up


async def test_an_error_while_cleaning_up_is_raised() -> None:
    """An error of cancelled work is not swallowed."""
    stop = Stop()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("while cleaning up")

    waiting = asyncio.ensure_future(stop.run_until_stopped(work()))
    await asyncio.sleep(0)
    stop.received(signal.SIGTERM)
    with pytest.raises(ValueError, match="while cleaning up"):
        await waiting


def test_work_that_starts_after_a_signal_is_cancelled() -> None:
    """It is cancelled at once."""

    async def main() -> object:
        stop = Stop()
        stop.received(signal.SIGINT)
        return await stop.run_until_stopped(asyncio.sleep(60, "never"))

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
    """The exit status is 128 plus the signal's number; the before_exit functions run first."""
    done = subprocess.run([sys.executable, "-c", SECOND], check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (130, b"last first")


STUCK_THREAD = """
import asyncio, os, signal, threading
from tailbone.process.cancellation import in_thread
from tailbone.process.signals import stop_on_signals

async def main():
    with stop_on_signals(within_s=0.2) as stop:
        stop.before_exit.append(lambda: os.write(1, b"last"))
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.run_until_stopped(%s(threading.Event().wait))

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["in_thread", "asyncio.to_thread"])
def test_a_stuck_thread_does_not_hold_up_the_end(how: str) -> None:
    """A read of a dead disk does not return: after a while the process ends as by a second signal."""
    script = STUCK_THREAD % how
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (143, b"last")
    assert b"the shutdown took too long" in done.stderr


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


def test_an_interrupt_during_an_import_ends_the_command() -> None:
    """SIGINT has its default action, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT], check=False, capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
