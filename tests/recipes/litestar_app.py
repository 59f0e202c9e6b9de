"""Invoices behind Litestar: `uvicorn --factory yours:app`, with `app()` the `application(Settings.load(), FILE)`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from os import PathLike
from typing import Any
from uuid import UUID

from invoicing_service import Invoicing, draft_of, invoicing, shown, told
from litestar import Litestar, Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.response import Stream

from invoicing_async import InvoicingError, OpenDocument, Settings
from invoicing_async.web import while_connected


async def service_of(state: State) -> Invoicing:
    service: Invoicing = state.invoicing
    return service


@get("/orders/{order_id:uuid}/invoice")
async def order_invoice(
    order_id: FromPath[UUID], request: Request[Any, Any, State], service: NamedDependency[Invoicing]
) -> Stream:
    async with AsyncExitStack() as opening:
        async with while_connected(request.receive):
            pdf = await opening.enter_async_context(service.documents.open(order_id))
        held = opening.pop_all()
    # Litestar closes what a handler depends on before it sends: the document stays open until this was passed on, which
    # the generator sees to if it fails, and the task of the background if the client leaves.
    return Stream(passed_on(pdf, held), headers=pdf.headers, background=BackgroundTask(held.aclose))


async def passed_on(pdf: OpenDocument, held: AsyncExitStack) -> AsyncGenerator[bytes]:
    async with held:
        async for chunk in pdf.chunks:
            yield chunk


@post("/invoices", status_code=202)
async def submit(request: Request[Any, Any, State], service: NamedDependency[Invoicing]) -> dict[str, str | None]:
    return shown(await service.submit(draft_of(await request.body())))


@get("/ready")
async def ready(service: NamedDependency[Invoicing]) -> Response[dict[str, bool]]:
    up = service.ready()
    return Response({"ready": up}, status_code=200 if up else 503)


def refused(_: Request[Any, Any, State], error: Exception) -> Response[dict[str, str]]:
    found = told(error)
    return Response(found.body, status_code=found.status, headers=dict(found.headers))


def application(settings: Settings, run_file: str | PathLike[str]) -> Litestar:
    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncGenerator[None]:
        async with invoicing(settings, run_file) as app.state.invoicing:
            yield

    return Litestar(
        [order_invoice, submit, ready],
        lifespan=[lifespan],
        dependencies={"service": Provide(service_of)},
        exception_handlers={InvoicingError: refused, OSError: refused},
    )
