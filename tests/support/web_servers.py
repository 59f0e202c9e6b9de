"""Web applications on real ports of loopback, and what their clients see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from aiohttp import ClientSession, web
from attrs import frozen


@frozen
class Seen:
    """What a client got; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def seen(url: str, *, method: str = "GET", body: bytes | None = None) -> Seen:
    async with ClientSession() as client, client.request(method, url, data=body) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Seen(answer.status, headers, await answer.read())


async def head_then_get(url: str) -> tuple[int, int]:
    """Ask twice on one connection, as a client does that trusts the first answer, and return both status codes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    codes = []
    for method in ("HEAD", "GET"):
        writer.write(f"{method} {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        codes.append(int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0)
    writer.close()
    await writer.wait_closed()
    return codes[0], codes[1]


@asynccontextmanager
async def asgi_served(application: Any) -> AsyncIterator[str]:
    """Serve an ASGI application by uvicorn."""
    config = uvicorn.Config(application, port=0, log_level="critical", ws="none", timeout_graceful_shutdown=1)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    # What `serve` does, without its signal handlers and its look for an end every tenth of a second.
    await server.startup()
    try:
        assert not server.should_exit, "the application did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()


@asynccontextmanager
async def aiohttp_served(application: web.Application) -> AsyncIterator[str]:
    """Serve an application of aiohttp's, as `run_app(..., handler_cancellation=True)` does."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that tells nobody when it begins to."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a look at somebody else's state
            await asyncio.sleep(0.005)


async def leave_during(url: str, begun: Callable[[], bool], *, method: str = "GET", body: bytes | None = None) -> None:
    """Ask, and close the connection when that has reached the service behind."""
    async with ClientSession() as client:
        asking = asyncio.create_task(client.request(method, url, data=body))
        await until(begun)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
