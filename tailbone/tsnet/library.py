"""Calls into libtsnet, and the only module that touches it.

Each call is one C function: its strings go in as UTF-8, its answer comes back as JSON bytes, and a failure
becomes the typed exception of its code, here and nowhere else. A call that may wait runs on a thread
of its own, so that the event loop and its signals go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from tailbone.errors import (
    AddressInUseError,
    ApprovalNeededError,
    CancelledUpError,
    ControlUnreachableError,
    ForkedError,
    JoinTimeoutError,
    LoginNeededError,
    LoginRefusedError,
    NodeClosedError,
    PeerNotFoundError,
    TailnetError,
    UnknownCallerError,
)
from tailbone.process.cancellation import finish

_ERRORS: Final[dict[str, type[TailnetError] | type[UnknownCallerError]]] = {
    "address_in_use": AddressInUseError,
    "approval_needed": ApprovalNeededError,
    "cancelled": CancelledUpError,
    "closed": NodeClosedError,
    "control_unreachable": ControlUnreachableError,
    "login_needed": LoginNeededError,
    "login_refused": LoginRefusedError,
    "not_found": UnknownCallerError,
    "peer_not_found": PeerNotFoundError,
    "timeout": JoinTimeoutError,
}

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_TIMERSLACK: Final = 29
_PROCS: Final = 1
_SLACK_NS: Final = 5_000_000

# Calls wait for the network, not for a processor: a node may join while others do.
_THREADS: Final = 64


class _Failure(msgspec.Struct, frozen=True):
    code: str
    op: str
    message: str


class _CallerTable(msgspec.Struct, frozen=True):
    address: int
    count: int
    size: int


class Opened(NamedTuple):
    """A new native object: its handle, and what the call said about it."""

    handle: int
    answer: bytes


class Stats(msgspec.Struct, frozen=True):
    """What is alive in the native library, in the whole process.

    Attributes:
        handles: native objects that are open: nodes, listeners, forwards, private tailnets.
        connections: bridged now, in both directions.
        rejected: connections reset since the start because a listener was full.
        dropped_events: events since the start that their pipe had no room for.
        goroutines: Go's.
        max_procs: how many threads may run Go code at once.
    """

    handles: int
    connections: int
    rejected: int
    dropped_events: int
    goroutines: int
    max_procs: int


_decode_failure = msgspec.json.Decoder(_Failure).decode


def _error(text: bytes) -> Exception:
    failure = _decode_failure(text)
    if failure.code == "timeout" and failure.op != "up":
        return TailnetError(failure.message, detail=failure.op)
    return _ERRORS.get(failure.code, TailnetError)(failure.message, detail=f"{failure.op}: {failure.code}")


@contextlib.contextmanager
def _coarse_timers() -> Iterator[None]:
    """Let the kernel wake the threads that start in here up to 5 ms late.

    Go's monitor thread sleeps for 20 µs at a time while others run, and each of its awakenings takes a
    processor from the thread that signs. A thread inherits the slack of the one that starts it (prctl(2),
    PR_SET_TIMERSLACK).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # A kernel that refuses leaves everything as it was.
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_SLACK_NS), 0, 0, 0)
    try:
        yield
    finally:
        # 0 means the thread's own default again.
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(0), 0, 0, 0)


class Library:
    """The loaded native library. There is one in a process: ``load()`` gives it."""

    def __init__(self) -> None:
        # Go chains the signal handlers that it finds: faulthandler's must be there before.
        if not faulthandler.is_enabled() and sys.__stderr__ is not None:
            # Where standard error is closed, there is nowhere to write a traceback to.
            with contextlib.suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        with _coarse_timers():
            from tailbone.tsnet import _ffi

        self._ffi: Any = _ffi.ffi
        self._lib: Any = _ffi.lib
        self._forked = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tsnet")
        # whois is called on every request, always by the same thread: its out-parameter is made once.
        self._whois_out: Any = self._ffi.new("char **")
        self._whois_thread = 0
        # The bridge only copies, and requests do not call into Go: one thread at a time switches least.
        if "GOMAXPROCS" not in os.environ:
            self.call("tb_max_procs", _PROCS)
        self._callers = msgspec.json.decode(self.call("tb_callers"), type=_CallerTable)
        self._caller_slots = self._ffi.cast("char *", self._callers.address)
        table = self._ffi.buffer(self._caller_slots, self._callers.count * self._callers.size)
        self._caller_words = memoryview(table).cast("Q")
        self._caller_text = self._ffi.new("char[]", self._callers.size)
        os.register_at_fork(after_in_child=self._mark_forked)

    def _mark_forked(self) -> None:
        self._forked = True

    def _check_fork(self) -> None:
        if self._forked:
            raise ForkedError(
                "the native library does not survive a fork; start processes with subprocess, "
                "or multiprocessing's 'spawn'"
            )

    def _take(self, code: int, out: Any) -> bytes:
        text: bytes = self._ffi.string(out[0])
        self._lib.tb_free(out[0])
        if code != 0:
            raise _error(text)
        return text

    def call(self, function: str, *args: int | str) -> bytes:
        """Call a function that opens nothing.

        Args:
            function: its C name, such as ``tb_node_status``.
            args: integers and strings, in the order of ``_cdef.h``, without the out-parameter.

        Returns:
            The answer, JSON.

        Raises:
            TailnetError: or the subclass for the code of the failure.
            UnknownCallerError: whois knows nobody there.
            ForkedError: this process is a fork of the one that loaded the library.
        """
        self._check_fork()
        out = self._ffi.new("char **")
        native = [arg.encode() if isinstance(arg, str) else arg for arg in args]
        return self._take(getattr(self._lib, function)(*self._strings(native), out), out)

    def open(self, function: str, *args: int | str) -> Opened:
        """Call a function that opens a native object; arguments and errors are those of ``call``."""
        self._check_fork()
        out = self._ffi.new("char **")
        handle = self._ffi.new("int64_t *")
        native = [arg.encode() if isinstance(arg, str) else arg for arg in args]
        answer = self._take(getattr(self._lib, function)(*self._strings(native), handle, out), out)
        return Opened(int(handle[0]), answer)

    def _strings(self, args: list[int | bytes]) -> list[Any]:
        return [self._ffi.new("char[]", arg) if isinstance(arg, bytes) else arg for arg in args]

    def whois(self, node: int, source: bytes, destination: bytes = b"") -> bytes:
        """``call("tb_whois", …)`` without its overhead, for the one thread that serves requests."""
        self._check_fork()
        thread = threading.get_ident()
        if self._whois_thread != thread:
            if self._whois_thread:
                return self.call("tb_whois", node, source.decode(), destination.decode())
            self._whois_thread = thread
        out = self._whois_out
        return self._take(self._lib.tb_whois(node, source, destination, out), out)

    def caller_version(self, slot: int) -> int:
        """The version of a slot in the bridge's table of callers; its upper 32 bits are the generation.

        tsnet_go/internal/callers describes the table.
        """
        return self._caller_words[slot * self._callers.size // 8]

    def caller_answer(self, slot: int, version: int) -> bytes | None:
        """The whois answer in a slot at one version; None if the slot no longer has that version.

        Empty where ``whois`` has to be asked: the caller is unknown, or the answer is too long for a slot.
        """
        start = self._caller_slots + slot * self._callers.size
        length = self._lib.tb_caller_read(start, self._callers.size, version, self._caller_text)
        return None if length < 0 else self._ffi.buffer(self._caller_text, length)[:]

    async def run(self, function: str, *args: int | str) -> bytes:
        """``call`` on a thread. A cancelled caller waits for the call's end: each is bounded in time."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, self.call, function, *args)
        return await finish(future)

    async def run_open(self, function: str, close: tuple[str, int], *args: int | str) -> Opened:
        """``open`` on a thread; what was opened for a cancelled caller is closed again.

        Args:
            function: C name of what opens.
            close: C name of what closes the object, and its time limit in milliseconds.
            args: as for ``open``.
        """
        future = asyncio.get_running_loop().run_in_executor(self._threads, self.open, function, *args)
        try:
            return await finish(future)
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:
                await self.run(close[0], future.result().handle, close[1])
            raise


_loading = threading.Lock()
_library: Library | None = None


def load() -> Library:
    """The native library, loaded on first use (some milliseconds).

    Raises:
        ImportError: the package was installed without its native part.
    """
    global _library
    with _loading:
        if _library is None:
            _library = Library()
        return _library


def stats() -> Stats:
    """What is alive in the native library now."""
    return msgspec.json.decode(load().call("tb_stats"), type=Stats)
