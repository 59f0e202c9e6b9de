"""Invoices behind aiohttp.web: `web.run_app(application(Settings.load(), FILE), handler_cancellation=True)`.

With `handler_cancellation` a client that leaves ends its request's handler, and with it the call to the service.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from os import PathLike

from aiohttp import web
from aiohttp.typedefs import Handler
from invoicing_service import Invoicing, draft_of, invoicing, shown, told

from invoicing_async import InvoicingError, Settings

SERVICE = web.AppKey("invoicing", Invoicing)
UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
routes = web.RouteTableDef()


@routes.get(f"/orders/{{order_id:{UUID}}}/invoice", allow_head=False)  # else HEAD is answered with the body, too
async def order_invoice(request: web.Request) -> web.StreamResponse:
    async with request.app[SERVICE].documents.open(request.match_info["order_id"]) as pdf:
        response = web.StreamResponse(headers=pdf.headers)
        await response.prepare(request)
        async for chunk in pdf.chunks:
            await response.write(chunk)
        await response.write_eof()
        return response


@routes.post("/invoices")
async def submit(request: web.Request) -> web.Response:
    item = await request.app[SERVICE].submit(draft_of(await request.read()))
    return web.json_response(shown(item), status=202)


@routes.get("/ready")
async def ready(request: web.Request) -> web.Response:
    up = request.app[SERVICE].ready()
    return web.json_response({"ready": up}, status=200 if up else 503)


@web.middleware
async def refused(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (InvoicingError, OSError) as error:
        if request.writer.output_size:  # the answer has begun: only cutting it off tells the client
            raise
        found = told(error)
        return web.json_response(found.body, status=found.status, headers=found.headers)


def application(settings: Settings, run_file: str | PathLike[str]) -> web.Application:
    async def lifespan(app: web.Application) -> AsyncGenerator[None]:
        async with invoicing(settings, run_file) as app[SERVICE]:
            yield

    app = web.Application(middlewares=[refused])
    app.cleanup_ctx.append(lifespan)
    app.add_routes(routes)
    return app
