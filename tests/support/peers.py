"""Peers on a real loopback socket that do exactly what a test says, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from ssl import SSLContext
from typing import Any

from attrs import define, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@define
class Connection:
    """One accepted connection as its peer sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read one request, its head and the body that its Content-Length announces."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        return head + await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hang(self) -> None:
        """Stay silent until the other side leaves."""
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        """Cut the connection with RST."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Play = Callable[[Connection, "Peer"], Awaitable[None]]


@define
class Peer:
    """A listening peer: how many connections came, how many are open, and what was asked."""

    url: str = ""
    connections: int = 0
    open: int = 0
    requests: list[bytes] = field(factory=list)

    async def gone(self) -> None:
        """Wait until every connection is closed from the other side."""
        while self.open:  # noqa: ASYNC110 - connections come and go; only their number tells
            await asyncio.sleep(0.001)


@asynccontextmanager
async def listening(
    play: Play,
    *,
    ssl: SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
) -> AsyncIterator[Peer]:
    """Play for each connection; what is left at the end is cut."""
    peer, tasks = Peer(), set[asyncio.Task[None]]()

    async def serve(connection: Connection) -> None:
        peer.connections += 1
        peer.open += 1
        try:
            await play(connection, peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side left, as it may
        finally:
            peer.open -= 1
            connection.writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(Connection(reader, writer)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if listener is None:
        server = await asyncio.start_server(accept, host, port, ssl=ssl)
    else:
        server = await asyncio.start_server(accept, sock=listener, ssl=ssl)
    peer.url = f"{'https' if ssl else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield peer
    finally:
        server.close()
        left = list(tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        await server.wait_closed()


def answering(*answers: bytes) -> Play:
    """Answer the requests of each connection with these in turn, then close it."""

    async def play(connection: Connection, peer: Peer) -> None:
        for answer in answers:
            peer.requests.append(await connection.request())
            await connection.say(answer)

    return play


async def silent(connection: Connection, peer: Peer) -> None:
    """Take everything and answer nothing."""
    await connection.hang()


def free_port() -> int:
    """Give a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def run_eagerly(main: Coroutine[Any, Any, None]) -> None:
    """Run on asyncio's loop with eager tasks, where Python has them (3.12)."""
    factory: Any = getattr(asyncio, "eager_task_factory", None)
    with asyncio.Runner() as runner:
        runner.get_loop().set_task_factory(factory)
        runner.run(main)
