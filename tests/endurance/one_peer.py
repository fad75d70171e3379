"""One peer against all others: ``python -m tests.endurance.one_peer [--seconds 30] [PEER …]``.

Each hostile peer plays from one tailnet address, beside an honest caller at another. Whatever it does, the
honest caller gets all of its tokens, 99 of 100 within a second, and the server stays below 300 MB. One row
has four addresses: 1,000 connections that read nothing, while the server stays below 250 MB.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from tests.bench.procfs import peak_rss_mb, reset_peak_rss
from tests.endurance.honest import Honest, ask
from tests.endurance.peers import PEERS, play, unread_jwks_from_four
from tests.endurance.scene import CallerProcess, ServerProcess, scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NOBODY: Final = "(nobody)"
_P99_MS: Final = 1000
_RSS_MB: Final = 300
_RSS_OF_FOUR_MB: Final = 250
_RATE: Final = 40.0
# The hostile peer would run on another machine: what the server wants of the processors comes first.
_NICE: Final = 10


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What one peer did, and what that cost.

    Attributes:
        peer: its name.
        did: what it counted.
        honest: what the honest caller saw.
        rss_mb: the server's largest resident memory meanwhile, in MB.
        most_rss_mb: how much that may be.
    """

    peer: str
    did: dict[str, int]
    honest: Honest
    rss_mb: float
    most_rss_mb: int = _RSS_MB

    @property
    def holds(self) -> bool:
        """Whether what is promised was so."""
        if self.rss_mb > self.most_rss_mb or self.honest.failed:
            return False
        # The time is promised beside one address, not beside four.
        return self.most_rss_mb == _RSS_OF_FOUR_MB or self.honest.percentile(99) <= _P99_MS


def measure(names: Sequence[str], seconds: float) -> Iterator[Row]:
    """Play peers one after the other, each on the same server."""
    with scene() as (tailnet, folder, stack):
        bucket = folder / "bucket"
        variables = {
            "TB_KEYS_BUCKET": bucket.as_uri(),
            "TB_KEYS_ALGORITHM": "ES256",
            "TB_SERVER_RATELIMIT": "",  # as by default
        }
        server = stack.enter_context(ServerProcess(tailnet, folder, "server", **variables))
        honest = stack.enter_context(CallerProcess(tailnet, folder, "honest", server.name))
        hostile = stack.enter_context(
            CallerProcess(tailnet, folder, "hostile", server.name, nodes=4, nice=_NICE)
        )
        honest.submit(ask, 1.0, _RATE).result()
        for name in names:
            reset_peak_rss(server.pid)
            playing = hostile.submit(play, name, seconds) if name != NOBODY else None
            seen = honest.submit(ask, seconds, _RATE).result()
            did = playing.result() if playing else {}
            most = _RSS_OF_FOUR_MB if name == unread_jwks_from_four.__name__ else _RSS_MB
            yield Row(peer=name, did=did, honest=seen, rss_mb=peak_rss_mb(server.pid), most_rss_mb=most)
        server.kill()  # an orderly end would wait for the calls of the last peer


def main() -> int:
    """Play all peers, and print a table; fail when a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.endurance.one_peer", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=", ".join(PEERS))
    parser.add_argument("--seconds", type=float, default=30.0, help="for each peer")
    asked = parser.parse_args()
    if unknown := set(asked.peers) - PEERS.keys():
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; allowed: {', '.join(PEERS)}")
    print(f"{asked.seconds:g} s each, {os.cpu_count()} processors; {_RATE:g} honest requests a second")
    print(_line("peer", "tokens", "failed", "p50 ms", "p99 ms", "max ms", "RSS MB", "holds", ""), flush=True)
    broken = 0
    for row in measure([NOBODY, *(asked.peers or PEERS)], asked.seconds):
        seen = row.honest
        print(
            _line(
                row.peer,
                str(seen.tokens),
                str(sum(seen.failed.values())),
                f"{seen.percentile(50):.1f}",
                f"{seen.percentile(99):.0f}",
                f"{max(seen.took_ms):.0f}",
                f"{row.rss_mb:.0f}",
                "yes" if row.holds else "NO",
                "; ".join(_counts(seen.failed) + _counts(row.did)),
            ),
            flush=True,
        )
        broken += not row.holds
    return int(broken > 0)


def _line(peer: str, *cells: str) -> str:
    return "  ".join([peer.ljust(22), *(cell.rjust(7) for cell in cells[:-1]), cells[-1]]).rstrip()


def _counts(counts: dict[str, int]) -> list[str]:
    return [f"{count} {what}" for what, count in counts.items()]


if __name__ == "__main__":
    sys.exit(main())
