"""The sandbox on a real port: HTTP/1.1 over plain asyncio, so that its faults are real down to the TCP reset.

A general HTTP server ends a broken answer in good order; this one must not.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from email.utils import formatdate
from http import HTTPStatus
from ssl import SSLContext
from typing import Protocol
from weakref import WeakSet

from attrs import frozen

from .._core.clock import Clock
from .._core.http import Exchange, Request, Response, Transport
from ..errors import TransportError
from ._answers import CutError, reply
from ._injection import InjectedFaults

__all__ = ["listening"]

FAREWELL = 1.0
"""Seconds for the connections to end when the port is closed."""
HEAD_LIMIT = 2**16
SHORTEST = 0.001
"""Seconds; a clock in floats may not move for less."""
BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends a reset."""


class _Served(Transport, Protocol):
    @property
    def clock(self) -> Clock: ...


@asynccontextmanager
async def listening(
    handler: _Served, injected: InjectedFaults, *, base_path: str, host: str, port: int, ssl: SSLContext | None
) -> AsyncIterator[str]:
    """Serve a transport while the block runs, and return its base URL. Raises `OSError` for a port that is taken."""
    loop = asyncio.get_running_loop()
    served = _Port(handler, injected, base_path, ssl, _bound(host, port))
    await served.follow()
    following = loop.create_task(served.keep_following())

    def watcher() -> None:
        loop.call_soon_threadsafe(served.changed.set)

    injected.watchers.add(watcher)
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"{'https' if ssl else 'http'}://{shown}:{served.port}{base_path}"
    finally:
        injected.watchers.discard(watcher)
        following.cancel()
        await served.close()


def _bound(host: str, port: int) -> socket.socket:
    """Take a port without listening on it: whoever connects is refused."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
    except OSError:
        taken.close()
        raise
    return taken


class _Port:
    """One port: somebody listens on it, or while an outage refuses connections nobody does."""

    def __init__(
        self,
        handler: _Served,
        injected: InjectedFaults,
        base_path: str,
        ssl: SSLContext | None,
        taken: socket.socket,
    ) -> None:
        self.handler = handler
        self.base_path = base_path
        self.scheme = "https" if ssl else "http"
        # Weak: one whose TLS handshake fails is never told that it is lost.
        self.connections: WeakSet[_Connection] = WeakSet()
        self.changed = asyncio.Event()
        self.host, self.port = taken.getsockname()[:2]
        self._injected = injected
        self._ssl = ssl
        self._taken: socket.socket | None = taken
        self._server: asyncio.Server | None = None
        self._refusing: bool | None = None

    async def keep_following(self) -> None:
        """Open and close the port as the outages say, now and whenever others are injected."""
        while True:
            self.changed.clear()
            await self.follow()
            wait = self._injected.next_change()
            with suppress(TimeoutError):
                async with self.handler.clock.timeout(None if wait is None else max(wait, SHORTEST)):
                    await self.changed.wait()

    async def follow(self) -> None:
        """Open or close the port as the outages say now."""
        outage = self._injected.refusing()
        if self._refusing is (outage is not None):
            return
        self._refusing = outage is not None
        if outage is None and self._taken is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(lambda: _Connection(self), sock=self._taken, ssl=self._ssl)
            self._taken = None
        elif outage is not None:
            outage.counts["closed"] += 1
            if self._server is not None:
                await self._stop_listening(self._server)
                self._server = None
                self._taken = _bound(self.host, self.port)
            outage.counts["cut"] += len(self.connections)
            for connection in tuple(self.connections):
                connection.cut(reset=True)

    async def _stop_listening(self, server: asyncio.Server) -> None:
        """Close a server whose connections that are just accepted become connections, and not sockets left open."""
        loop = asyncio.get_running_loop()
        for each in server.sockets:
            with suppress(NotImplementedError):
                loop.remove_reader(each.fileno())
        await asyncio.sleep(0)
        server.close()

    async def close(self) -> None:
        """End everything that is under way."""
        if self._server is not None:
            await self._stop_listening(self._server)
        if self._taken is not None:
            self._taken.close()
        ends = [connection.end() for connection in tuple(self.connections)]
        if ends:
            await asyncio.wait(ends, timeout=FAREWELL)


class _Connection(asyncio.StreamReaderProtocol):
    """One client's connection; its request is cancelled when the client leaves."""

    def __init__(self, port: _Port) -> None:
        self.port = port
        self._client: asyncio.StreamWriter | None = None
        self._ending = False
        self._talking: asyncio.Task[None] | None = None
        self._lost = asyncio.get_running_loop().create_future()
        port.connections.add(self)
        super().__init__(asyncio.StreamReader(limit=HEAD_LIMIT), self._begin)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)  # so that `drain` means: handed to the system
        self._client = writer
        if self._ending:
            writer.transport.abort()
        else:
            self._talking = asyncio.get_running_loop().create_task(self._talk(reader, writer))

    def eof_received(self) -> bool:
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.port.connections.discard(self)
        if self._talking is None:
            self._lost.set_result(None)
        else:
            self._talking.add_done_callback(lambda _: self._lost.set_result(None))
            self._talking.cancel()

    def cut(self, *, reset: bool) -> None:
        """End the connection: by a reset, or in good order behind what was written."""
        self._ending = True
        if self._client is None:
            return  # it ends when it begins
        if reset:
            with suppress(OSError):
                self._client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._client.transport.abort()
        else:
            self._client.close()

    def end(self) -> asyncio.Future[None]:
        """Cut the connection, at once or as soon as it is there; return what is done when nothing of it is left."""
        self.cut(reset=True)
        return self._lost

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reset = False
        try:
            while await self._exchange(reader, writer):
                pass
        except TransportError as error:
            reset = isinstance(error, CutError)
        except (ConnectionError, EOFError, asyncio.LimitOverrunError, ValueError):
            pass  # The client left, or what it speaks is not HTTP.
        finally:
            self.cut(reset=reset)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request, and tell whether there may be another on this connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.split("\r\n")[:-2]
        method, target, version = start.split(" ")
        headers = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        lower = {name.lower(): value for name, value in headers.items()}
        if lower.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await _body(reader, lower)
        path, _, query = target.partition("?")
        base = self.port.base_path
        keep = version == "HTTP/1.1" and lower.get("connection", "").lower() != "close"
        answered = _Answered(writer, self.port.handler.clock, method, version)
        if not path.startswith(base + "/"):
            outside = b"outside the base path"
            return await answered.write(reply(outside, status=404, content_type="text/plain")) and keep
        request = Request(
            method=method,
            path=path.removeprefix(base),
            query=query,
            headers=headers,
            body=body,
            base_url=f"{self.port.scheme}://{lower.get('host', '')}{base}",
        )
        async with self.port.handler.send(request, Exchange()) as response:
            return await answered.write(response) and keep


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    """Read a request's body, by its length or in chunks."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    parts: list[bytes] = []
    while size := int((await reader.readline()).partition(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(parts)


@frozen
class _Answered:
    """Where the answer to one request goes, and in which form of HTTP."""

    writer: asyncio.StreamWriter
    clock: Clock
    method: str
    version: str

    async def write(self, response: Response) -> bool:
        """Write an answer, and tell whether the connection can carry another.

        Raises `TransportError` where a fault breaks the answer off; what came before it is written by then.
        """
        length = response.header("content-length")
        bodiless = self.method == "HEAD" or response.status in BODILESS
        chunked = length is None and self.version == "HTTP/1.1" and not bodiless
        self._write_head(response, chunked=chunked)
        written = 0
        async with aclosing(response.chunks()) as chunks:  # type: ignore[type-var] # they are generators
            async for chunk in chunks:
                if bodiless:
                    break
                if not chunk:
                    continue  # an empty chunk would be the last one
                self.writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                await self.writer.drain()
                written += len(chunk)
        if chunked:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        return bodiless or chunked or (length is not None and length == str(written))

    def _write_head(self, response: Response, *, chunked: bool) -> None:
        names = {name.lower() for name in response.headers}
        own = {}
        if "date" not in names:
            own["Date"] = formatdate(self.clock.now(), usegmt=True)
        if chunked and "transfer-encoding" not in names:
            own["Transfer-Encoding"] = "chunked"
        try:
            reason = HTTPStatus(response.status).phrase
        except ValueError:
            reason = ""
        lines = [f"HTTP/1.1 {response.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in {**response.headers, **own}.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
