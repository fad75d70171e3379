"""Readers of a token file that is always being renewed: ``python -m tests.endurance.readers [SECONDS]``.

A `tailbone agent` keeps a file with tokens of 3 s, and fifty readers read it every 20 ms. None may ever see a
file that is missing, empty, torn or expired.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec
from harness.devs import Dev
from harness.programs import TAILBONE, Program, clean_environment
from harness.waiting import until

from tailbone.verify import VerificationError, Verifier

_SECONDS: Final = 600.0
_READERS: Final = 50
_PAUSE_S: Final = 0.02
_TTL_S: Final = 3
_AUDIENCE: Final = "readers"


class Report(msgspec.Struct):
    """What the readers saw.

    Attributes:
        seconds: how long they read.
        reads: how often.
        tokens: how many different tokens.
        least_left_s: how long the oldest token that was read was still valid.
        faults: what was wrong, and how often.
        failures: what the agent logged about renewals that failed.
    """

    seconds: float
    reads: int = 0
    tokens: int = 0
    least_left_s: float = _TTL_S
    faults: dict[str, int] = {}
    failures: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether what is promised was so, with a new token each 3 s at least."""
        return not self.faults and self.tokens >= self.seconds / _TTL_S

    def line(self) -> str:
        """Return it as one line."""
        faults = ", ".join(f"{count} {what}" for what, count in self.faults.items()) or "no fault"
        return (
            f"{_READERS} readers, {self.seconds:g} s: {self.reads} reads of {self.tokens} tokens, "
            f"at least {self.least_left_s:.2f} s left; {faults}"
        )


def run(seconds: float) -> Report:
    """Start an issuer and an agent, and read for that long."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = clean_environment(folder)
        dev = [*TAILBONE, "dev", "--listen", "127.0.0.1:0", "-o", "json", "--audience", _AUDIENCE]
        running = Dev(stack.enter_context(Program(dev, env=environment, cwd=folder)))
        file = folder / "token"
        agent = [*TAILBONE, "agent", "--file", f"{_AUDIENCE}={file}", "--ttl", f"{_TTL_S}s"]
        agent += ["--socket", str(folder / "socket"), "--issuer-url", running.facts["callers"]["tag:ci"]]
        kept = stack.enter_context(Program(agent, env=environment, cwd=folder))
        until(file.exists, "the file is written", shows=kept.output, timeout_s=30)
        issuer = running.facts["jwks_url"].partition("/.well-known")[0]
        # What counts is the time of the read: a busy reader may verify the token later.
        report = _read(file, Verifier(issuer, _AUDIENCE, leeway_s=3600), seconds)
        report.failures = [line for line in kept.err if "cannot be renewed" in line]
        return report


def _read(file: Path, verifier: Verifier, seconds: float) -> Report:
    report = Report(seconds)
    faults: Counter[str] = Counter()
    seen: set[str] = set()
    lock = threading.Lock()
    end = time.monotonic() + seconds

    def read() -> None:
        while time.monotonic() < end:
            now = time.time()
            text, fault, left_s = "", "", float(_TTL_S)
            try:
                text = file.read_text()
                left_s = verifier.verify(text).exp - now
                fault = "" if left_s > 0 else "expired"
            except (OSError, VerificationError) as error:
                fault = type(error).__name__
            with lock:
                report.reads += 1
                report.least_left_s = min(report.least_left_s, left_s)
                seen.add(text)
                if fault:
                    faults[fault] += 1
            time.sleep(_PAUSE_S)

    threads = [threading.Thread(target=read) for _ in range(_READERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report.tokens, report.faults = len(seen), dict(faults)
    return report


def main() -> int:
    """Run it, and print what the readers saw."""
    report = run(float(sys.argv[1]) if len(sys.argv) > 1 else _SECONDS)
    print(report.line(), *report.failures, sep="\n", flush=True)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
