"""A real TCP proxy in front of a PostgreSQL server, in a thread of its own, that fails in the ways a network does.

It passes everything on until it is told otherwise: to cut (RST or FIN), to refuse, to swallow both directions without a
word (a half-open connection), to delay each answer, or to lose the answer of one statement, which the server has done.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, TypeVar

from attrs import define, field

T = TypeVar("T")
Cut: TypeAlias = Literal["reset", "fin"]
Wanted: TypeAlias = Callable[[str], bool]

SECONDS = 10.0
"""How long the thread may take to do what it is told."""

ANSWERED = frozenset(b"ZG")
"""The messages that end an answer: ready for the next statement, or for the rows of a COPY."""

STARTUP = 196_608
"""What opens a connection of protocol 3; before it a client may ask for encryption, which a server here declines."""


# -- what is said ----------------------------------------------------------------------------------------------------


class Messages:
    """The messages of one direction, put together from the pieces in which they come."""

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun
        self._rest = b""

    def of(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the kind and the body of each message that is whole; 0 is the kind of what opens a connection."""
        self._rest += data
        while (head := 1 if self.begun else 0) + 4 <= len(self._rest):
            (length,) = struct.unpack_from("!I", self._rest, head)
            if len(self._rest) < head + length:
                return
            body = self._rest[head + 4 : head + length]
            kind = self._rest[0] if self.begun else 0
            self._rest = self._rest[head + length :]
            self.begun = self.begun or (struct.unpack_from("!I", body)[0] >= STARTUP and len(body) > 4)
            yield kind, body


class Statements:
    """The statements that a client has done, also those that it prepared before and names now."""

    def __init__(self) -> None:
        self._messages = Messages(begun=False)
        self._prepared: dict[bytes, str] = {}

    @property
    def begun(self) -> bool:
        """Whether the connection is open: from then on what the server says is in messages too."""
        return self._messages.begun

    def of(self, data: bytes) -> Iterator[str]:
        for kind, body in self._messages.of(data):
            match chr(kind):
                case "Q":
                    yield body.rstrip(b"\0").decode()
                case "P":
                    name, text, _ = body.split(b"\0", 2)
                    self._prepared[name] = text.decode()
                case "B":
                    _, name, _ = body.split(b"\0", 2)
                    yield self._prepared.get(name, "")


@define(eq=False)
class Lost:
    """The answer of one statement that does not come; `wait` until the server has given it.

    Of a statement that does not reach the server, until it was cut.
    """

    wanted: Wanted
    then: Literal["reset", "fin", "hang"]
    reaches: bool = True
    statement: str = ""
    _done: threading.Event = field(init=False, factory=threading.Event)

    def done(self) -> None:
        self._done.set()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def wait(self, timeout: float = SECONDS) -> None:
        assert self._done.wait(timeout), "no such statement came, or the server has not answered it"


# -- one connection --------------------------------------------------------------------------------------------------


class Line:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server: asyncio.StreamWriter | None = None
        self.has_swallowed = False
        self.lost: Lost | None = None
        self._statements = Statements()
        self._answers = Messages(begun=True)

    async def serve(self, reader: asyncio.StreamReader) -> None:
        while self.proxy.is_hanging:  # the server does not hear of it  # noqa: ASYNC110 - a mode, not an event
            await asyncio.sleep(0.005)
        answers, self.server = await asyncio.open_connection("127.0.0.1", self.proxy.to)
        await asyncio.gather(self._ask(reader, self.server), self._answer(answers))

    async def _ask(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._is_swallowed():
                continue
            for statement in self._statements.of(data):
                self._look_at(statement)
            if self.lost is not None and not self.lost.reaches:
                self.cut("reset")
                self.lost.done()
                return
            server.write(data)
            await server.drain()
        if not self.has_swallowed:
            server.write_eof()

    def _look_at(self, statement: str) -> None:
        self.proxy.statements.append(statement)
        lost = self.proxy.lost
        if self.lost is None and lost is not None and not lost.statement and lost.wanted(statement):
            lost.statement, self.lost = statement or "?", lost

    async def _answer(self, answers: asyncio.StreamReader) -> None:
        while data := await answers.read(65_536):
            opened = self._statements.begun
            if self.proxy.delay:
                await asyncio.sleep(self.proxy.delay)
            if self.lost is not None:
                self._lose(data, self.lost)
                continue
            if opened:
                for _ in self._answers.of(data):
                    pass  # so that the next one begins where it begins
            if not self._is_swallowed():
                self.client.write(data)
                await self.client.drain()
        if not self.has_swallowed:
            self.client.write_eof()

    def _lose(self, data: bytes, lost: Lost) -> None:
        """Keep what the server says to itself; once it is ready for the next statement, it has done this one."""
        self.has_swallowed = True
        if not lost.is_done and ANSWERED & {kind for kind, _ in self._answers.of(data)}:
            if lost.then != "hang":
                self.cut(lost.then)
            lost.done()

    def _is_swallowed(self) -> bool:
        self.has_swallowed = self.has_swallowed or self.proxy.is_hanging
        return self.has_swallowed

    def cut(self, how: Cut) -> None:
        for writer in filter(None, (self.client, self.server)):
            if how == "reset":
                raw = writer.get_extra_info("socket")
                with suppress(OSError):  # it has gone already
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            else:
                writer.close()


def _wanted(wanted: str | Wanted) -> Wanted:
    if isinstance(wanted, str):
        return lambda statement: wanted in statement
    return wanted


# -- the proxy -------------------------------------------------------------------------------------------------------


class TcpProxy:
    """A proxy in front of a port of loopback. What it is told to do is done when the call returns."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.port = 0
        self.connections = 0
        """How many have been taken so far."""
        self.statements: list[str] = []
        """What clients had the server do, in the order in which it went through."""
        self.delay = 0.0
        """Seconds by which each answer comes later."""
        self.is_hanging = False
        self.lost: Lost | None = None
        self._lines: dict[Line, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @classmethod
    @contextmanager
    def before(cls, port: int) -> Iterator[TcpProxy]:
        """Listen in front of a port; what is open at the end is cut."""
        proxy = cls(port)
        proxy._thread.start()
        try:
            proxy.accept()
            yield proxy
        finally:
            proxy._do(proxy._end())
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            proxy._thread.join(SECONDS)
            proxy._loop.close()

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._lines)

    def accept(self) -> None:
        """Take connections, at the same port as before."""
        self._do(self._accept())

    def refuse(self) -> None:
        """Take no more connections; those that are open go on."""
        self._do(self._refuse())

    def cut(self, how: Cut = "reset") -> None:
        """Cut every connection that is open; new ones are taken."""
        self._do(self._cut(how))

    def hang(self) -> None:
        """Swallow both directions of every connection, and of every new one, without closing any."""
        self.is_hanging = True

    def pass_on(self) -> None:
        """Pass everything on again. What has lost something is cut, as when a peer finds out."""
        self.is_hanging = False
        self._do(self._cut("reset", only_broken=True))

    def lose_answer(self, wanted: str | Wanted, *, then: Literal["reset", "fin", "hang"] = "reset") -> Lost:
        """Let the next statement that holds a text, or is as wanted, be done and its answer be lost.

        The connection is cut `then`, or stays and is silent.
        """
        self.lost = Lost(_wanted(wanted), then)
        return self.lost

    def lose_statement(self, wanted: str | Wanted) -> Lost:
        """Let the next statement that holds a text, or is as wanted, never reach the server; its connection is cut."""
        self.lost = Lost(_wanted(wanted), "reset", reaches=False)
        return self.lost

    def _do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(SECONDS)

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._taken, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        line = Line(self, writer)
        self._lines[line] = task
        try:
            await line.serve(reader)
        except (OSError, asyncio.CancelledError):
            pass  # one side has left, or the proxy ends: so does the other
        finally:
            del self._lines[line]
            line.cut("fin" if not line.has_swallowed else "reset")

    async def _cut(self, how: Cut, *, only_broken: bool = False) -> None:
        for line in [*self._lines]:
            if line.has_swallowed or not only_broken:
                line.cut(how)
        await asyncio.sleep(0)

    async def _end(self) -> None:
        await self._refuse()
        tasks = [*self._lines.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
