"""Real S3 servers on loopback, and a proxy in front of them that injects faults."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

BUCKET = "tailbone-test"
ACCESS = "testing-access"
SECRET = "testing-secret-key"
REGION = "eu-north-1"

_ROOT = Path(__file__).parents[2]
_START_S = 60.0


def environment(endpoint: str) -> dict[str, str]:
    """Return the variables of the AWS default chain, without any setting of this machine."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
    }


def find_versitygw() -> str | None:
    """Return the gateway's program: named by TAILBONE_VERSITYGW, built by .ci/run, or on PATH."""
    named = os.environ.get("TAILBONE_VERSITYGW")
    built = _ROOT / "build" / "bin" / "versitygw"
    return named or (str(built) if built.exists() else shutil.which("versitygw"))


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[str]:
    """Run moto's S3 server in its own process; yield its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serving(command, port, folder / "moto.log", {}):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def versitygw(program: str, folder: Path) -> Iterator[str]:
    """Run versitygw with its posix backend on ``folder``; yield its URL."""
    port = _free_port()
    data = folder / "data"
    data.mkdir()
    command = [program, "--port", f"127.0.0.1:{port}", "--region", REGION, "--quiet"]
    # Keep ETags in extended attributes: with --sidecar, a reader may get a new one with old content.
    command += ["posix", str(data)]
    root = {"ROOT_ACCESS_KEY": ACCESS, "ROOT_SECRET_KEY": SECRET}
    with _serving(command, port, folder / "versitygw.log", root):
        yield f"http://127.0.0.1:{port}"


def make_bucket(endpoint: str, bucket: str = BUCKET) -> None:
    """Create a bucket with boto3, which tailbone does not use."""
    client(endpoint).create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})


def client(endpoint: str) -> Any:
    """Return a boto3 client, to read and write independently of tailbone."""
    import boto3  # type: ignore[import-untyped,unused-ignore]

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
    )


@contextlib.contextmanager
def _serving(command: list[str], port: int, log: Path, env: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        end = time.monotonic() + _START_S
        while not _accepts(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- a proxy that injects faults


class Fault(NamedTuple):
    """A fault in the answers to the next requests of a method.

    Attributes:
        method: GET or PUT.
        kind: delay, status, html, endless, cut, etag, fields, or reset before; those that happen after the
            request has been applied are reset after, html after, and gone after: from then on html for
            everything.
        status: for ``status``.
        code: the S3 error's code, for ``status``; "" for an answer without a body.
        message: the S3 error's message, for ``status``.
        fields: further header fields, for ``status`` and ``fields``, each with its CRLF.
        seconds: for ``delay``.
        times: how many requests; -1 for all of them.
        skip: how many requests to answer correctly before.
    """

    method: str
    kind: str
    status: int = 500
    code: str = "InternalError"
    message: str = "injected"
    fields: bytes = b""
    seconds: float = 0.0
    times: int = -1
    skip: int = 0


class _Message(NamedTuple):
    head: bytes
    body: bytes
    expects: bool = False

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()


class FaultProxy:
    """An HTTP/1.1 proxy in front of an S3 server: one request per connection, one after the other.

    Signatures stay valid, since all signed headers are passed on unchanged.
    """

    def __init__(self, endpoint: str) -> None:
        self._host, port = endpoint.removeprefix("http://").split(":")
        self._port = int(port)
        self._faults: list[Fault] = []
        self._one_by_one = asyncio.Lock()
        self.requests: list[str] = []
        self.heads: list[bytes] = []
        self.expected = 0
        self.sent = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def add(self, method: str, kind: str, **how: Any) -> None:
        """Inject this fault from now on."""
        self._faults.append(Fault(method, kind, **how))

    def clear(self) -> None:
        """Answer correctly from now on."""
        self._faults.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader, writer)
            if request is not None:
                self.requests.append(request.method)
                self.heads.append(request.head)
                self.expected += request.expects
                await self._answer(request, self._next_fault(request.method), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has disconnected, for example after a timeout
        finally:
            writer.close()

    def _next_fault(self, method: str) -> Fault | None:
        for place, fault in enumerate(self._faults):
            if fault.method == method:
                if fault.skip:
                    self._faults[place] = fault._replace(skip=fault.skip - 1)
                    return None
                if fault.times == 1:
                    del self._faults[place]
                elif fault.times > 1:
                    self._faults[place] = fault._replace(times=fault.times - 1)
                return fault
        return None

    async def _answer(self, request: _Message, fault: Fault | None, writer: asyncio.StreamWriter) -> None:
        kind = fault.kind if fault else ""
        if fault and kind == "delay":
            await asyncio.sleep(fault.seconds)
        if kind == "reset before":
            _reset(writer)
            return
        if fault and kind == "status":
            writer.write(_error(fault.status, fault.code, fault.message, fault.fields))
        elif fault and kind == "endless":
            await self._send_for_ever(fault.status, writer)
        elif fault and kind == "html":
            writer.write(_answer(fault.status, b"<html>", b"Content-Type: text/html\r\n"))
        else:
            answer = await self._forward(request)
            if kind == "reset after":
                _reset(writer)
                return
            if fault and kind == "gone after":
                self._faults = [Fault(method, "html", fault.status) for method in ("GET", "PUT")]
            if fault and kind in ("html after", "gone after"):
                answer = _Message(_answer(fault.status, b"", b"Content-Type: text/html\r\n"), b"")
            if kind == "cut":
                answer = _Message(answer.head, answer.body[: len(answer.body) // 2])
            if fault and kind == "fields":
                answer = _Message(_with_fields(answer.head, fault.fields), answer.body)
            if kind == "etag":
                answer = _Message(_with_etag(answer.head), answer.body)
            writer.write(answer.head + answer.body)
        await writer.drain()

    async def _send_for_ever(self, status: int, writer: asyncio.StreamWriter) -> None:
        """Send an endless body until the client disconnects; ``sent`` counts its bytes."""
        writer.write(f'HTTP/1.1 {status} Injected\r\nETag: "e"\r\nConnection: close\r\n\r\n'.encode())
        while True:
            writer.write(b" " * 65536)
            await writer.drain()
            self.sent += 65536

    async def _forward(self, request: _Message) -> _Message:
        # moto's compare-and-swap is not atomic, and its reads fail while the object is replaced.
        async with self._one_by_one:
            reader, writer = await asyncio.open_connection(self._host, self._port)
            try:
                writer.write(request.head + request.body)
                answer = await _read(reader, writer)
            finally:
                writer.close()
        assert answer is not None
        return answer


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Message | None:
    """Read a request or an answer with a known length; return None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = head.split(b"\r\n")[:-2]
    fields = dict(line.lower().split(b":", 1) for line in lines[1:])
    if b"expect" in fields:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
    # These two fields are not signed; the others must stay unchanged.
    kept = [line for line in lines if not line.lower().startswith((b"connection:", b"expect:"))]
    return _Message(b"\r\n".join([*kept, b"Connection: close", b"", b""]), body, expects=b"expect" in fields)


def _answer(status: int, body: bytes, fields: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    return f"HTTP/1.1 {status} Injected\r\n".encode() + fields + length + body


def _error(status: int, code: str, message: str, fields: bytes) -> bytes:
    if not code:
        return _answer(status, b"", fields)
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return _answer(status, body.encode(), b"Content-Type: application/xml\r\n" + fields)


def _with_etag(head: bytes) -> bytes:
    return _with_fields(head, b'ETag: "00000000000000000000000000000bad"\r\n')


def _with_fields(head: bytes, fields: bytes) -> bytes:
    """Return the head with these fields replacing those of the same names."""
    names = tuple(field.split(b":")[0].lower() + b":" for field in fields.split(b"\r\n") if field)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(names)]
    return b"\r\n".join(lines[:-2]) + b"\r\n" + fields + b"\r\n"


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
