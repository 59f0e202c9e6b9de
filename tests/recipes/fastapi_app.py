"""Invoices behind FastAPI: `uvicorn --factory your_module:app`, with `application` given your settings.

FastAPI 0.118 or newer: before, it closed what a request depends on before the answer was sent.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from invoicing_service import Invoicing, Settings, draft_of, invoicing, shown

from invoicing_async import InvoicingError, OpenDocument
from invoicing_async.web import http_error, while_connected

# FastAPI reads annotations, which are text in this module, with the module's names: a dependency that is made inside
# a function is not found, is taken for a parameter of the query, and every request is a 422. So they all stand here.
router = APIRouter()


def service_of(request: Request) -> Invoicing:
    service: Invoicing = request.app.state.invoicing
    return service


Service = Annotated[Invoicing, Depends(service_of)]


async def document(request: Request, order_id: UUID, service: Service) -> AsyncGenerator[OpenDocument]:
    async with AsyncExitStack() as held:
        async with while_connected(request.receive):
            pdf = await held.enter_async_context(service.documents.open(order_id))
        yield pdf


@router.get("/orders/{order_id}/invoice", response_class=StreamingResponse)
async def order_invoice(pdf: Annotated[OpenDocument, Depends(document)]) -> StreamingResponse:
    return StreamingResponse(pdf.chunks, headers=pdf.headers)


@router.post("/invoices", status_code=202)
async def submit(request: Request, service: Service) -> dict[str, str | None]:
    return shown(await service.submit(draft_of(await request.body())))


@router.get("/ready")
async def ready(service: Service) -> JSONResponse:
    up = service.ready()
    return JSONResponse({"ready": up}, status_code=200 if up else 503)


async def refused(_: Request, error: Exception) -> JSONResponse:
    found = http_error(error)
    return JSONResponse(found.body, status_code=found.status, headers=found.headers)


def application(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with invoicing(settings) as app.state.invoicing:
            yield

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    for kind in (InvoicingError, OSError):
        app.add_exception_handler(kind, refused)
    return app
