"""Work that finishes although its caller is cancelled, work that fails together, and one close."""

from __future__ import annotations

import asyncio
import threading

import pytest

from tailbone.process.cancellation import Closing, finish, gather_or_cancel, in_thread


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


@pytest.mark.parametrize("times", [1, 3])
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


async def test_finish_returns_what_the_work_returns() -> None:
    assert await finish(asyncio.sleep(0, "done")) == "done"


async def test_work_that_is_itself_cancelled_cancels_its_caller() -> None:
    work = asyncio.get_running_loop().create_future()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(work)


async def test_a_close_happens_once() -> None:
    """The second caller waits for the close of the first."""
    closing, go, closed = Closing(), asyncio.Event(), []

    async def close() -> None:
        await go.wait()
        closed.append(1)

    assert not closing.begun
    callers = [asyncio.ensure_future(closing.once(close)) for _ in range(2)]
    done, _ = await asyncio.wait(callers, timeout=0.01)
    assert (done, closing.begun) == (set(), True)
    go.set()
    await asyncio.gather(*callers)
    await closing.once(close)
    assert closed == [1]


async def test_a_cancelled_caller_does_not_interrupt_the_close() -> None:
    closing, go, closed = Closing(), asyncio.Event(), []

    async def close() -> None:
        await go.wait()
        closed.append(1)

    caller = asyncio.ensure_future(closing.once(close))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await closing.once(close)
    assert closed == [1]


async def test_a_close_that_fails_fails_for_every_caller() -> None:
    closing = Closing()

    async def close() -> None:
        raise OSError("stuck")

    for _ in range(2):
        with pytest.raises(OSError, match="stuck"):
            await closing.once(close)


async def give(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def fail(error: Exception) -> str:
    await asyncio.sleep(0)
    raise error


async def test_gather_returns_all_results_in_order() -> None:
    assert await gather_or_cancel(give("a"), give("b"), give("c")) == ("a", "b", "c")


async def test_gather_of_nothing_is_empty() -> None:
    assert await gather_or_cancel() == ()


async def test_gather_raises_the_failure_itself() -> None:
    """It is not in a group; the other one was cancelled and has ended before."""
    ended = asyncio.Event()

    async def long() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    with pytest.raises(ValueError, match="first"):
        await gather_or_cancel(fail(ValueError("first")), long())
    assert ended.is_set()


async def test_a_cancelled_gather_cancels_all() -> None:
    both = asyncio.ensure_future(gather_or_cancel(asyncio.Event().wait(), asyncio.Event().wait()))
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both
