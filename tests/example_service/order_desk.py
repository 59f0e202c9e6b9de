"""A small web service as a user of the library writes it: it passes order invoices on and submits e-invoices.

`GET /orders/ID/invoice` is the PDF. `POST /orders/ID/e-invoice` submits an e-invoice, once however often it is asked
for, and `GET` tells how far it is; meanwhile the service waits for its end in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from invoicing_async import (
    AsyncInvoices,
    Consumer,
    DraftError,
    InvoiceDraft,
    InvoiceLine,
    InvoicingError,
    OrderDocuments,
    OrderStatusError,
    Session,
    TransportError,
)
from invoicing_async.clock import Clock
from invoicing_async.errors import ServiceDownError, ServiceUnavailableError
from invoicing_async.runs import InvoiceRun, Item

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
DOCUMENTS = web.AppKey("documents", OrderDocuments)
INVOICES = web.AppKey("invoices", AsyncInvoices)
RUN = web.AppKey("run", InvoiceRun)
SUBMITTED = web.AppKey("submitted", asyncio.Queue[Item])


def make_app(documents: Session, invoices: Session, run_file: Path, *, clock: Clock | None = None) -> web.Application:
    """Return the service; it opens both sessions and the run file, and closes them. Tests bring a clock."""

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with documents, invoices, InvoiceRun.open(run_file, clock=clock) as run:
            app[DOCUMENTS] = OrderDocuments(documents)
            app[INVOICES] = AsyncInvoices(invoices)
            app[RUN] = run
            app[SUBMITTED] = asyncio.Queue()
            settling = asyncio.create_task(settle(app))
            yield
            settling.cancel()
            with suppress(asyncio.CancelledError):
                await settling

    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_get("/orders/{order_id}/invoice", invoice)
    app.router.add_post("/orders/{order_id}/e-invoice", submit)
    app.router.add_get("/orders/{order_id}/e-invoice", state)
    return app


async def settle(app: web.Application) -> None:
    """Wait for the end of whatever was submitted, before the last start too."""

    async def submitted() -> AsyncIterator[Item]:
        while True:
            yield await app[SUBMITTED].get()

    async with aclosing(app[RUN].settle(app[INVOICES], also=submitted())) as ended:
        async for _ in ended:
            pass  # it is recorded in the run file


async def invoice(request: web.Request) -> web.StreamResponse:
    try:
        async with request.app[DOCUMENTS].open(request.match_info["order_id"]) as pdf:
            response = web.StreamResponse(headers=pdf.headers)
            await response.prepare(request)
            async for chunk in pdf.chunks:
                await response.write(chunk)
            await response.write_eof()
            return response
    except OrderStatusError as error:
        return refusal(HTTPStatus.CONFLICT, error)
    except (ServiceDownError, ServiceUnavailableError, TransportError) as error:
        return refusal(HTTPStatus.SERVICE_UNAVAILABLE, error)


async def submit(request: web.Request) -> web.Response:
    content = await request.json()
    line = InvoiceLine(name=content["goods"], unit="piece", price=content["price"], quantity=content["quantity"])
    order_id = request.match_info["order_id"]
    draft = InvoiceDraft(
        key=order_id,
        invoice_template_id=TEMPLATE,
        lines=[line],
        consumer=Consumer(code=order_id, name=content["buyer"]),
    )
    try:
        item = await request.app[RUN].submit_one(draft, request.app[INVOICES])
    except DraftError as error:
        return refusal(HTTPStatus.UNPROCESSABLE_ENTITY, error)
    if item.state == "submitted":
        request.app[SUBMITTED].put_nowait(item)
    return web.json_response(shown(item), status=HTTPStatus.ACCEPTED)


async def state(request: web.Request) -> web.Response:
    item = await request.app[RUN].ledger.get(request.match_info["order_id"])
    return web.json_response(shown(item)) if item else web.Response(status=HTTPStatus.NOT_FOUND)


def shown(item: Item) -> dict[str, str | None]:
    return {"state": item.state, "request_id": item.request_id, "code": item.code}  # `error` names hosts


def refusal(status: HTTPStatus, error: InvoicingError) -> web.Response:
    return web.json_response({"error": error.message, "hint": error.hint}, status=status)
