"""A peer that lies on the wire in every way there is: what it does, and what its caller is told."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import pytest
from attrs import Factory, frozen

from invoicing_async.auth import HmacAuth
from invoicing_async.documents import OrderDocuments
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitError,
    ServiceUnavailableError,
    TransportError,
)
from invoicing_async.policies import RetryPolicy, Timeouts
from invoicing_async.session import Session

AUTH = HmacAuth(partner_client_id="p", secret_key="k", store_client_id="s", store_token="t")
PATIENT = Timeouts(connect=5.0, read=10.0, attempt=20.0, floor=0.0)
HASTY = Timeouts(connect=5.0, read=0.15, attempt=0.4, floor=0.0)
LIMIT = 2**20
CREDENTIALS = (b"x-signature", b"x-store-token", b"x-partner-client-id", b"x-store-client-id")


class Act(Enum):
    """What a peer does beside sending bytes."""

    CLOSE = "closes the connection"
    RESET = "resets the connection"
    STALL = "falls silent until the client leaves"
    PAUSE = "sends what it has, and waits a moment"
    EARLY = "does not wait for the request"


CLOSE, RESET, STALL, PAUSE, EARLY = Act
Step: TypeAlias = "bytes | Act | Endless"
Script: TypeAlias = tuple[Step, ...]


@frozen
class Endless:
    """These bytes again and again, `seconds` apart, until the client leaves."""

    data: bytes
    seconds: float = 0.0


class Peer:
    """A server that answers each request with the next of its scripts; the last is repeated."""

    def __init__(self, *scripts: Script) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self._scripts = deque(scripts)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._served(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if self._scripts[0][0] is not EARLY:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            script = self._scripts.popleft() if len(self._scripts) > 1 else self._scripts[0]
            for step in script:
                await self._play(step, reader, writer)
            if script[-1] in {CLOSE, RESET}:
                return

    async def _play(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case Endless():
                while True:
                    writer.write(step.data)
                    await writer.drain()
                    await asyncio.sleep(step.seconds)
            case Act.RESET:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            case Act.STALL:
                await reader.read()
                raise ConnectionResetError
            case Act.PAUSE:
                await asyncio.sleep(0.02)
            case Act.CLOSE:
                writer.close()
            case Act.EARLY:
                pass


def pdf(text: bytes = b"an invoice") -> bytes:
    return b"%PDF-1.7\n% " + text + b"\nstartxref\n9\n%%EOF\n"


def head(status: str = "200 OK", *, kind: str | None = "application/pdf", **headers: str | int) -> bytes:
    fields = ({"Content-Type": kind} if kind else {}) | {name.replace("_", "-"): v for name, v in headers.items()}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def answer(body: bytes, status: str = "200 OK", *, kind: str | None = "application/pdf", **headers: str | int) -> bytes:
    return head(status, kind=kind, Content_Length=len(body), **headers) + body


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", length: int | None = None) -> bytes:
    extra: dict[str, Any] = {} if length is None else {"Content-Length": length}
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(Transfer_Encoding="chunked", **extra) + body + end


def envelope(code: object = "SYS_DEP_503", **changed: Any) -> bytes:
    error = {"code": code, "message": "said so", "details": {"hint": "wait", "context": {"orderId": "a"}}}
    return json.dumps({"success": False, "error": error, "requestId": "r-1"} | changed).encode()


JSON = "application/json"
WHOLE = pdf()
LARGE = pdf(b"x" * (LIMIT - 100))


@frozen(kw_only=True)
class Row:
    """A fault: what the peer does, what the caller gets, and whether the call is worth a second attempt."""

    name: str
    script: Script
    error: type[InvoicingError]
    match: str | None = None
    has: Mapping[str, object] = Factory(dict)
    again: bool = True

    @property
    def timeouts(self) -> Timeouts:
        """Short ones only where the row is about waiting: a busy machine must not decide the others."""
        waits = any(step is STALL or (isinstance(step, Endless) and step.seconds) for step in self.script)
        return HASTY if waits else PATIENT


def lost(name: str, *script: Step, match: str | None = None) -> Row:
    """No whole head came."""
    return Row(name=name, script=script, error=TransportError, match=match, has={"sent": "unknown"})


def garbled(name: str, *script: Step, match: str | None = None, **has: object) -> Row:
    """An answer came, and is not as documented."""
    return Row(name=name, script=script, error=ProtocolError, match=match, has=has, again=False)


def cut(name: str, *script: Step, match: str = "broke off", **has: object) -> Row:
    """A body began and broke off."""
    return Row(name=name, script=script, error=InterruptedDocumentError, match=match, has={"status": 200} | has)


def broken(name: str, *script: Step, match: str, **has: object) -> Row:
    """A body came, and is not one whole PDF."""
    return Row(name=name, script=script, error=IncompleteDocumentError, match=match, has=has)


def oversized(name: str, *script: Step, match: str = "longer than the limit", **has: object) -> Row:
    """A body that is longer than is taken: it would be as long again."""
    return Row(name=name, script=script, error=OversizedDocumentError, match=match, has=has, again=False)


def refused(name: str, body: bytes, error: type[InvoicingError], *, again: bool = False, **has: object) -> Row:
    """A 200 that says it is an error."""
    kind = has.pop("kind", JSON)
    assert isinstance(kind, str)
    return Row(name=name, script=(answer(body, kind=kind),), error=error, has={"status": 200} | has, again=again)


FAULTS = [
    # Before a whole head.
    lost("reset when accepted", EARLY, RESET),
    lost("closed when accepted", EARLY, CLOSE),
    lost("reset before the head", RESET, match="reset|closed"),
    lost("closed before the head", CLOSE, match="closed the connection without an answer"),
    lost("silent before the head", STALL, match="silent for longer than the read timeout"),
    lost("closed within the status line", b"HTTP/1.1 20", CLOSE),
    lost("closed within the headers", head()[:-20], CLOSE),
    lost("reset within the headers", head()[:-20], PAUSE, RESET),
    lost("silent within the headers", head()[:-20], STALL, match="silent"),
    lost("endless interim answers", Endless(b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.05), match="read timeout"),
    # A head that is none.
    garbled("binary noise", b"\x00\x01\xff\xfe\r\n\r\n", CLOSE),
    garbled("an HTTP/0.9 page", b"<html>hello</html>\r\n\r\n", CLOSE),
    garbled("another protocol's greeting", b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE),
    garbled("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x46\r\n", CLOSE),
    garbled("a status that is no number", b"HTTP/1.1 abc OK\r\n\r\n", CLOSE),
    garbled("a header line that is too long", head(X_Long="x" * 70_000), CLOSE),
    garbled("a Content-Length that is no number", head(Content_Length="many") + WHOLE, CLOSE),
    garbled("a negative Content-Length", head(Content_Length=-1) + WHOLE, CLOSE),
    garbled("two Content-Lengths", head(Content_Length=f"3\r\nContent-Length: {len(WHOLE)}") + WHOLE, CLOSE),
    # A body that breaks off.
    cut("closed before the body", head(Content_Length=99), CLOSE, head=b""),
    cut("closed within the body", head(Content_Length=len(WHOLE)) + WHOLE[:-1], CLOSE, head=WHOLE[:-1]),
    cut("reset within the body", head(Content_Length=len(WHOLE)) + WHOLE[:-1], PAUSE, RESET, match="reset|broke off"),
    cut("silent within the body", head(Content_Length=len(WHOLE)) + WHOLE[:-1], STALL, match="silent"),
    cut("closed one byte early in a large body", answer(LARGE)[:-1], CLOSE, head=LARGE[:200]),
    cut("a whole PDF that is shorter than declared", head(Content_Length=len(WHOLE) + 1) + WHOLE, CLOSE),
    cut("closed within a chunk", chunked(WHOLE, end=b"")[:-20], CLOSE),
    cut("no last chunk", chunked(WHOLE, end=b""), CLOSE),
    cut("silent before the last chunk", chunked(WHOLE, end=b""), STALL, match="silent"),
    cut("bad chunks in one packet with the head", chunked(WHOLE[:20], end=b"zz\r\nmore\r\n"), CLOSE, head=b""),
    cut("a chunk size that is no number", chunked(WHOLE[:20], end=b""), PAUSE, b"zz\r\nmore\r\n", CLOSE),
    cut("a chunk longer than its size", chunked(WHOLE[:20], end=b""), PAUSE, b"2\r\nmore\r\n0\r\n\r\n", CLOSE),
    Row(
        name="a body that drips",
        script=(head(Content_Length=LIMIT) + b"%PDF-1.7\n", Endless(b"%", 0.05)),
        error=TransportError,
        match="attempt timeout of 0.4 s",
    ),
    # A body that is not one whole PDF.
    broken("no body", answer(b""), match="empty"),
    broken("no body, and no colon", b"HTTP/1.1 200 OK\r\nContent-Type application/pdf\r\n\r\n", CLOSE, match="empty"),
    broken("an HTML page of no telling type", answer(b"<html>", kind="application/octet-stream"), match="of %PDF-"),
    broken("an HTML page of no type", answer(b"<html>", kind=None), match="of %PDF-"),
    broken("an HTML page that calls itself a PDF", answer(b"<html>Sign in</html>"), match="instead of %PDF-"),
    broken("a PDF cut before its end, the length as well", answer(WHOLE[:-8]), match="ends without %%EOF"),
    broken("a PDF cut in half, without a length", head(Connection="close") + WHOLE[:15], CLOSE, match="without %%EOF"),
    broken("a large PDF cut before its end", answer(LARGE[:-8]), match="ends without %%EOF"),
    broken("gzip of something else", answer(gzip.compress(b"no"), Content_Encoding="gzip"), match="of %PDF-"),
    broken("a part that nobody asked for", answer(WHOLE, "206 Partial Content"), match="206"),
    oversized("a longer body than is taken", head(Content_Length=LIMIT + 1), head=b""),
    oversized("an endless body", head() + b"%PDF-1.7\n", Endless(b"%" * 2**16)),
    oversized("endless chunks", chunked(b"%PDF-1.7\n", end=b""), Endless(b"8000\r\n" + b"%" * 2**15 + b"\r\n")),
    broken("JSON null that calls itself a PDF", answer(b"null"), match="instead of %PDF-"),
    broken("a success envelope that calls itself a PDF", answer(b'{"success": true}'), match="instead of %PDF-"),
    # Success that is no document.
    garbled("204", head("204 No Content", kind=None), match="no content", status=204),
    garbled(
        "202 with JSON", answer(b'{"queued": true}', "202 Accepted", kind=JSON), status=202, head=b'{"queued": true}'
    ),
    garbled("an HTML page", answer(b"<html>Sign in</html>", kind="text/html"), match="text/html", status=200),
    garbled("a PDF of another type", answer(WHOLE, kind="text/plain"), match=r"OrderDocuments\(content_types"),
    garbled("JSON null", answer(b"null", kind=JSON), head=b"null"),
    garbled("a JSON list", answer(b"[1, 2]", kind=JSON), head=b"[1, 2]"),
    garbled("JSON nested without end", answer(b"[" * 60_000, kind=JSON)),
    garbled("JSON that breaks off", head(kind=JSON, Content_Length=99) + b'{"success": fal', CLOSE),
    garbled("an endless HTML page", head(kind="text/html"), Endless(b"<p>" * 1000)),
    # Redirects are never followed.
    garbled("301", answer(b"", "301 Moved Permanently", Location="/elsewhere"), status=301),
    garbled("307 to itself", answer(b"", "307 Temporary Redirect", Location="."), status=307),
    garbled("304", head("304 Not Modified", kind=None), status=304),
    # An error envelope under 200 (README A.1).
    refused("SYS_DEP_503 under 200", envelope(), ServiceUnavailableError, again=True, code="SYS_DEP_503"),
    refused(
        "SYS_DEP_503 that calls itself a PDF", envelope(), ServiceUnavailableError, again=True, kind="application/pdf"
    ),
    refused("ORDER_021 under 200", envelope("ORDER_021"), OrderStatusError, code="ORDER_021", request_id="r-1"),
    refused("JSON that is not UTF-8", b'{"success": false, "error": "\xff"}', ApiError, message="\ufffd"),
    refused("an unknown code under 200", envelope("NEW_1"), ApiError, code="NEW_1"),
    refused("an envelope of wrong types", envelope(["x"], requestId=[7]), ApiError, code=None, request_id=None),
    refused("an envelope with an error that is a list", envelope(error=[1]), ApiError, code=None),
]


def plain(status: str, error: type[InvoicingError], *, again: bool = False) -> list[Row]:
    """An error status: with SYS_DEP_503, with a code nobody knows, with HTML, and with nothing."""
    number = int(status[:3])
    page = answer(b"<html>sorry</html>", status, kind="text/html")
    unknown = answer(envelope("NEW_1"), status, kind=JSON)
    down = answer(envelope(), status, kind=JSON)
    sys_dep = {"status": number, "code": "SYS_DEP_503", "hint": "wait", "request_id": "r-1"}
    return [
        Row(name=f"{status}: SYS_DEP_503", script=(down,), error=ServiceUnavailableError, has=sys_dep),
        Row(name=f"{status}: unknown code", script=(unknown,), error=error, has={"code": "NEW_1"}, again=again),
        Row(name=f"{status}: HTML", script=(page,), error=error, has={"status": number, "code": None}, again=again),
        Row(name=f"{status}: empty", script=(answer(b"", status, kind=None),), error=error, again=again),
        Row(name=f"{status}: cut", script=(head(status, Content_Length=9), CLOSE), error=error, again=again),
    ]


STATUSES = [
    *plain("400 Bad Request", ApiError),
    *plain("401 Unauthorized", AuthenticationError),
    *plain("403 Forbidden", PermissionDeniedError),
    *plain("404 Not Found", ApiError),
    *plain("409 Conflict", ApiError),
    *plain("422 Unprocessable Content", ApiError),
    *plain("429 Too Many Requests", RateLimitError, again=True),
    *plain("500 Internal Server Error", ApiError, again=True),
    *plain("501 Not Implemented", ApiError),
    *plain("502 Bad Gateway", ServiceUnavailableError, again=True),
    *plain("503 Service Unavailable", ServiceUnavailableError, again=True),
    *plain("504 Gateway Timeout", ServiceUnavailableError, again=True),
    Row(
        name="a huge error page",
        script=(answer(b"x" * 2**21, "500 Oops", kind="text/html"),),
        error=ApiError,
        has={"status": 500},
    ),
    Row(
        name="an endless error page",
        script=(head("500 Oops", kind="text/html"), Endless(b"x" * 2**15)),
        error=ApiError,
        has={"status": 500},
    ),
    Row(
        name="an error that falls silent",
        script=(head("500 Oops", Content_Length=9) + b"oops", STALL),
        error=ApiError,
        has={"status": 500},
    ),
    Row(
        name="ORDER_021 under 409",
        script=(answer(envelope("ORDER_021"), "409 Conflict", kind=JSON),),
        error=OrderStatusError,
        has={"status": 409},
        again=False,
    ),
]


class Watch:
    """Sees that what is inside leaves no descriptor and no task."""

    async def __aenter__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._descriptors = open_descriptors()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            assert await settled_descriptors(self._descriptors) - self._descriptors == set()
            assert asyncio.all_tasks() - self._tasks == set()


async def settled_descriptors(wanted: set[str]) -> set[str]:
    """Give the open sockets and files, once the loop had the turns it needs to close them."""
    found = open_descriptors()
    for _ in range(50):
        if found <= wanted:
            break
        await asyncio.sleep(0)
        found = open_descriptors()
    return found


def open_descriptors() -> set[str]:
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder is gone already
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith(("socket:", "/"))}


@asynccontextmanager
async def client(
    url: str, *, attempts: int = 1, timeouts: Timeouts = PATIENT, max_bytes: int = LIMIT
) -> AsyncIterator[OrderDocuments]:
    retry = RetryPolicy(attempts=attempts, first=0.0, deadline=None)
    async with Session(url, auth=AUTH, retry=retry, timeouts=timeouts) as session:
        yield OrderDocuments(session, max_bytes=max_bytes)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def each(rows: Iterable[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name.replace(" ", "-")) for row in rows])


async def ended_in_its_error(row: Row, tmp_path: Path) -> None:
    async with Watch(), Peer(row.script) as peer, client(peer.url, timeouts=row.timeouts) as documents:
        with pytest.raises(row.error, match=row.match) as caught:
            await documents.download("a", tmp_path)
        assert files(tmp_path) == []
    assert type(caught.value) is row.error
    assert {name: getattr(caught.value, name) for name in row.has} == row.has
    # A 401 may be a stray one: it is asked once more.
    tries = 2 if row.error is AuthenticationError else 1
    assert len(caught.value.attempts) == tries
    assert 1 <= peer.connections <= tries
