"""What is fuzzed: each target raises AssertionError where something is wrong with the answer to an input.

Any exception that the fuzzed interface does not promise is a fault, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import unicodedata
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import jwt
from harness.leaks import NothingLeft

from tailbone.admin.client import AdminClient
from tailbone.config.load import load as load_settings
from tailbone.errors import ConfigError, ForeignDocumentError, KeyFileError, TailboneError, UnknownCallerError
from tailbone.jwks.document import Document
from tailbone.keys.folder import KeyFolder
from tailbone.keys.record import KeyRecord, Origin
from tailbone.keys.signing_key import SigningKey
from tailbone.token.identity import Identity
from tailbone.tsnet.library import Library, load
from tests.endurance.fuzz.inputs import changed_bytes, changed_lines, json_or_bytes
from tests.endurance.scene import Place, ServerProcess, place_of, scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis import strategies as st

CORPUS: Final = Path(__file__).parent / "corpus"


class Target(Protocol):
    """What is fuzzed, between ``with`` and its end."""

    at_once: int
    """How many inputs a check takes."""

    def __enter__(self) -> Target: ...
    def __exit__(self, *error: object) -> None: ...

    def inputs(self, seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        """Make inputs of seeds."""

    def check(self, inputs: Sequence[bytes]) -> None:
        """Give them to the target.

        Raises:
            Exception: something is wrong.
        """


class _Simple:
    """A target that needs nothing, and takes one input at a time."""

    at_once = 1

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def inputs(self, seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        return json_or_bytes(seeds)

    def check(self, inputs: Sequence[bytes]) -> None:
        for data in inputs:
            self.one(data)

    def one(self, data: bytes) -> None:
        raise NotImplementedError

    def folder(self) -> Path:
        """Make a folder that lasts as long as the target."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tailbone-fuzz-")))


class PrivateKeys(_Simple):
    """A private JWK is refused, or signs what its public half verifies."""

    def one(self, data: bytes) -> None:
        try:
            key = SigningKey.from_jwk(data, fallback_created_at=0.0)
        except KeyFileError:
            return
        signature = asyncio.run(key.sign(b"x"))
        public = jwt.PyJWK(dict(key.public_jwk()))
        assert public.Algorithm.verify(b"x", public.key, signature)
        assert SigningKey.from_jwk(key.private_jwk(), fallback_created_at=0.0).thumbprint == key.thumbprint


class KeyFiles(_Simple):
    """Whatever is in a key folder, it can be read, and the other keys in it can be used."""

    def __enter__(self) -> Any:
        folder = self.folder()
        self._path = folder / "keys"
        self._keys = KeyFolder(self._path)
        self._keys.prepare()
        good = SigningKey.generate("good", algorithm="ES256", size=0, created_at=0.0)
        self._keys.add(good, KeyRecord.new(good.thumbprint, Origin.REQUESTED, now=0.0))
        return self

    def one(self, data: bytes) -> None:
        for suffix in (".private.jwk", ".public.jwk", ".state.json"):
            path = self._path / f"odd{suffix}"
            path.write_bytes(data)
            path.chmod(0o600)
            entries = self._keys.scan().entries
            assert entries["good"].key is not None
            assert not entries["good"].fault
            odd = entries["odd"]
            assert "\n" not in odd.fault
            assert odd.key is not None or odd.fault or suffix != ".private.jwk"
        for path in self._path.glob("odd.*"):
            path.unlink()


class KeyRecords(_Simple):
    """A key's record is refused, or written again as it was read."""

    def one(self, data: bytes) -> None:
        try:
            record = KeyRecord.from_json(data)
        except KeyFileError:
            return
        assert KeyRecord.from_json(record.to_json()) == record


class Documents(_Simple):
    """A JWKS is refused, or keeps all of its content when a key is added and removed."""

    _KEY: Final = {
        "kty": "EC",
        "kid": "added",
        "alg": "ES256",
        "use": "sig",
        "crv": "P-256",
        "x": "",
        "y": "",
    }

    def one(self, data: bytes) -> None:
        try:
            document = Document.parse(data)
        except ForeignDocumentError as error:
            _expect_one_line(error.message)
            return
        assert Document.parse(document.render()) == document
        assert len(document.warnings()) <= 11
        assert all("\n" not in warning for warning in document.warnings())
        if not document.has_kid("added"):
            with suppress(TailboneError):
                added = document.with_key(dict(self._KEY), "thumbprint")
                assert added.has_kid("added")
                assert added.without("added") == document


class Settings(_Simple):
    """A settings file is loaded, or refused in one line that holds no auth key."""

    def inputs(self, seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        return changed_lines(seeds, b"\n")

    def __enter__(self) -> Any:
        self._path = self.folder() / "settings.toml"
        return self

    def one(self, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            load_settings(environ={}, config_file=self._path)
        except ConfigError as error:
            _expect_one_line(error.message)
            if b"tskey-auth-secret" in data and "tskey-auth-secret" in error.message:
                raise AssertionError(error.message) from None


_DECEPTIVE: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class WhoisAnswers(_Simple):
    """The answer of whois is refused, or names somebody in text that deceives nobody."""

    def one(self, data: bytes) -> None:
        try:
            identity = Identity.decode(data)
        except UnknownCallerError:
            return
        assert identity.subject.startswith(("user:", "node:"))
        for text in (identity.node, identity.login, *identity.tags):
            assert _DECEPTIVE.isdisjoint(map(unicodedata.category, text))


class Native(_Simple):
    """Every call of the C interface answers, or fails with a code; nothing panics, and nothing is left open.

    An input is ``{"call": NAME, "config": …}``; the call gets the config as JSON.
    """

    def __enter__(self) -> Any:
        self._library = load()
        self._folder = self.folder()
        tailnet, _, stack = self._stack.enter_context(scene())
        node = stack.enter_context(tailnet.caller()).node
        self._node = node._handle
        # A second private tailnet, so that commands do not affect the node.
        opened = asyncio.run(self._library.devnet_start(b"{}"))
        self._devnet = opened.handle
        self._stack.callback(lambda: asyncio.run(self._library.devnet_stop(opened.handle, 5.0)))
        return self

    def one(self, data: bytes) -> None:
        try:
            order = json.loads(data)
            call, config = order["call"], order["config"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        if not isinstance(call, str) or call not in _CALLS:
            return
        if isinstance(config, dict):
            # It must not write outside of its folder.
            config = config | {
                name: str(self._folder / "x") for name in ("dir", "state_dir") if name in config
            }
            if str(config.get("local", "")).startswith("unix:"):
                config["local"] = f"unix:{self._folder}/socket"
        raw = json.dumps(config).encode("utf-8", "surrogatepass")
        with NothingLeft(slack=1000):
            try:
                asyncio.run(_CALLS[call](self, self._library, raw))
            except TailboneError as error:
                if (error.detail or "").endswith((": panic", ": internal")):
                    raise AssertionError(f"{error.detail}: {error.message}") from None

    async def _node_new(self, library: Library, config: bytes) -> None:
        reading, writing = os.pipe()
        try:
            opened = await library.node_new(config, writing)
            await library.node_close(opened.handle, 5.0)
        finally:
            os.close(reading)
            os.close(writing)

    async def _listen(self, library: Library, config: bytes) -> None:
        opened = await library.listen(self._node, config)
        await library.bridge_close(opened.handle, 0.0)

    async def _forward(self, library: Library, config: bytes) -> None:
        opened = await library.forward(self._node, config)
        await library.bridge_close(opened.handle, 0.0)

    async def _devnet_do(self, library: Library, config: bytes) -> None:
        json.loads(await library.devnet_do(self._devnet, config))

    async def _whois(self, library: Library, config: bytes) -> None:
        Identity.decode(library.whois(self._node, config.strip(b'"')))


_CALLS: Final = {
    "node_new": Native._node_new,
    "listen": Native._listen,
    "forward": Native._forward,
    "devnet_do": Native._devnet_do,
    "whois": Native._whois,
}


_END_S: Final = 20.0
_SILENCE_S: Final = 0.3
_GRPC: Final = b'"logger":"grpc._cython.cygrpc"'


class _Live(_Simple):
    """A whole server, which must neither end nor log an error."""

    at_once = 24
    ends = True
    """Whether it ends a connection after its client has ended its side."""

    def __enter__(self) -> Any:
        tailnet, folder, stack = self._stack.enter_context(scene())
        self._server = stack.enter_context(
            ServerProcess(tailnet, folder, "server", TB_KEYS_ALGORITHM="ES256")
        )
        self._place = place_of(stack.enter_context(tailnet.caller()), self._server.name)
        self._read = 0
        return self

    def check(self, inputs: Sequence[bytes]) -> None:
        """Send each on a new connection."""
        for data, answer in zip(inputs, asyncio.run(self._send(inputs)), strict=True):
            self.look(data, answer)
        assert self._server.started()
        with self._server.log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
            self._read = log.tell()
        # What grpc itself says about a peer's bytes is an error to grpc alone.
        errors = [line for line in new.splitlines() if b'"level":"error"' in line and _GRPC not in line]
        assert not errors, errors

    async def _send(self, inputs: Sequence[bytes]) -> list[bytes]:
        address = self.address(self._place)

        async def one(data: bytes) -> bytes:
            parts = []
            reader, writer = await asyncio.open_connection(*address)
            writer.write(data)
            try:
                # It may have ended the connection already.
                with suppress(ConnectionError):
                    if self.ends and writer.can_write_eof():
                        writer.write_eof()
                    async with asyncio.timeout(_END_S if self.ends else _SILENCE_S):
                        while part := await reader.read(1 << 16):
                            parts.append(part)
            except TimeoutError:
                if self.ends:
                    raise
            finally:
                writer.transport.abort()
            return b"".join(parts)

        return await asyncio.gather(*map(one, inputs))

    def address(self, place: Place) -> tuple[str, int]:
        raise NotImplementedError

    def look(self, data: bytes, answer: bytes) -> None:
        """Look at an answer."""


_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n((?:[a-zA-Z-]+: [ -~]*\r\n)*)\r\n")
_STATUSES: Final = {100, 200, 304, 400, 403, 404, 405, 408, 413, 421, 503}
_LENGTH: Final = re.compile(rb"(?i)content-length: (\d+)")


class Http(_Live):
    """Whatever is sent to the issuer, what comes back are whole answers, none of which is a 500."""

    def inputs(self, seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        return changed_lines(seeds, b"\r\n")

    def address(self, place: Place) -> tuple[str, int]:
        return place.issuer

    def look(self, data: bytes, answer: bytes) -> None:
        while answer:
            head = _HEAD.match(answer)
            assert head is not None, answer
            assert int(head[1]) in _STATUSES, answer
            answer = answer[head.end() :]
            length = _LENGTH.search(head[2])
            # An answer to HEAD has the length of a body that it has not.
            if length is not None and not answer.startswith(b"HTTP/1.1 "):
                body, answer = answer[: int(length[1])], answer[int(length[1]) :]
                assert not body or isinstance(json.loads(body), dict)


class Grpc(_Live):
    """Whatever is sent to the admin API, the next caller is answered."""

    ends = False

    def inputs(self, seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
        return changed_bytes(seeds)

    def address(self, place: Place) -> tuple[str, int]:
        return place.admin

    def check(self, inputs: Sequence[bytes]) -> None:
        super().check(inputs)
        with AdminClient(*self._place.admin) as client:
            assert client.status().ready


def _expect_one_line(message: str) -> None:
    if not message.isprintable():
        raise AssertionError(repr(message))


TARGETS: Final[dict[str, type[_Simple]]] = {
    "private-keys": PrivateKeys,
    "key-files": KeyFiles,
    "key-records": KeyRecords,
    "documents": Documents,
    "settings": Settings,
    "whois": WhoisAnswers,
    "native": Native,
    "http": Http,
    "grpc": Grpc,
}


def seeds_of(name: str) -> list[bytes]:
    """Return the corpus of a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
