"""One process that records transitions for a time: `soak.py WHERE SECONDS WRITERS PROGRESS`.

It writes into the file PROGRESS how many items it has come to, so that there are always more of them, and prints how
many transitions there were in each second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from processes import say, wait_for_word
from transitions import EVENTS, Record, postgres


async def write(record: Record, numbers: Iterator[int], until: float, seconds: list[int], begun: float) -> None:
    for seq in numbers:
        for event in EVENTS:
            await record(seq, event)
            now = time.monotonic()
            if now >= until:
                return
            seconds[int(now - begun)] += 1


async def main(where: str, seconds: float, writers: int, progress: Path) -> None:
    found = [0] * (int(seconds) + 1)
    async with postgres(where, ()) as record:
        wait_for_word()
        begun, taken = time.monotonic(), count(1)
        until = begun + seconds
        writing = asyncio.gather(*(write(record, taken, until, found, begun) for _ in range(writers)))
        while not writing.done():
            progress.write_text(  # noqa: ASYNC240 - some bytes
                str(sum(found) // len(EVENTS))
            )
            await asyncio.wait([writing], timeout=0.25)
        await writing
    say(seconds=found[: int(seconds)])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
