"""A raw-protocol service for the journal benchmark: takes a submission and answers NEW after a latency.

It does no more than a client can tell, so that it is never the bottleneck. It prints one JSON line with its port when
it listens, and one with what it took when it is told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
from dataclasses import dataclass


@dataclass
class Taken:
    """What arrived, and how much of it was in flight at once."""

    submissions: int = 0
    in_flight: int = 0
    peak: int = 0


class Service(asyncio.Protocol):
    """One connection. Requests come one after the other, each with a Content-Length."""

    def __init__(self, taken: Taken, latency: float) -> None:
        self.taken = taken
        self.latency = latency
        self.received = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment] # a TCP server's transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = int(self.received.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self.received) < head + 4 + length:
            return
        self.received.clear()
        taken = self.taken
        taken.submissions += 1
        taken.in_flight += 1
        taken.peak = max(taken.peak, taken.in_flight)
        asyncio.get_running_loop().call_later(self.latency, self.answer, taken.submissions)

    def answer(self, number: int) -> None:
        self.taken.in_flight -= 1
        body = b'{"request_id": "00000000-0000-4000-8000-%012x", "status": "NEW"}' % number
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        if self.transport is not None:
            self.transport.write(head + body)


async def serve(latency: float) -> None:
    loop, taken, ended = asyncio.get_running_loop(), Taken(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: Service(taken, latency), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await ended.wait()
    server.close()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report = {"submissions": taken.submissions, "peak": taken.peak, "cpu": usage.ru_utime + usage.ru_stime}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, required=True)
    arguments = parser.parse_args()
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(arguments.latency))
    else:
        uvloop.run(serve(arguments.latency))
