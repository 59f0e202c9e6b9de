"""Invoices behind FastAPI, from 0.118: `uvicorn --factory fastapi_app:app --workers 1`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from invoicing_service import Invoicing, draft_of, invoicing, shown, told

from invoicing_async import InvoicingError, OpenDocument, Settings
from invoicing_async.web import while_connected

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
    found = told(error)
    return JSONResponse(found.body, status_code=found.status, headers=found.headers)


def application(settings: Settings, run_file: str | PathLike[str]) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with invoicing(settings, run_file) as app.state.invoicing:
            yield

    made = FastAPI(lifespan=lifespan)
    made.include_router(router)
    for kind in (InvoicingError, OSError):  # a `TimeoutError` is an `OSError`
        made.add_exception_handler(kind, refused)
    return made


def app() -> FastAPI:
    return application(Settings.load(), "invoices.db")
