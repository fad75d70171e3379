"""Key servers without a network: real files, a real directory store, and a clock that the test sets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from harness.log import Lines
from harness.settings import key_settings
from tailbone.errors import StoreError
from tailbone.files import Disk
from tailbone.jwks.condition_check import NEVER_MATCHES
from tailbone.jwks.directory import DirectoryStore
from tailbone.keys.folder import KeyFolder
from tailbone.keys.lifecycle import KeyLifecycle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tailbone.jwks.store import Store, Stored
    from tailbone.keys.settings import KeySettings

JWKS = ".well-known/jwks.json"
START = 1_795_518_230.0
EC = key_settings(algorithm="ES256")
"""Settings for keys that are generated instantly."""

GO_PRIVATE = "tb-1795518230.private.jwk"
GO_PUBLIC = "tb-1795518230.public.jwk"


class FakeTime:
    """A wall clock, a monotonic clock and a sleep; time passes only by ``advance`` and ``sleep``."""

    def __init__(self) -> None:
        self.now = START
        self.passed = 1000.0

    def clock(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


class Unreliable:
    """A store in front of another one, which fails on demand.

    ``before`` and ``after`` are called with "read", "write" or "probe" around each call, and may raise; what
    ``after`` raises comes when the call has been carried out.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.location = inner.location
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self.reads = 0
        self.writes = 0

    async def read(self, path: str) -> Stored | None:
        self.reads += 1
        self.before("read")
        stored = await self.inner.read(path)
        self.after("read")
        return stored

    async def write(self, path: str, data: bytes, **how: Any) -> None:
        self.writes += 1
        call = "probe" if how["etag"] == NEVER_MATCHES else "write"
        self.before(call)
        await self.inner.write(path, data, **how)
        self.after(call)

    async def close(self) -> None:
        await self.inner.close()

    def fail(self, error: Exception, *calls: str) -> None:
        """Raise ``error`` instead of these calls (all, if none is named) until ``recover``."""

        def before(call: str) -> None:
            if not calls or call in calls:
                raise error

        self.before = before

    def break_down(self, call: str, error: Exception, *, applied: bool) -> None:
        """Raise ``error`` from the next ``call``, before or after it was applied, and fail from then on."""

        def broken(name: str) -> None:
            if name == call:
                self.fail(StoreError("away"))
                raise error

        if applied:
            self.after = broken
        else:
            self.before = broken

    def recover(self) -> None:
        """Forward all calls again."""
        self.before = self.after = lambda _: None


class ObservedDisk(Disk):
    """A disk that runs a coroutine after each change, on the event loop of its creator."""

    def __init__(self) -> None:
        self.observe: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._loop = asyncio.get_running_loop()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._observe()

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._observe()

    def _observe(self) -> None:
        if self.observe is not None:
            asyncio.run_coroutine_threadsafe(self.observe(), self._loop).result(10)


class Careless:
    """A store that ignores conditions.

    Attributes:
        seen: what was written to it.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.location = inner.location
        self.read = inner.read
        self.close = inner.close
        self.seen: list[bytes] = []

    async def write(self, path: str, data: bytes, **how: Any) -> None:
        self.seen.append(data)
        await self.inner.write(path, data, **how | {"conditional": False})


class Server:
    """One server's keys: its folder, and a bucket that it may share with others."""

    def __init__(
        self,
        folder: Path,
        bucket: Path | None,
        time: FakeTime,
        *,
        settings: KeySettings = EC,
        disk: Disk | None = None,
    ) -> None:
        self.folder = folder
        self.bucket = bucket
        self.time = time
        self.log = Lines()
        self.store = None if bucket is None else Unreliable(DirectoryStore(bucket))
        self.keys = KeyLifecycle(
            folder=KeyFolder(folder, disk=disk),
            store=self.store,
            path=JWKS,
            settings=settings,
            log=self.log,  # type: ignore[arg-type]
            clock=time.clock,
            monotonic=time.monotonic,
            # Looked up for each call, so that a test can replace it.
            sleep=lambda seconds: time.sleep(seconds),
        )

    async def start(self) -> Server:
        """Start, and read the JWKS for the first time."""
        await self.keys.start()
        await self.keys.sync()
        return self

    def again(self, *, settings: KeySettings = EC) -> Server:
        """Return a server for the next process on the same folder and bucket."""
        return Server(self.folder, self.bucket, self.time, settings=settings)

    async def pass_time(self, seconds: float) -> None:
        """Advance the time, and let the server work."""
        self.time.advance(seconds)
        await self.keys.tick()
        await self.keys.sync()

    @property
    def signing(self) -> str:
        """The kid that signs; "" if there is none."""
        key = self.keys.ring.signing
        return key.kid if key else ""

    @property
    def signers(self) -> list[str]:
        """The kids that have signed since the start, in order; "" for a time without a signing key."""
        return [fields["kid"] for _, event, fields in self.log.lines if event == "signing key changed"]

    @property
    def published(self) -> list[str]:
        """The kids in the bucket."""
        assert self.bucket is not None
        return kids(self.bucket)

    @property
    def private(self) -> list[str]:
        """The kids whose private half is in the folder."""
        return sorted(path.name.removesuffix(".private.jwk") for path in self.folder.glob("*.private.jwk"))

    @property
    def set_aside(self) -> list[str]:
        """The kids whose private half is in ``removed/``."""
        removed = self.folder / "removed"
        return sorted(path.name.removesuffix(".private.jwk") for path in removed.glob("*.private.jwk"))

    async def states(self) -> dict[str, str]:
        """Return the state of each kid, as ``keys list`` shows it."""
        return {info.key_id: info.state for info in await self.keys.list_keys()}


def kids(bucket: Path) -> list[str]:
    """Return the kids in a bucket's JWKS."""
    return [key["kid"] for key in document(bucket)["keys"]]


def document(bucket: Path) -> dict[str, Any]:
    """Return a bucket's JWKS."""
    parsed: dict[str, Any] = json.loads((bucket / JWKS).read_bytes())
    return parsed


def write_document(bucket: Path, content: dict[str, Any] | bytes) -> None:
    """Write a JWKS into a bucket, as another program would."""
    path = bucket / JWKS
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def drop(bucket: Path, kid: str) -> None:
    """Remove a key from a bucket's JWKS, as another program would."""
    content = document(bucket)
    content["keys"] = [key for key in content["keys"] if key["kid"] != kid]
    write_document(bucket, content)
