"""A relay between two streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Write to *sink* what comes from *source*, until either ends; then close *sink*."""
    try:
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    except ConnectionError:
        pass  # the other side has gone
    finally:
        sink.close()
