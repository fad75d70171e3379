"""Kill -9 a change of the keys at its first step, then at its second, and so on to the end.

It is a program, since it forks: ``python -m harness.kills SCENARIO FOLDER`` prints one JSON line per kill.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from harness.keys import EC, START, FakeTime, Server, document, drop, kids
from harness.problems import texts
from tailbone.files import Disk

ROTATING = msgspec.structs.replace(EC, rotate_every_s=3600.0)
TIME = "now"


class Kill:
    """Kills the process at its n-th point; checks at each point that the signing key is published."""

    def __init__(self, at: int, report: Path) -> None:
        self.at = at
        self.count = 0
        self.report = report
        self.server: Server | None = None

    def point(self, name: str) -> None:
        self.count += 1
        self._look(name)
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _look(self, name: str) -> None:
        key = self.server.keys.ring.signing if self.server else None
        if self.server is None or key is None or self.server.bucket is None:
            return
        found = document(self.server.bucket)["keys"]
        if not any(jwk.items() >= key.public_jwk().items() for jwk in found):
            with self.report.open("a") as file:
                file.write(f"{key.kid} signs and is not published, at {name} ({self.count})\n")


class KillingDisk(Disk):
    """A point before each system call, and one in the middle of each write."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill

    def create(self, path: Path) -> int:
        self._kill.point("create")
        return super().create(path)

    def write(self, fd: int, data: bytes) -> None:
        self._kill.point("write")
        super().write(fd, data[: len(data) // 2])
        self._kill.point("half a write")
        super().write(fd, data[len(data) // 2 :])

    def fsync(self, fd: int) -> None:
        self._kill.point("fsync")
        super().fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._kill.point("rename")
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._kill.point("unlink")
        super().unlink(path)

    def mkdir(self, path: Path, *, mode: int) -> None:
        self._kill.point("mkdir")
        super().mkdir(path, mode=mode)


def make_server(root: Path, time: FakeTime, *, kill: Kill | None = None, settings: Any = EC) -> Server:
    """Return the server of a scenario; with ``kill``, one that will be killed."""
    server = Server(
        root / "keys", root / "bucket", time, settings=settings, disk=KillingDisk(kill) if kill else None
    )
    if kill and server.store:
        server.store.before = lambda call: kill.point(f"before {call}")
        server.store.after = lambda call: kill.point(f"after {call}")
    return server


# --- scenarios: the state before, and the change that is killed


async def _nothing(root: Path, time: FakeTime) -> None:
    """Start with an empty folder."""


async def _one_key(root: Path, time: FakeTime) -> None:
    await make_server(root, time).start()
    time.advance(1000)


async def _two_keys(root: Path, time: FakeTime) -> None:
    server = await make_server(root, time).start()
    time.advance(1000)
    await server.keys.generate()
    time.advance(10)


async def _beside_others(root: Path, time: FakeTime) -> None:
    await Server(root / "other", root / "bucket", time).start()
    time.advance(1000)


async def _go_folder(root: Path, time: FakeTime) -> None:
    await _one_key(root, time)
    for path in (root / "keys").glob("*.state.json"):
        path.unlink()


async def _go_folder_without_jwks(root: Path, time: FakeTime) -> None:
    await _go_folder(root, time)
    shutil.rmtree(root / "bucket")


async def _revoked(root: Path, time: FakeTime) -> None:
    await _two_keys(root, time)
    drop(root / "bucket", f"tb-{START:.0f}")


async def _rotating(root: Path, time: FakeTime) -> None:
    await make_server(root, time, settings=ROTATING).start()
    time.advance(3000)


async def _start(server: Server) -> None:
    await server.start()


async def _generate(server: Server) -> None:
    await server.start()
    await server.keys.generate()


async def _remove(server: Server) -> None:
    await server.start()
    await server.keys.remove(f"tb-{START:.0f}")


async def _activate(server: Server) -> None:
    await server.start()
    await server.pass_time(301)


async def _housekeeping(server: Server) -> None:
    await server.keys.housekeeping()


async def _revoke(server: Server) -> None:
    await server.start()
    await server.pass_time(31)


async def _rotate(server: Server) -> None:
    await server.start()
    for seconds in (300, 301, 1801):
        await server.pass_time(seconds)


Prepare = Callable[[Path, FakeTime], Awaitable[None]]
SCENARIOS: dict[str, tuple[Prepare, Callable[[Server], Awaitable[None]]]] = {
    "first key": (_nothing, _start),
    "first key beside others": (_beside_others, _start),
    "generate": (_one_key, _generate),
    "remove": (_two_keys, _remove),
    "remove the last": (_one_key, _remove),
    "activate and retire": (_two_keys, _activate),
    "adopt": (_go_folder, _start),
    "adopt and publish": (_go_folder_without_jwks, _start),
    "revoked elsewhere": (_revoked, _revoke),
    "housekeeping": (_revoked, _housekeeping),
    "rotate and prune": (_rotating, _rotate),
}


# --- the walk


def in_child(run: Callable[[], Awaitable[None]]) -> int:
    """Run in a forked process; return its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.run(run())  # type: ignore[arg-type]
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def walk(scenario: str, root: Path, show: Callable[[dict[str, Any]], None]) -> None:
    """Kill at every point in turn, and report the state that the next process reaches."""
    prepare, change = SCENARIOS[scenario]
    settings = ROTATING if prepare is _rotating else EC
    template = root / "template"
    template.mkdir(parents=True)

    async def set_up() -> None:
        time = FakeTime()
        await prepare(template, time)
        (template / TIME).write_text(repr(time.now))

    assert in_child(set_up) == 0
    at, status = 0, -signal.SIGKILL
    while status == -signal.SIGKILL:
        at += 1
        trial = root / f"{at}"
        shutil.copytree(template, trial)
        status = in_child(lambda: _killed(trial, at, change, settings))  # noqa: B023 -- run at once
        assert in_child(lambda: _after(trial, settings)) == 0  # noqa: B023 -- run at once
        show({"at": at, "status": status, **json.loads((trial / "after").read_bytes())})
        shutil.rmtree(trial)


async def _killed(root: Path, at: int, change: Callable[[Server], Awaitable[None]], settings: Any) -> None:
    time = FakeTime()
    time.now = float((root / TIME).read_text())
    kill = Kill(at, root / "violations")
    server = make_server(root, time, kill=kill, settings=settings)
    kill.server = server
    await change(server)


async def _after(root: Path, settings: Any) -> None:
    """Record what the next process finds, and the state that it reaches after some time."""
    time = FakeTime()
    time.now = float((root / TIME).read_text()) + 1
    bucket = root / "bucket"
    found = kids(bucket) if bucket.exists() and any(bucket.rglob("jwks.json")) else []
    violations = root / "violations"
    kill = Kill(0, violations)
    server = make_server(root, time, kill=kill, settings=settings)
    kill.server = server
    await server.start()
    waited = 0
    for _ in range(5):
        waited += not server.signing
        await server.pass_time(35)
    await server.pass_time(301)
    states = await server.states()
    (root / "after").write_text(
        json.dumps(
            {
                "violations": violations.read_text().splitlines() if violations.exists() else [],
                "found": found,
                "published": server.published,
                "private": server.private,
                "set_aside": server.set_aside,
                "states": states,
                "signing": server.signing,
                "reasons": texts(server.keys.reasons()),
                "temporary": [str(path) for path in root.rglob("*.tmp")],
                "faults": [line for line in server.log.of("warning") if "cannot be used" in line],
                "marks": [
                    path.name
                    for path in server.folder.glob("*.state.json")
                    if b'"removing"' in path.read_bytes()
                ],
            }
        )
    )


if __name__ == "__main__":
    walk(sys.argv[1], Path(sys.argv[2]), lambda line: print(json.dumps(line), flush=True))
