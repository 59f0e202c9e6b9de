"""Invoices behind Starlette: `uvicorn --factory yours:app`, with `app()` the `application(Settings.load(), FILE)`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike

from invoicing_service import Invoicing, draft_of, invoicing, shown, told
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from invoicing_async import InvoicingError, OpenDocument, Settings
from invoicing_async.web import while_connected


def service_of(request: Request) -> Invoicing:
    service: Invoicing = request.app.state.invoicing
    return service


async def order_invoice(request: Request) -> StreamingResponse:
    if request.method == "HEAD":  # Starlette passes it on to what answers GET: the document would be fetched for nobody
        raise HTTPException(405, headers={"Allow": "GET"})
    async with AsyncExitStack() as opening:
        async with while_connected(request.receive):
            opened = service_of(request).documents.open(request.path_params["order_id"])
            pdf = await opening.enter_async_context(opened)
        held = opening.pop_all()
    # The document stays open until this was passed on, which the generator sees to if it fails, and the task of the
    # background if the client leaves.
    return StreamingResponse(passed_on(pdf, held), headers=pdf.headers, background=BackgroundTask(held.aclose))


async def passed_on(pdf: OpenDocument, held: AsyncExitStack) -> AsyncGenerator[bytes]:
    async with held:
        async for chunk in pdf.chunks:
            yield chunk


async def submit(request: Request) -> JSONResponse:
    item = await service_of(request).submit(draft_of(await request.body()))
    return JSONResponse(shown(item), status_code=202)


async def ready(request: Request) -> JSONResponse:
    up = service_of(request).ready()
    return JSONResponse({"ready": up}, status_code=200 if up else 503)


async def refused(_: Request, error: Exception) -> JSONResponse:
    found = told(error)
    return JSONResponse(found.body, status_code=found.status, headers=found.headers)


ROUTES = [
    Route("/orders/{order_id:uuid}/invoice", order_invoice),
    Route("/invoices", submit, methods=["POST"]),
    Route("/ready", ready),
]


def application(settings: Settings, run_file: str | PathLike[str]) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        async with invoicing(settings, run_file) as app.state.invoicing:
            yield

    return Starlette(routes=ROUTES, lifespan=lifespan, exception_handlers={InvoicingError: refused, OSError: refused})
