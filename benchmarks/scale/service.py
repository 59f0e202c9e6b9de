"""A raw-protocol service for the scale benchmark: a submission is NEW, and SUCCESS when it is asked about, each after a
latency. It does no more than a client can tell, so that it is never the bottleneck, and counts what it took.

`GET /count` says how many submissions and polls there were, and the seconds from the first request to the last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import dataclass

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
NEW = b'{"request_id": "00000000-0000-4000-8000-%012x", "status": "NEW"}'
SUCCESS = b'{"request_id": "%s", "status": "SUCCESS", "data": {"id": "%s"}}'


@dataclass
class Taken:
    """What arrived, how much of it was in flight at once, and between when and when."""

    submissions: int = 0
    polls: int = 0
    in_flight: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0

    def shown(self) -> bytes:
        names = ("submissions", "polls", "peak")
        said = {name: getattr(self, name) for name in names} | {"seconds": self.last - self.first}
        return json.dumps(said).encode()


class Service(asyncio.Protocol):
    """One connection. Requests come one after the other, those with a body with its Content-Length."""

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
        _, has_length, rest = self.received.lower().partition(b"content-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if has_length else 0
        if len(self.received) < head + 4 + length:
            return
        path = bytes(self.received.split(b" ", 2)[1])
        self.received.clear()
        if path == b"/count":
            self._write(self.taken.shown())
        else:
            self._take(path)

    def _take(self, path: bytes) -> None:
        taken = self.taken
        taken.first = taken.first or time.perf_counter()
        if b"by-request-id" in path:
            taken.polls += 1
            number = path.rpartition(b"/")[2]
            body = SUCCESS % (number, number)
        else:
            taken.submissions += 1
            body = NEW % taken.submissions
        taken.in_flight += 1
        taken.peak = max(taken.peak, taken.in_flight)
        asyncio.get_running_loop().call_later(self.latency, self._answer, body)

    def _answer(self, body: bytes) -> None:
        self.taken.in_flight -= 1
        self.taken.last = time.perf_counter()
        self._write(body)

    def _write(self, body: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(HEAD % (len(body), body))


async def serve(latency: float) -> None:
    loop, taken = asyncio.get_running_loop(), Taken()
    server = await loop.create_server(lambda: Service(taken, latency), "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


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
