"""SIGKILL at random moments, under load and key changes on S3: ``python -m tests.endurance.kills``.

After each kill, the key folder holds only whole files, the JWKS in the bucket is whole, and every token so
far verifies with it, except those of keys that somebody asked to remove. The next start continues by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import grpc.aio
import msgspec
from harness import s3

from tailbone.admin._proto import admin_pb2 as pb
from tailbone.admin._proto import admin_pb2_grpc
from tests.endurance.bucket import Verifier, kid_of, s3_server
from tests.endurance.honest import Connection, RefusedError
from tests.endurance.scene import Place, ServerProcess, place_of, scene

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_LOAD: Final = 4
_LOAD_PAUSE_S: Final = 0.01
_CHANGE_PAUSE_S: Final = 0.02
_RETRY_S: Final = 0.05
_CALL_S: Final = 10.0
_BACK_S: Final = 120.0
_LATEST_S: Final = 2.0
_EARLY: Final = 0.3
"""How many of the kills come during the start."""
_MOST_KEYS: Final = 6
_MOST_RETIRING: Final = 60
"""A JWKS has at most 100 keys: with more of these, a new key would rightly wait for one of them to go."""

_SETTLED_EACH: Final = 50
_ROTATE_S: Final = 20
_LEAST_PUBLISHED_S: Final = 300.0
"""A key that was retired stays published at least as long."""

_UNSETTLED_S: Final = 150.0
"""A key that will not be published is gone after two minutes."""

_STATES: Final = ("published", "active", "retiring")

_SETTINGS: Final = {
    "TB_KEYS_BUCKET": s3.BUCKET,
    "TB_KEYS_ALGORITHM": "ES256",
    "TB_KEYS_MAXAGE": "2s",
    "TB_KEYS_ACTIVATEAFTER": "1s",
    "TB_KEYS_EXPIRY": "20m",
    "TB_KEYS_ROTATEEVERY": f"{_ROTATE_S}s",
}


class Report(msgspec.Struct, kw_only=True):
    """What happened.

    Attributes:
        kills: how many.
        early: of them, before the first change was waited for.
        changes: generates and removes that were answered with success.
        failed_changes: errors of the others, counted.
        tokens: that arrived.
        keys: that signed one.
        faults: what went wrong.
        seconds: in all.
    """

    kills: int = 0
    early: int = 0
    changes: int = 0
    failed_changes: Counter[str] = msgspec.field(default_factory=Counter)
    tokens: int = 0
    keys: int = 0
    faults: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


class _Callers:
    """Callers who ask for tokens and change keys, whether the server is there or not.

    Attributes:
        place: where the server is.
        tokens: that have arrived since the last check.
        made: when each generate succeeded, by the monotonic clock.
        to_go: kids of keys that somebody asked to remove.
        gone: kids whose removal succeeded.
    """

    def __init__(self, place: Place, report: Report, seed: int) -> None:
        self.tokens: list[str] = []
        self.made: dict[str, float] = {}
        self.to_go: set[str] = set()
        self.gone: set[str] = set()
        self.place = place
        self.report = report
        self._random = random.Random(seed)

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Call until the context ends."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._load()) for _ in range(_LOAD)]
            tasks.append(group.create_task(self._change()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def _load(self) -> None:
        while True:
            with suppress(OSError, EOFError, RefusedError, TimeoutError):
                async with asyncio.timeout(_CALL_S):
                    connection = await Connection.open(self.place.issuer, self.place.host)
                    try:
                        while True:
                            self.tokens.append(await connection.issue())
                            await asyncio.sleep(_LOAD_PAUSE_S)
                    finally:
                        connection.close()
            await asyncio.sleep(_RETRY_S)

    async def _change(self) -> None:
        async with _admin(self.place) as stub:
            while True:
                try:
                    await self._change_one(stub)
                    self.report.changes += 1
                    await asyncio.sleep(_CHANGE_PAUSE_S)
                except grpc.aio.AioRpcError as error:
                    code = dict(error.trailing_metadata() or ()).get("tailbone-code", "")
                    self.report.failed_changes[f"{error.code().name} {code}".strip()] += 1
                    await asyncio.sleep(_RETRY_S)

    async def _change_one(self, stub: Any) -> None:
        keys = (await stub.ListKeys(pb.ListKeysRequest(), timeout=_CALL_S, wait_for_ready=True)).keys
        own = [key.key_id for key in keys if key.state != "retiring"]
        retiring = [key.key_id for key in keys if key.state == "retiring"]
        if len(retiring) > _MOST_RETIRING:
            await self._remove(stub, retiring)
        elif len(own) < 2 or (len(own) < _MOST_KEYS and self._random.random() < 0.5):
            made = await stub.GenerateNewKeys(pb.GenerateNewKeysRequest(), timeout=_CALL_S)
            self.made[made.key.key_id] = time.monotonic()
        else:
            await self._remove(stub, own)

    async def _remove(self, stub: Any, kids: list[str]) -> None:
        kid = self._random.choice(kids)
        self.to_go.add(kid)
        await stub.RemoveKey(pb.RemoveKeyRequest(key_id=kid), timeout=_CALL_S)
        self.gone.add(kid)


class _Check:
    """Checks folder, JWKS and tokens while the server is dead."""

    def __init__(self, server: ServerProcess, callers: _Callers, verifier: Verifier, report: Report) -> None:
        self._keys = server.folder / "keys"
        self._callers = callers
        self._verifier = verifier
        self._report = report
        self._signed: dict[str, dict[str, Any]] = {}

    def after_a_kill(self) -> None:
        """Check everything."""
        self._verifier.read()
        published = self._verifier.keys
        self._folder()
        callers = self._callers
        tokens, callers.tokens = callers.tokens, []
        self._report.tokens += len(tokens)
        for token in tokens:
            self._token(token)
        for kid, jwk in self._signed.items():
            if kid not in callers.to_go and published.get(kid) != jwk:
                self._fault(f"{kid} has signed tokens, and is not published as it was: {published.get(kid)}")
        for kid in callers.gone & published.keys():
            self._fault(f"{kid} was removed, and is published")
        for kid, made in callers.made.items():
            old = time.monotonic() - made > _LEAST_PUBLISHED_S
            if kid not in published and kid not in callers.to_go and not old:
                self._fault(f"{kid} was made, and is not published")
        self._report.keys = len(self._signed)

    def _token(self, token: str) -> None:
        kid = kid_of(token)
        try:
            self._verifier.verify(token)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is a fault
            if kid not in self._callers.to_go:
                self._fault(f"a token of {kid} does not verify: {error!r}")
        else:
            self._signed.setdefault(kid, self._verifier.keys[kid])

    def _folder(self) -> None:
        for path in [*self._keys.glob("*.jwk"), *self._keys.glob("*.json")]:
            try:
                content = json.loads(path.read_bytes())
            except ValueError:
                self._fault(f"{path.name} is not whole")
                continue
            if path.name.endswith(".private.jwk") and not {"d", "kty"} <= content.keys():
                self._fault(f"{path.name} is not a private key")

    def settled(self, states: dict[str, str]) -> None:
        """Check that nothing is left half done once the server has had time to finish it."""
        self._verifier.read()
        private = {path.name.removesuffix(".private.jwk") for path in self._keys.glob("*.private.jwk")}
        if private != self._verifier.keys.keys():
            self._fault(f"in the folder {sorted(private)}, published {sorted(self._verifier.keys)}")
        if odd := {kid: state for kid, state in states.items() if state not in _STATES}:
            self._fault(f"states {odd}")
        if left := [path.name for path in self._keys.rglob("*.tmp")]:
            self._fault(f"left: {left}")

    def _fault(self, text: str) -> None:
        fault = f"kill {self._report.kills}: {text}"
        print(fault, flush=True)
        self._report.faults.append(fault)


def run(kills: int, seed: int, show: Callable[[Report], None]) -> Report:
    """Kill a server so many times.

    Args:
        kills: how many times.
        seed: of the moments and the changes.
        show: called with the report every 50 kills.
    """
    began = time.monotonic()
    report = Report()
    with scene() as (tailnet, folder, stack):
        endpoint = stack.enter_context(s3_server(folder))
        server = ServerProcess(tailnet, folder, "server", **_SETTINGS, **s3.environment(endpoint))
        caller = stack.enter_context(tailnet.caller())
        with server:
            place = place_of(caller, server.name)
        callers = _Callers(place, report, seed)
        check = _Check(server, callers, Verifier(endpoint), report)
        asyncio.run(_kill_again_and_again(server, callers, check, kills, random.Random(seed), show))
    report.seconds = time.monotonic() - began
    return report


async def _kill_again_and_again(
    server: ServerProcess,
    callers: _Callers,
    check: _Check,
    kills: int,
    moments: random.Random,
    show: Callable[[Report], None],
) -> None:
    report = callers.report
    for number in range(1, kills + 1):
        early = moments.random() < _EARLY
        server.start()
        if not early:
            # A first contact that comes too early is lost, and repeated only after five seconds.
            await _until(server.started, server.text)
        async with callers.calling():
            before = report.changes
            if not early:
                await _until(lambda: report.changes > before, server.text)  # noqa: B023 -- called at once
            await asyncio.sleep(moments.uniform(0, _LATEST_S))
            server.kill()
        report.kills += 1
        report.early += early
        check.after_a_kill()
        if number % _SETTLED_EACH == 0:
            await _settle(server, callers, check)
            show(report)


async def _until(condition: Callable[[], bool], shows: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(_BACK_S):
            while not condition():
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise AssertionError(f"not within {_BACK_S:g} s:\n{shows()[-4000:]}") from None


@asynccontextmanager
async def _admin(place: Place) -> AsyncIterator[Any]:
    """Yield a stub of the admin API."""
    options = (
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 100),
        ("grpc.enable_http_proxy", 0),
    )
    async with grpc.aio.insecure_channel("{}:{}".format(*place.admin), options=options) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)  # type: ignore[no-untyped-call]


async def _settle(server: ServerProcess, callers: _Callers, check: _Check) -> None:
    """Run the server, without changes, until every key is where it belongs."""
    with server:
        async with _admin(callers.place) as stub:
            states: dict[str, str] = {}
            with suppress(TimeoutError):
                async with asyncio.timeout(_UNSETTLED_S):
                    while not states or not set(states.values()) <= set(_STATES):
                        answer = await stub.ListKeys(pb.ListKeysRequest(), wait_for_ready=True)
                        states = {key.key_id: key.state for key in answer.keys}
                        await asyncio.sleep(_RETRY_S)
    check.settled(states)


def main() -> int:
    """Kill, and print a report; fail when there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    asked = parser.parse_args()
    print(f"seed {asked.seed}")

    def show(report: Report) -> None:
        print(
            f"{report.kills} kills ({report.early} at any moment of the start), {report.changes} changes, "
            f"{report.tokens} tokens of {report.keys} keys, {len(report.faults)} faults",
            flush=True,
        )

    report = run(asked.kills, asked.seed, show)
    show(report)
    print(f"changes that failed: {dict(report.failed_changes)}")
    print(f"{report.seconds:.0f} s")
    return int(bool(report.faults))


if __name__ == "__main__":
    sys.exit(main())
