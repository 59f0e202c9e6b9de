"""A raw-protocol service for the download benchmark: knows where a POST ends and answers a prebuilt PDF.

It does no more than a client can tell, so that it is never the bottleneck. It prints one JSON line with its port when
it listens, and one with what it did when it is told to end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import time
import zlib
from dataclasses import dataclass, field
from typing import cast

SIZE = 42_137
"""The size of the document in the service's own sample answer, in bytes."""

STREAM_ABOVE = 8 * 2**20
CHUNK = 2**18
PADDING = b"% padding of a content stream, which draws nothing at all\n"


@dataclass(frozen=True)
class Document:
    """One valid PDF of one empty page, as its two ends and the number of padding bytes between them."""

    start: bytes
    padding: int
    end: bytes

    @property
    def size(self) -> int:
        return len(self.start) + self.padding + len(self.end)

    def whole(self) -> bytes:
        return self.start + pad(self.padding) + self.end


def pad(length: int) -> bytes:
    """Comment lines of a content stream, `length` bytes in all, the last one ended."""
    return (PADDING * (length // len(PADDING) + 1))[: length - 1] + b"\n" if length else b""


def document(size: int) -> Document:
    """Build a valid PDF of exactly `size` bytes. Raises `ValueError` if it does not fit."""
    padding = 0
    for _ in range(4):  # the digits of the two offsets depend on the padding, which depends on them
        built = _document(padding)
        padding += size - built.size
    if padding < 0 or built.size != size:
        raise ValueError(f"size must be at least {_document(0).size}, got {size}")
    return built


def _document(padding: int) -> Document:
    objects = (
        b"1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n",
        b"2 0 obj\n<< /Type /Pages /Kids [3 0 R] /Count 1 >>\nendobj\n",
        b"3 0 obj\n<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << >> /Contents 4 0 R >>\nendobj\n",
        b"4 0 obj\n<< /Length %d >>\nstream\n" % padding,
    )
    start, offsets = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", []
    for item in objects:
        offsets.append(len(start))
        start += item
    tail = b"\nendstream\nendobj\n"
    at = len(start) + padding + len(tail)
    rows = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    table = b"xref\n0 5\n0000000000 65535 f \n" + rows + b"trailer\n<< /Size 5 /Root 1 0 R >>\n"
    return Document(start, padding, tail + table + b"startxref\n%d\n%%%%EOF\n" % at)


def order_of(path: bytes) -> bytes:
    """The order id in `/api/v1/partner/stores/orders/{id}/documents/invoice`."""
    return path.rsplit(b"/", 3)[1]


def refused(order_id: bytes, share: float) -> bool:
    """Whether the first call for this order is answered with SYS_DEP_503: the same on every run."""
    return zlib.crc32(order_id) % 10_000 < share * 10_000


def answer(status: bytes, kind: bytes, length: int, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n" % (status, kind, extra, length)


def unavailable() -> bytes:
    """The SYS_DEP_503 envelope as the service documents it, with its head."""
    details = {"timestamp": "2026-01-01T00:00:00.000Z", "hint": "Retry with backoff.", "context": {}}
    error = {"code": "SYS_DEP_503", "message": "Service temporarily unavailable", "details": details}
    body = json.dumps({"success": False, "error": error, "requestId": "bench"}).encode()
    return answer(b"503 Service Unavailable", b"application/json", len(body)) + body


@dataclass
class Service:
    """What the service answers, and what it has done so far."""

    document: Document
    latency: float
    share: float
    once: bytes = field(default_factory=unavailable)
    seen: set[bytes] = field(default_factory=set)
    calls: int = 0
    held: float = 0.0

    def __post_init__(self) -> None:
        extra = b'Content-Disposition: attachment; filename="invoice-sample.pdf"\r\n'
        self.head = answer(b"200 OK", b"application/pdf", self.document.size, extra)
        self.streams = self.document.size > STREAM_ABOVE
        self.reply = b"" if self.streams else self.head + self.document.whole()
        self.chunk = pad(CHUNK)

    def refuses(self, head: bytes) -> bool:
        if not self.share:
            return False
        order_id = order_of(head.split(b" ", 2)[1])
        if order_id in self.seen or not refused(order_id, self.share):
            return False
        self.seen.add(order_id)
        return True


class Connection(asyncio.Protocol):
    """One kept-alive connection: a request is read to its end, then answered after the latency."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.transport: asyncio.Transport
        self.buffer = b""
        self.left = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := request_end(self.buffer)) is not None:
            head, self.buffer = self.buffer, self.buffer[end:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        service = self.service
        service.calls += 1
        reply = service.once if service.refuses(head) else service.reply
        if not service.latency:
            self._send(reply)
            return
        came = time.monotonic()
        asyncio.get_running_loop().call_later(service.latency, self._send_late, reply, came)

    def _send_late(self, reply: bytes, came: float) -> None:
        self.service.held += time.monotonic() - came
        if not self.transport.is_closing():
            self._send(reply)

    def _send(self, reply: bytes) -> None:
        if reply:
            self.transport.write(reply)
            return
        self.transport.write(self.service.head + self.service.document.start)
        self.left = self.service.document.padding
        self._stream()

    def _stream(self) -> None:
        while self.left and not self.paused:
            size = min(self.left, CHUNK)
            self.left -= size
            self.transport.write(self.service.chunk if size == CHUNK else pad(size))
            if not self.left:
                self.transport.write(self.service.document.end)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._stream()


def request_end(data: bytes) -> int | None:
    """Where the first request in `data` ends, or None if it has not. Knows Content-Length, not chunked."""
    at = data.find(b"\r\n\r\n")
    if at < 0:
        return None
    head = data[:at].lower()
    where = head.find(b"\r\ncontent-length:")
    length = int(head[where + 17 :].split(b"\r\n", 1)[0]) if where >= 0 else 0
    end = at + 4 + length
    return end if len(data) >= end else None


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def serve(service: Service) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, backlog=1024)
    before = cpu()
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await stop.wait()
    server.close()
    held = service.held / service.calls if service.calls else 0.0
    print(json.dumps({"calls": service.calls, "cpu": cpu() - before, "held": held}), flush=True)


def runner(*, plain: bool) -> asyncio.Runner:
    """The quickest event loop there is here."""
    if plain:
        return asyncio.Runner()
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds between the end of a request and its answer"
    )
    parser.add_argument(
        "--refuse", type=float, default=0.0, help="share of orders whose first call answers SYS_DEP_503"
    )
    parser.add_argument("--size", type=int, default=SIZE, help="bytes of the document")
    parser.add_argument("--cpu", type=int, help="run on this core only")
    parser.add_argument("--plain-loop", action="store_true", help="asyncio's own loop also where uvloop is installed")
    asked = parser.parse_args()
    if asked.cpu is not None:
        os.sched_setaffinity(0, {asked.cpu})
    with runner(plain=asked.plain_loop) as loop:
        loop.run(serve(Service(document(asked.size), asked.latency, asked.refuse)))


if __name__ == "__main__":
    main()
