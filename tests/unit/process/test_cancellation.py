"""Calls in threads, which are over before their caller goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tailbone.process.cancellation import in_thread


async def test_the_result_and_the_error_of_the_call_arrive() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


async def test_the_loop_goes_on_meanwhile() -> None:
    go = threading.Event()
    calling = asyncio.ensure_future(in_thread(go.wait, 10))
    await asyncio.sleep(0)
    go.set()
    assert await calling is True


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancelled_caller_leaves_after_the_call(times: int) -> None:
    """However often it is cancelled."""
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go.wait(10)
        over.set()

    calling = asyncio.ensure_future(in_thread(call))
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(times):
        calling.cancel()
        done, _ = await asyncio.wait([calling], timeout=0.01)
        assert not done
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert over.is_set()


async def test_what_fails_in_a_cancelled_call_is_the_cause() -> None:
    begun, go = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go.wait(10)
        raise OSError("disk full")

    calling = asyncio.ensure_future(in_thread(call))
    assert await asyncio.to_thread(begun.wait, 10)
    calling.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await calling
    assert isinstance(caught.value.__cause__, OSError)
