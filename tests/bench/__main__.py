"""``python -m tests.bench``: measures, and prints a table; nothing is asserted."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.bench import (
    commands,
    connections,
    grants,
    machine,
    memory,
    rotation,
    signing,
    speed,
    startup,
    tokens,
    verifying,
)
from tests.bench.figure import table
from tests.bench.session import QUICK, Effort, Options, Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.bench.figure import Figure

_MEASURES: dict[str, Callable[[Session], Awaitable[list[Figure]]]] = {
    "tokens": tokens.measure,
    "connections": connections.measure,
    "memory": memory.measure,
    "startup": startup.measure,
    "help": commands.measure_help,
    "keys": commands.measure_keys,
    "adapters": commands.measure_adapters,
    "rotation": rotation.measure,
    "signing": signing.measure,
    "verifying": verifying.measure,
    "grants": grants.measure,
}
_ALONE = {"speed": speed.measure}
"""Measured only on request: it repeats the others' figures, and takes long."""


def main() -> None:
    """Measure and print the figures that the command line requests."""
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := set(arguments.figures) - (_MEASURES | _ALONE).keys():
        allowed = ", ".join(_MEASURES | _ALONE)
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; allowed: {allowed}")
    effort = QUICK if arguments.quick else Effort()
    given = {name: getattr(arguments, name) for name in ("rounds", "turn_s", "tokens")}
    effort = effort.replacing(**{name: value for name, value in given.items() if value is not None})
    options = Options(
        effort=effort,
        server=shlex.split(arguments.server),
        against=shlex.split(arguments.against),
        before=arguments.before,
        connections=arguments.connections,
        algorithm=arguments.algorithm,
    )
    described = machine.describe()
    print("\n".join(f"{name}: {what}" for name, what in described.items()), flush=True)
    figures = asyncio.run(_measure(options, arguments.figures or list(_MEASURES)))
    if arguments.json:
        arguments.json.write_bytes(
            msgspec.json.format(msgspec.json.encode({"machine": described, "figures": figures}))
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(_MEASURES | _ALONE))
    parser.add_argument("--quick", action="store_true", help="only show that everything works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write machine and figures there, too")
    parser.add_argument("--rounds", type=int, help="turns of each server")
    parser.add_argument("--turn", dest="turn_s", type=float, metavar="SECONDS", help="length of a turn")
    parser.add_argument("--tokens", type=int, help="how many for the memory")
    parser.add_argument("--server", default="", metavar="COMMAND", help="measure this in place of tailbone")
    parser.add_argument(
        "--against",
        default="",
        metavar="COMMAND",
        help="compare tokens with this tailbone, not with the Go server",
    )
    parser.add_argument(
        "--before", default="", metavar="COMMIT", help="compare signing and grants with the code of a commit"
    )
    parser.add_argument(
        "--connections", type=int, nargs="+", default=[16, 1], metavar="N", help="at once, for tokens"
    )
    parser.add_argument(
        "--algorithm", choices=["RS256", "ES256"], default="RS256", help="of the key, for tokens"
    )
    return parser


async def _measure(options: Options, names: list[str]) -> dict[str, list[Figure]]:
    measured = {}
    async with Session(options) as session:
        for name in names:
            print(f"\n{name} ({_load()})", flush=True)
            measured[name] = await (_MEASURES | _ALONE)[name](session)
            print(table(measured[name]), flush=True)
    return measured


def _load() -> str:
    """Return the machine's load, since figures of a busy machine mean less."""
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
