"""Generate the stubs from admin.proto: ``python -m tailbone.admin._proto [FOLDER]``.

Needs grpcio-tools, in the version that the development dependencies pin: other versions write other bytes.

protoc's code refuses to load beside a protobuf or grpcio older than the generator. What the current generator writes
is, version numbers and spelling apart, what those of the lower bounds in pyproject.toml write, so the
guards are set to these bounds: they then refuse exactly what the package's metadata refuses.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

PROTOBUF_FLOOR = (5, 29, 0)
GRPC_FLOOR = (1, 70, 0)

_PACKAGE = "tailbone/admin/_proto"
_HERE = Path(__file__).resolve().parent


def generate(target: Path) -> list[Path]:
    """Write the stubs of admin.proto into a folder.

    Args:
        target: an existing folder.

    Returns:
        The files written, sorted.

    Raises:
        RuntimeError: protoc refused the file.
    """
    from grpc_tools import protoc  # noqa: PLC0415  a development dependency

    with tempfile.TemporaryDirectory() as scratch:
        # The virtual path makes the generated import absolute: `from tailbone.admin._proto import admin_pb2`.
        status = protoc.main(
            [
                "protoc",
                f"-I{_PACKAGE}={_HERE.parent}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                f"--grpc_python_out={scratch}",
                f"{_PACKAGE}/admin.proto",
            ]
        )
        if status != 0:
            raise RuntimeError(f"protoc ended with {status}")
        written = []
        for made in sorted(Path(scratch, _PACKAGE).iterdir()):
            path = target / made.name
            # The generator writes no annotations, or not those that strict checking asks for.
            path.write_text("# mypy: ignore-errors\n" + _lower_guards(made.read_text()))
            written.append(path)
        return written


def _lower_guards(code: str) -> str:
    major, minor, patch = PROTOBUF_FLOOR
    code = re.sub(r"(# Protobuf Python Version: )\S+", rf"\g<1>{major}.{minor}.{patch}", code)
    code = re.sub(
        r"(Domain\.PUBLIC,\n)    \d+,\n    \d+,\n    \d+,\n",
        rf"\g<1>    {major},\n    {minor},\n    {patch},\n",
        code,
    )
    grpc_floor = ".".join(map(str, GRPC_FLOOR))
    return re.sub(r"(GRPC_GENERATED_VERSION = )'[^']+'", rf"\g<1>'{grpc_floor}'", code)


if __name__ == "__main__":
    for file in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else _HERE):
        print(file)  # noqa: T201
