"""Calls into libtsnet; the only module that touches it.

There is one method for each C function of ``_cdef.h``. Strings are passed as UTF-8, answers are returned as
JSON bytes, and a failure becomes the typed exception of its code here, nowhere else. A call that may block is
a coroutine and runs in a thread, so that the event loop keeps handling signals.
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
    ControlUnreachableError,
    ForkedError,
    JoinCancelledError,
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
    "cancelled": JoinCancelledError,
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

# Calls wait for the network, not for a processor, so many nodes can join at once.
_THREADS: Final = 64

_CLOSE_AGAIN_S: Final = 1.0


class _Failure(msgspec.Struct, frozen=True):
    code: str
    op: str
    message: str


class _CallerTable(msgspec.Struct, frozen=True):
    address: int
    count: int
    size: int


class Opened(NamedTuple):
    """A new native object: its handle, and the answer of the call that opened it."""

    handle: int
    answer: bytes


class Stats(msgspec.Struct, frozen=True):
    """Counters of the native library, for the whole process.

    Attributes:
        handles: open native objects: nodes, listeners, forwards, private tailnets.
        connections: open bridged connections, of both directions.
        rejected: connections reset since the start because a listener was full.
        dropped_events: events lost since the start because their pipe was full.
        goroutines: Go's goroutines.
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
    """Start threads in this context with 5 ms of timer slack: the kernel may wake them that much later.

    Go's monitor thread sleeps for 20 µs at a time while others run, and each wake-up takes a processor from
    the thread that signs. A thread inherits the slack of the thread that starts it (prctl(2),
    PR_SET_TIMERSLACK).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # If the kernel refuses, everything stays as it was.
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(_SLACK_NS), 0, 0, 0)
    try:
        yield
    finally:
        # 0 means the thread's own default again.
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(0), 0, 0, 0)


class Library:
    """The loaded native library. There is one per process, which ``load()`` returns."""

    def __init__(self) -> None:
        # Go chains the signal handlers that it finds, so faulthandler's must be installed before.
        if not faulthandler.is_enabled() and sys.__stderr__ is not None:
            # A closed standard error cannot take a traceback.
            with contextlib.suppress(OSError, ValueError):
                faulthandler.enable(sys.__stderr__)
        with _coarse_timers():
            try:
                # "from … import" would raise an ImportError that does not say which module is missing.
                import tailbone.tsnet._ffi as _ffi
            except ModuleNotFoundError:
                raise TailnetError(_why_missing()) from None

        self._ffi: Any = _ffi.ffi
        self._lib: Any = _ffi.lib
        self._forked = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tsnet")
        # The bridge only copies, and requests do not call into Go: one thread switches least.
        if "GOMAXPROCS" not in os.environ:
            self._call(self._lib.tb_max_procs, _PROCS)
        self._callers = msgspec.json.decode(self._call(self._lib.tb_callers), type=_CallerTable)
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

    # --- the process

    def version(self) -> bytes:
        """Return the versions of Go, tailscale and tailbone."""
        return self._call(self._lib.tb_version)

    def stats(self) -> Stats:
        """Return the counters of the native library."""
        return msgspec.json.decode(self._call(self._lib.tb_stats), type=Stats)

    # --- nodes

    async def node_new(self, config: bytes, events_fd: int) -> Opened:
        """Create a node that writes its events to ``events_fd``, which Go duplicates."""
        return await self._run_open(self._lib.tb_node_new, self._lib.tb_node_close, config, events_fd)

    async def node_up(self, node: int, timeout_s: float) -> bytes:
        """Join the tailnet, and return the node's status."""
        return await self._run(self._lib.tb_node_up, node, _ms(timeout_s))

    def node_cancel(self, node: int) -> None:
        """Cancel a join in progress."""
        self._call(self._lib.tb_node_cancel, node)

    async def node_status(self, node: int) -> bytes:
        """Return the node's status."""
        return await self._run(self._lib.tb_node_status, node)

    async def node_close(self, node: int, timeout_s: float) -> None:
        """Close a node, its listeners and its forwards."""
        await self._run(self._lib.tb_node_close, node, _ms(timeout_s))

    async def listen(self, node: int, config: bytes) -> Opened:
        """Bridge a port of the node to a Unix socket."""
        return await self._run_open(self._lib.tb_listen, self._lib.tb_bridge_close, node, config)

    async def forward(self, node: int, config: bytes) -> Opened:
        """Open a local socket that leads to a peer of the node."""
        return await self._run_open(self._lib.tb_forward, self._lib.tb_bridge_close, node, config)

    async def bridge_close(self, bridge: int, drain_s: float) -> None:
        """Close a listener or a forward; its connections have ``drain_s`` seconds to end."""
        await self._run(self._lib.tb_bridge_close, bridge, _ms(drain_s))

    def whois(self, node: int, source: bytes) -> bytes:
        """Return a peer, from the node's own state.

        Args:
            node: a node's handle.
            source: ``ip``, ``ip:port``, or a peer's short or full name.

        Raises:
            UnknownCallerError: no node of the tailnet has that address.
            PeerNotFoundError: the name does not mean one peer.
        """
        return self._call(self._lib.tb_whois, node, source)

    def caller_version(self, slot: int) -> int:
        """Return the version of a slot in the table of callers; its upper 32 bits are the generation.

        tsnet_go/internal/callers describes the table.
        """
        return self._caller_words[slot * self._callers.size // 8]

    def caller_answer(self, slot: int, version: int) -> bytes | None:
        """Return the whois answer in a slot at one version; None if the slot no longer has that version.

        It is empty if ``whois`` must be used: the caller is unknown, or the answer is too long for a slot.
        """
        start = self._caller_slots + slot * self._callers.size
        length = self._lib.tb_caller_read(start, self._callers.size, version, self._caller_text)
        return None if length < 0 else self._ffi.buffer(self._caller_text, length)[:]

    # --- the private tailnet

    async def devnet_start(self, config: bytes) -> Opened:
        """Start a private tailnet on loopback."""
        return await self._run_open(self._lib.tb_devnet_start, self._lib.tb_devnet_stop, config)

    async def devnet_do(self, devnet: int, command: bytes) -> bytes:
        """Run one command of tsnet_go/devnet/commands.go."""
        return await self._run(self._lib.tb_devnet_do, devnet, command)

    async def devnet_stop(self, devnet: int, timeout_s: float) -> None:
        """Stop a private tailnet."""
        await self._run(self._lib.tb_devnet_stop, devnet, _ms(timeout_s))

    # --- the calls themselves

    def _call(self, function: Any, *args: int | bytes) -> bytes:
        """Call a function with the arguments of ``_cdef.h``, without the out-parameter.

        Raises:
            TailnetError: or the subclass for the code of the failure.
            ForkedError: this process is a fork of the one that loaded the library.
        """
        self._check_fork()
        out = self._ffi.new("char **")
        return self._take(function(*args, out), out)

    def _open(self, function: Any, *args: int | bytes) -> Opened:
        """Call a function that opens a native object; arguments and errors are those of ``_call``."""
        self._check_fork()
        out = self._ffi.new("char **")
        handle = self._ffi.new("int64_t *")
        answer = self._take(function(*args, handle, out), out)
        return Opened(int(handle[0]), answer)

    async def _run(self, function: Any, *args: int | bytes) -> bytes:
        """Run ``_call`` in a thread. A cancelled caller waits for its end, which is bounded in time."""
        loop = asyncio.get_running_loop()
        return await finish(loop.run_in_executor(self._threads, self._call, function, *args))

    async def _run_open(self, function: Any, close: Any, *args: int | bytes) -> Opened:
        """Run ``_open`` in a thread; ``close`` what was opened for a caller that was cancelled."""
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._threads, self._open, function, *args)
        try:
            return await finish(opening)
        except asyncio.CancelledError:
            if not opening.cancelled() and opening.exception() is None:
                await self._run(close, opening.result().handle, _ms(_CLOSE_AGAIN_S))
            raise


def _why_missing() -> str:
    """Return why this installation is without the library, and which ones have it."""
    import platform
    import sysconfig

    if sys.platform != "linux":
        reason = f"it is not available for {platform.system()}"
    elif platform.libc_ver()[0] != "glibc":
        reason = "this Python does not use glibc (musl cannot load it)"
    elif sysconfig.get_config_var("Py_GIL_DISABLED"):
        reason = "this Python is free-threaded"
    else:
        reason = "this is the wheel for any system"
    return (
        f"the native library is missing, which nodes need: {reason}; it is in the wheels for CPython 3.11 or "
        "newer on Linux (x86_64 or aarch64, glibc 2.28 or newer), and in the container image"
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


_loading = threading.Lock()
_library: Library | None = None


def load() -> Library:
    """Return the native library; the first call loads it, which takes some milliseconds.

    Raises:
        TailnetError: the package was installed without its native library.
    """
    global _library
    with _loading:
        if _library is None:
            _library = Library()
        return _library


def stats() -> Stats:
    """Return the counters of the native library."""
    return load().stats()
