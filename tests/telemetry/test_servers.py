"""In a web service each call is below the span of the request that it answers, however many are answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import pytest
import uvicorn
from aiohttp import ClientSession, web
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from otel_memory import Telemetry, attributes

from invoicing_async import HmacAuth, OpenDocument, OrderDocuments, Session
from invoicing_async._transport.server import serve
from invoicing_async.sandbox import Sandbox, demo_orders

Served = Callable[[OrderDocuments, Telemetry], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def fastapi_served(documents: OrderDocuments, told: Telemetry) -> AsyncIterator[str]:
    """With a dependency that holds the document open; a middleware plays the instrumentation of the server."""
    app = FastAPI()

    async def document(order_id: str) -> AsyncIterator[OpenDocument]:
        async with documents.open(order_id) as pdf:
            yield pdf

    async def invoice(pdf: Any) -> StreamingResponse:
        return StreamingResponse(pdf.chunks, headers=pdf.headers)

    invoice.__annotations__["pdf"] = Annotated[OpenDocument, Depends(document)]
    app.get("/{order_id}", response_model=None)(invoice)

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        with told.tracer.start_as_current_span(scope["path"] if scope["type"] == "http" else "lifespan"):
            await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(traced, port=0, log_level="critical", ws="none", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def aiohttp_served(documents: OrderDocuments, told: Telemetry) -> AsyncIterator[str]:
    @web.middleware
    async def traced(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        with told.tracer.start_as_current_span(request.path):
            return await handler(request)

    async def invoice(request: web.Request) -> web.Response:
        async with documents.open(request.match_info["order_id"]) as pdf:
            return web.Response(body=b"".join([chunk async for chunk in pdf.chunks]))

    app = web.Application(middlewares=[traced])
    app.router.add_get("/{order_id}", invoice)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
@pytest.mark.parametrize("served", [fastapi_served, aiohttp_served], ids=["fastapi", "aiohttp"])
async def test_a_call_is_below_the_request_that_it_answers(served: Served) -> None:
    told, sandbox, orders = Telemetry(), Sandbox(), demo_orders(8)
    auth = HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as base_url,
        Session(base_url, auth=auth, on_event=told.observer) as session,
        served(OrderDocuments(session), told) as url,
        ClientSession() as client,
    ):

        async def got(order: str) -> bytes:
            async with client.get(f"{url}/{order}") as answer:
                return await answer.read()

        bodies = await asyncio.gather(*map(got, orders))
    assert all(body.startswith(b"%PDF-") for body in bodies)
    for order in orders:
        [request] = told.named(f"/{order}")
        [call] = told.below(request)
        assert (call.name, attributes(call)["invoicing.subject"]) == ("generate_invoice", order)
        assert [attempt.name for attempt in told.below(call)] == ["POST"]
    assert (len(told.spans), told.orphans, told.is_empty) == (24, [], True)
