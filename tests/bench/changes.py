"""Changes of keys by several servers on one bucket of versitygw, counted and checked.

``python -m tests.bench.changes --servers 3 --changes 1000``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

# The harness is what the tests have on their path.
sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import s3
from harness.changes import change_keys

from tailbone.jwks.s3 import S3Store


def main() -> int:
    """Run, print, and fail when a key was lost or a token did not verify."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--moto", action="store_true", help="moto instead of versitygw")
    asked = parser.parse_args()
    program = s3.find_versitygw()
    if program is None and not asked.moto:
        parser.error("versitygw is not installed; .ci/run does it, TAILBONE_VERSITYGW names it")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        serving = s3.moto(root) if asked.moto else s3.versitygw(str(program), root)
        with serving as endpoint:
            os.environ.update(s3.environment(endpoint))
            s3.make_bucket(endpoint)
            report = asyncio.run(
                change_keys(
                    root,
                    servers=asked.servers,
                    changes=asked.changes,
                    make_store=lambda: S3Store(s3.BUCKET),
                )
            )
    print(f"servers     {asked.servers}")
    print(f"changes     {report.changes} in {report.seconds:.1f} s")
    print(f"failed      {report.failed or 'none'}")
    print(f"rotated     {report.rotated} keys made by the servers themselves")
    print(f"tokens      {report.tokens}, unverified: {report.unverified or 'none'}")
    print(f"keys        missing: {report.missing or 'none'}, surplus: {report.surplus or 'none'}")
    return bool(report.failed or report.unverified or report.missing or report.surplus)


if __name__ == "__main__":
    sys.exit(main())
