"""Object stores on loopback: moto's server, which keeps what S3 promises, and a peer that answers as it is told."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from http.client import HTTPConnection
from itertools import count
from threading import Lock, Thread
from typing import Any
from unittest.mock import patch

import obstore
from attrs import define, field
from obstore.store import from_url

from invoicing_async._files.addresses import ObjectAddress
from invoicing_async._objects import ObjectStore, open_objects

_buckets = count(1)


def environment(port: int) -> dict[str, str]:
    """What points obstore at a port of this machine."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "planted-secret-of-the-store",
        "AWS_REGION": "us-east-1",
    }


@cache
def moto_port() -> int:
    """The port of moto's server, begun at the first use of this process.

    Its requests are carried out in turn: moto looks for a name and writes it in two steps, which S3 makes one.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    served, turn = DomainDispatcherApplication(create_backend_app), Lock()

    def application(environ: Any, start_response: Any) -> Any:
        with turn:
            return served(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True)
    Thread(target=server.serve_forever, name="moto", daemon=True).start()
    atexit.register(server.shutdown)
    return server.server_port


@contextmanager
def moto_bucket() -> Iterator[str]:
    """A new bucket of moto's, to which the environment leads."""
    port, name = moto_port(), f"bucket-{os.getpid()}-{next(_buckets)}"
    with patch.dict(os.environ, environment(port)):
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        yield name


def objects_in(bucket: str) -> dict[str, bytes]:
    """All objects of a bucket of moto's by their keys."""
    store: Any = from_url(f"s3://{bucket}")
    keys = [found["path"] for found in obstore.list(store).collect()]
    return {key: bytes(obstore.get(store, key).bytes()) for key in keys}


@define
class Peer:
    """An object store that answers each PUT as scripted, and else as S3 does; it keeps what it took.

    A step is a status, "lost" (taken, and the connection cut before the answer), "cut" (the connection cut while the
    body comes), "ghost" (409, as if somebody were just creating it) or "ok".
    """

    script: deque[str | int]
    held: dict[str, tuple[bytes, str | None]] = field(factory=dict)
    puts: int = 0
    heads: int = 0
    seen: list[dict[str, str]] = field(factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                method, target, _ = line.decode().split()
                headers = await _headers(reader)
                if not await self._answered(method, target.partition("?")[0], headers, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answered(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if method == "PUT":
            self.puts += 1
            self.seen.append(headers)
            return await self._put(path, headers, reader, writer)
        self.heads += method == "HEAD"
        if path not in self.held:
            return await _said(writer, 404)
        body, digest = self.held[path]
        more = {"x-amz-meta-sha256": digest} if digest else {}
        return await _said(writer, 200, body=b"" if method == "HEAD" else body, length=len(body), **more)

    async def _put(
        self, path: str, headers: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        step = self.script.popleft() if self.script else "ok"
        if step == "cut":
            return False
        body = await reader.readexactly(int(headers["content-length"]))
        if isinstance(step, int):
            return await _said(writer, step)
        if step == "ghost":
            return await _said(writer, 409)
        if path in self.held:
            return await _said(writer, 412)
        self.held[path] = body, headers.get("x-amz-meta-sha256")
        return step != "lost" and await _said(writer, 200)


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    found = dict[str, str]()
    while line := (await reader.readline()).decode().strip():
        name, _, value = line.partition(":")
        found[name.lower()] = value.strip()
    return found


async def _said(
    writer: asyncio.StreamWriter, status: int, *, body: bytes = b"", length: int | None = None, **more: str
) -> bool:
    headers = {"content-length": str(len(body) if length is None else length), "etag": '"1"', **more}
    headers["last-modified"] = "Fri, 27 Nov 2026 10:00:00 GMT"
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()
    return True


@asynccontextmanager
async def peer(script: Iterable[str | int] = (), **options: Any) -> AsyncIterator[tuple[Peer, ObjectStore]]:
    """A peer and a store of it."""
    found = Peer(deque(script))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    with patch.dict(os.environ, environment(server.sockets[0].getsockname()[1])):
        store = open_objects(ObjectAddress("s3", "bucket", "pre"), **options)
        try:
            yield found, store
        finally:
            await store.close()
            server.close()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
