"""A transport served on a real port."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext

from aiohttp import web

from .._core.http import Exchange, Request, Response, Transport
from ..errors import TransportError

__all__ = ["serve"]


@asynccontextmanager
async def serve(
    handler: Transport, *, base_path: str = "", host: str = "127.0.0.1", port: int = 0, ssl: SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve a transport on a real port and give its base URL; port 0 takes a free one.

    A `TransportError` that `handler` raises, before or inside the body, cuts the connection as a broken service
    would. A body shorter than its Content-Length ends with a closed connection.
    """
    server = web.Server(_Gateway(handler, base_path), handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=ssl, reuse_address=True)
        await site.start()
        bound = runner.addresses[0][1]
        scheme = "https" if ssl else "http"
        yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}{base_path}"
    finally:
        await runner.cleanup()


class _Gateway:
    """Turns a served request into a `Request` and the handler's answer into bytes."""

    def __init__(self, handler: Transport, base_path: str) -> None:
        self._handler = handler
        self._base_path = base_path

    async def __call__(self, incoming: web.BaseRequest) -> web.StreamResponse:
        target, _, query = incoming.raw_path.partition("?")
        if not target.startswith(self._base_path + "/"):
            return web.Response(status=404, text="outside the base path")
        request = Request(
            method=incoming.method,
            path=target.removeprefix(self._base_path),
            query=query,
            headers=incoming.headers,
            body=await incoming.read(),
            base_url=f"{incoming.scheme}://{incoming.host}{self._base_path}",
        )
        answer = web.StreamResponse()
        try:
            async with self._handler.send(request, Exchange()) as response:
                await _copy(response, incoming, answer)
        except TransportError:
            _abort(incoming)
        except ConnectionError:
            # The client left; there is nobody to answer.
            _abort(incoming)
        return answer


async def _copy(response: Response, incoming: web.BaseRequest, answer: web.StreamResponse) -> None:
    answer.set_status(response.status)
    answer.headers.update(response.headers)
    await answer.prepare(incoming)
    written = 0
    async for chunk in response.chunks():
        await answer.write(chunk)
        written += len(chunk)
    if written < (answer.content_length or 0) and incoming.transport is not None:
        incoming.transport.close()
    await answer.write_eof()


def _abort(incoming: web.BaseRequest) -> None:
    # Not by the type of the transport: uvloop's is none of asyncio's.
    if incoming.transport is not None:
        incoming.transport.abort()
