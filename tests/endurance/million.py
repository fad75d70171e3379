"""A million tokens while everything around the server fails: ``python -m tests.endurance.million``.

Connections come and go, keys rotate every minute, one call of S3 in ten fails, and in turn the control server
is paused, DERP is paused, and the server's clock is an hour ahead and an hour behind (``watched`` says how).
No request fails, every token verifies with the JWKS that a verifier has then, and the server grows in
nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec
from harness import s3

from tests.bench.procfs import rss_mb
from tests.endurance import watched
from tests.endurance.bucket import s3_server
from tests.endurance.load import Load, load
from tests.endurance.scene import CallerProcess, ServerProcess, scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from harness.tailnet import Tailnet

_HOUR_S: Final = 3600.0
_SAMPLE_S: Final = 1.0
_COMMAND: Final = (sys.executable, "-m", "tests.endurance.watched")
_ROOT: Final = Path(__file__).parents[2]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long everything takes, in seconds.

    Attributes:
        phase_s: how long each fault lasts, and the calm after it.
        rotate_s: between two keys.
        max_age_s: how long verifiers keep the JWKS.
        expiry_s: of tokens.
    """

    phase_s: float = 15.0
    rotate_s: int = 60
    max_age_s: int = 5
    expiry_s: int = 120


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What the server uses at one moment."""

    rss_mb: float
    descriptors: int
    threads: int
    goroutines: int
    handles: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        load: what the callers saw.
        lines: tokens in the server's log.
        failed: requests that failed, by the phase and the reason.
        phases: how often each phase came.
        s3_calls: how many.
        s3_faults: how many of them failed, by kind.
        samples: the server, each second.
        exit_code: of the server.
        seconds: of the load.
    """

    load: Load
    lines: int
    failed: dict[str, int]
    phases: dict[str, int]
    s3_calls: int
    s3_faults: dict[str, int]
    samples: list[Sample]
    exit_code: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether every request got its token, and every token verified."""
        return not self.load.failed and not self.load.faults and self.lines == self.load.tokens

    def tenths(self) -> dict[str, tuple[float, float]]:
        """Return the medians of the first and the last tenth of the time."""
        count = max(1, len(self.samples) // 10)

        def of(name: str, samples: Sequence[Sample]) -> float:
            return float(median(getattr(sample, name) for sample in samples))

        return {
            name: (of(name, self.samples[:count]), of(name, self.samples[-count:]))
            for name in Sample.__struct_fields__
        }


class _OneInTen(s3.FaultProxy):
    """Breaks one call in ten, each time in another way."""

    def __init__(self, endpoint: str, chance: random.Random) -> None:
        super().__init__(endpoint)
        self.broken: Counter[str] = Counter()
        self._chance = chance

    def _next_fault(self, method: str) -> s3.Fault | None:
        if self._chance.random() >= 0.1:
            return None
        fault = s3.Fault(
            method, self._chance.choice(("status", "html", "reset before", "reset after", "cut"))
        )
        self.broken[f"{method} {fault.kind}"] += 1
        return fault


class _Around:
    """The server's surroundings, which fail in turn.

    Attributes:
        phase: what fails now; "calm" for nothing.
        phases: how often each came.
        began: when each began, Unix time, seconds.
    """

    def __init__(self, tailnet: Tailnet, clock: Path) -> None:
        self.phases: Counter[str] = Counter()
        self.began: list[tuple[float, str]] = []
        self._tailnet = tailnet
        self._clock = clock
        self._faults: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "control paused": (self._pause("control"), lambda: tailnet.do("resume_control")),
            "DERP paused": (self._pause("derp"), lambda: tailnet.do("resume_derp")),
            "clock an hour ahead": (self._set(_HOUR_S), self._set(0.0)),
            "clock an hour behind": (self._set(-_HOUR_S), self._set(0.0)),
        }

    def _pause(self, what: str) -> Callable[[], Any]:
        def pause() -> None:
            self._tailnet.do(f"pause_{what}")
            self._tailnet.do(f"drop_{what}")

        return pause

    def _set(self, seconds: float) -> Callable[[], Any]:
        return lambda: watched.set_clock(self._clock, seconds)

    async def fail(self, phase_s: float) -> None:
        """Fail in turn, until cancelled."""
        for name, (begin, end) in itertools.cycle(self._faults.items()):
            try:
                self._enter(name)
                await asyncio.to_thread(begin)
                await asyncio.sleep(phase_s)
            finally:
                await asyncio.to_thread(end)
            self._enter("calm")
            await asyncio.sleep(phase_s)

    def _enter(self, name: str) -> None:
        self.phases[name] += 1
        self.began.append((time.time(), name))

    def at(self, moment: float) -> str:
        """Return the phase of a moment."""
        return next((name for began, name in reversed(self.began) if began <= moment), "calm")


def run(tokens: int, pace: Pace, seed: int, show: Callable[[Sample], None]) -> Report:
    """Ask a server for so many tokens.

    Args:
        tokens: how many.
        pace: how long everything takes.
        seed: of the faults of S3 and the lengths of connections.
        show: called with each sample.
    """
    with scene() as (tailnet, folder, stack):
        endpoint = stack.enter_context(s3_server(folder))
        clock, stats = folder / "clock", folder / "stats"
        watched.make_clock(clock)
        stats.touch()
        around = _Around(tailnet, clock)

        async def measured() -> Report:
            async with _OneInTen(endpoint, random.Random(seed)) as proxy:
                variables = s3.environment(proxy.url) | {
                    watched.CLOCK: str(clock),
                    watched.STATS: str(stats),
                    "PYTHONPATH": str(_ROOT),
                    "TB_KEYS_BUCKET": s3.BUCKET,
                    "TB_KEYS_ALGORITHM": "ES256",
                    "TB_KEYS_MAXAGE": f"{pace.max_age_s}s",
                    "TB_KEYS_EXPIRY": f"{pace.expiry_s}s",
                    "TB_KEYS_ROTATEEVERY": f"{pace.rotate_s}s",
                }
                server = ServerProcess(tailnet, folder, "server", command=_COMMAND, **variables)
                await asyncio.to_thread(server.__enter__)
                stack.callback(server.kill)
                caller = CallerProcess(tailnet, folder, "load", server.name)
                stack.enter_context(await asyncio.to_thread(caller.__enter__))
                began = time.monotonic()
                loading = caller.submit(load, endpoint, tokens, pace.max_age_s, pace.expiry_s, seed)
                samples = await _watched(around, pace, loading, lambda: _sample(server.pid, stats), show)
                seconds = time.monotonic() - began
                exit_code = await asyncio.to_thread(server.stop)
                seen = loading.result()
            with server.log.open("rb") as log:
                lines = sum(b'"event":"token issued"' in line for line in log)
            return Report(
                load=seen,
                lines=lines,
                failed=dict(Counter(f"{around.at(moment)}: {why}" for moment, why in seen.failed)),
                phases=dict(around.phases),
                s3_calls=len(proxy.requests),
                s3_faults=dict(proxy.broken),
                samples=samples,
                exit_code=exit_code,
                seconds=seconds,
            )

        return asyncio.run(measured())


async def _watched(
    around: _Around,
    pace: Pace,
    loading: Future[Load],
    sample: Callable[[], Sample],
    show: Callable[[Sample], None],
) -> list[Sample]:
    """Let everything fail until the load is over; returns what was seen of the server each second."""
    samples = []
    failing = asyncio.create_task(around.fail(pace.phase_s))
    try:
        while not loading.done():
            await asyncio.sleep(_SAMPLE_S)
            samples.append(sample())
            show(samples[-1])
    finally:
        failing.cancel()
        await asyncio.wait([failing])
    return samples


def _sample(pid: int, stats: Path) -> Sample:
    lines = stats.read_bytes().splitlines()
    counters = msgspec.json.decode(lines[-1]) if lines else {"goroutines": 0, "handles": 0}
    return Sample(
        rss_mb=rss_mb(pid),
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
        goroutines=counters["goroutines"],
        handles=counters["handles"],
    )


def main() -> int:
    """Ask for tokens, and print a report; fail when a request failed or a token did not verify."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.million", description=__doc__)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    for name in Pace.__struct_fields__:
        flag = f"--{name.removesuffix('_s')}".replace("_", "-")
        kind = type(getattr(Pace(), name))
        parser.add_argument(flag, dest=name, type=kind, default=getattr(Pace(), name), metavar="SECONDS")
    asked = parser.parse_args()
    pace = Pace(**{name: getattr(asked, name) for name in Pace.__struct_fields__})
    numbers = itertools.count()

    def show(sample: Sample) -> None:
        if next(numbers) % 60 == 0:
            print(sample, flush=True)

    report = run(asked.tokens, pace, asked.seed, show)
    seen = report.load
    print(f"tokens       {seen.tokens} in {report.seconds:.0f} s, {report.lines} lines in the log")
    print(f"connections  {seen.connections}")
    print(f"keys         {len(seen.kids)} signed; the JWKS was read {seen.reads} times")
    print(f"S3           {report.s3_calls} calls, failed: {report.s3_faults}")
    print(f"phases       {report.phases}")
    print(f"failed       {report.failed or 'none'}")
    print(f"unverified   {dict(seen.faults) or 'none'}")
    print(f"exit code    {report.exit_code}")
    for name, (first, last) in report.tenths().items():
        print(f"{name:12} {first:g} in the first tenth, {last:g} in the last")
    return int(not report.holds)


if __name__ == "__main__":
    sys.exit(main())
