"""Many changes by several servers on one bucket, while all of them issue tokens."""

from __future__ import annotations

import asyncio
import json
import random
import time
from base64 import urlsafe_b64encode
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import jwt
import msgspec

from harness.keys import JWKS, Lines
from tailbone.keys.folder import KeyFolder
from tailbone.keys.lifecycle import KeyLifecycle, KeySettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tailbone.jwks.store import Store

SETTINGS = KeySettings(
    algorithm="ES256", max_age_s=2.0, activate_after_s=0.5, rotate_every_s=3.0, expiry_s=1.0
)
_MOST_OWN_KEYS = 12
_TOKEN_PAUSE_S = 0.1


class Reader(Protocol):
    """Reads a document past the servers under test."""

    async def read(self, path: str) -> Any: ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What happened.

    Attributes:
        changes: generates and removes that succeeded.
        failed: errors of the others, counted.
        tokens: issued, each looked up in the published document at once.
        unverified: tokens whose key was not published when they were issued.
        missing: kids that should be published and are not.
        surplus: kids that are published and should not be.
        seconds: in all.
    """

    changes: int
    failed: dict[str, int]
    tokens: int
    unverified: list[str]
    missing: list[str]
    surplus: list[str]
    rotated: int
    seconds: float


class _Changer:
    """One server: its lifecycle, and what it has been asked for."""

    def __init__(self, folder: Path, store: Store, reader: Reader, seed: int) -> None:
        self.keys = KeyLifecycle(
            folder=KeyFolder(folder),
            store=store,
            path=JWKS,
            settings=SETTINGS,
            log=Lines(),  # type: ignore[arg-type]
        )
        self.folder = folder
        self.removed: set[str] = set()
        self.generated: set[str] = set()
        self.failed: Counter[str] = Counter()
        self.unverified: list[str] = []
        self.tokens = 0
        self._reader = reader
        self._random = random.Random(seed)

    async def change(self, take: Callable[[], bool]) -> int:
        """Generate and remove while there is something to do."""
        done = 0
        while take():
            own = sorted(key.kid for key in self.keys.ring.published)
            try:
                if len(own) < 2 or (len(own) < _MOST_OWN_KEYS and self._random.random() < 0.5):
                    self.generated.add((await self.keys.generate()).key_id)
                else:
                    kid = self._random.choice(own)
                    await self.keys.remove(kid)
                    self.removed.add(kid)
                done += 1
            except Exception as error:  # noqa: BLE001 -- counted, and shown
                self.failed[f"{type(error).__name__}: {error}"] += 1
        return done

    async def issue(self) -> None:
        """Issue tokens, and verify each as somebody does who fetches the JWKS."""
        while True:
            before = await self._read()
            key = self.keys.ring.signing
            if key is None:
                await asyncio.sleep(0.01)
                continue
            token = await _token(key)
            self.tokens += 1
            # Published while it was signed: it stood there before, or it stands there now.
            if not _verifies(token, before) and not _verifies(token, await self._read()):
                self.unverified.append(key.kid)
            # Tokens are to be there at every moment, not to take the machine from the changes.
            await asyncio.sleep(_TOKEN_PAUSE_S)

    async def _read(self) -> dict[str, Any]:
        stored = await self._reader.read(JWKS)
        parsed: dict[str, Any] = json.loads(stored.data) if stored else {"keys": []}
        return parsed


async def change_keys(
    root: Path, *, servers: int, changes: int, make_store: Callable[[], Store], seed: int = 1
) -> Report:
    """Let servers change their keys at once.

    Args:
        root: for their folders.
        servers: how many.
        changes: how many in all.
        make_store: makes a store for each server, and one more to look with.
        seed: of what they do.
    """
    began = time.monotonic()
    reader = make_store()
    changers = [
        _Changer(root / f"server-{number}", make_store(), reader, seed + number) for number in range(servers)
    ]
    left = iter(range(changes))
    for changer in changers:
        await changer.keys.start()
    async with asyncio.TaskGroup() as group:
        background = [group.create_task(changer.keys.run()) for changer in changers]
        background += [group.create_task(changer.issue()) for changer in changers]
        counts = await asyncio.gather(
            *(changer.change(lambda: next(left, None) is not None) for changer in changers)
        )
        for task in background:
            task.cancel()
    for changer in changers:
        await changer.keys.sync()
    report = await _report(changers, reader, sum(counts), time.monotonic() - began)
    for changer in changers:
        await changer.keys.close()
    await reader.close()
    return report


async def _report(changers: list[_Changer], reader: Store, changes: int, seconds: float) -> Report:
    stored = await reader.read(JWKS)
    assert stored is not None
    published = [key["kid"] for key in json.loads(stored.data)["keys"]]
    expected = {
        path.name.removesuffix(".private.jwk")
        for changer in changers
        for path in changer.folder.glob("*.private.jwk")
    }
    for changer in changers:
        expected |= changer.generated - changer.removed
    failed = sum((changer.failed for changer in changers), Counter[str]())
    known = {kid for changer in changers for kid in changer.generated}
    return Report(
        changes=changes,
        failed=dict(failed),
        tokens=sum(changer.tokens for changer in changers),
        unverified=[kid for changer in changers for kid in changer.unverified],
        missing=sorted(expected - set(published)),
        surplus=sorted(set(published) - expected) + [kid for kid, n in Counter(published).items() if n > 1],
        rotated=len({kid for changer in changers for kid in changer.removed | expected} - known),
        seconds=seconds,
    )


async def _token(key: Any) -> str:
    header = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"}
    parts = [json.dumps(header).encode(), b'{"iss":"tailbone"}']
    signed = b".".join(urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(await key.sign(signed)).rstrip(b"=")
    return (signed + b"." + signature).decode()


def _verifies(token: str, document: dict[str, Any]) -> bool:
    kid = jwt.get_unverified_header(token)["kid"]
    for members in document["keys"]:
        if members.get("kid") == kid:
            jwt.decode(token, jwt.PyJWK(members), algorithms=[members["alg"]])
            return True
    return False
