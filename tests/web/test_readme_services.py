"""The README's web services, run by the real frameworks on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import uvicorn
from aiohttp import ClientSession, TCPConnector, web
from readme_blocks import example

from invoicing_async import HmacAuth
from invoicing_async._files.pdf import fault_of
from invoicing_async._transport.server import serve
from invoicing_async.sandbox import Answer, Endless, NotEligible, Sandbox, Scripted, Truncated, demo_orders

ORDER = demo_orders(1)[0]
LOGIN_PAGE = Answer(headers={"Content-Type": "text/html"}, body=b"<html>Please log in</html>")


@asynccontextmanager
async def fastapi_served(base_url: str, auth: HmacAuth) -> AsyncIterator[str]:
    config = uvicorn.Config(
        example("fastapi_app")(base_url, auth), port=0, log_level="critical", ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells it no other way
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def aiohttp_served(base_url: str, auth: HmacAuth) -> AsyncIterator[str]:
    runner = web.AppRunner(example("aiohttp_app")(base_url, auth), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


Served = Callable[[str, HmacAuth], AbstractAsyncContextManager[str]]
frameworks = pytest.mark.parametrize("served", [fastapi_served, aiohttp_served], ids=["fastapi", "aiohttp"])


@asynccontextmanager
async def service(served: Served, sandbox: Sandbox) -> AsyncIterator[str]:
    async with (
        serve(sandbox, base_path="/api/v1") as base_url,
        served(base_url, HmacAuth(**sandbox.credentials.partner())) as url,
    ):
        yield url


async def got(url: str) -> tuple[int, dict[str, str], bytes]:
    async with ClientSession() as client, client.get(f"{url}/orders/{ORDER}/invoice") as answer:
        return answer.status, dict(answer.headers), await answer.read()


@frameworks
@pytest.mark.asyncio
async def test_a_whole_invoice_passes_through(served: Served) -> None:
    """The client gets the PDF with its type, name and length."""
    async with service(served, Sandbox()) as url:
        status, headers, body = await got(url)
    lowered = {name.lower(): value for name, value in headers.items()}
    assert status == 200
    assert fault_of(body) is None
    assert lowered["content-type"] == "application/pdf"
    assert lowered["content-length"] == str(len(body))
    assert lowered["content-disposition"] == f'attachment; filename="invoice-{ORDER}.pdf"'


@frameworks
@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answers", "status"), [([NotEligible()], 409), ([LOGIN_PAGE], 502)], ids=["not-eligible", "no-pdf"]
)
async def test_without_a_document_there_is_no_byte_of_one(served: Served, answers: list[Scripted], status: int) -> None:
    """What is no invoice is an error answer of the web service, with a hint and without a PDF."""
    sandbox = Sandbox()
    sandbox.script(ORDER, answers)
    async with service(served, sandbox) as url:
        answered, headers, body = await got(url)
    assert (answered, b"hint" in body, b"%PDF" in body) == (status, True, False)
    assert {name.lower(): value for name, value in headers.items()}["content-type"].startswith("application/json")


@frameworks
@pytest.mark.asyncio
async def test_a_broken_body_is_never_passed_off_as_whole(served: Served) -> None:
    """A large document cut off at the service is cut off at the client too."""
    sandbox = Sandbox()
    headers = {"Content-Type": "application/pdf", "Content-Length": str(2**22)}
    sandbox.script(ORDER, [Answer(headers=headers, body=b"%PDF-1.7\n".ljust(2**21, b"%"))])
    async with service(served, sandbox) as url:
        with pytest.raises(Exception, match=r"payload|Response"):
            await got(url)


@frameworks
@pytest.mark.asyncio
async def test_a_small_body_that_breaks_is_asked_for_again(served: Served) -> None:
    """The client sees the whole document and nothing of it."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [Truncated(missing=100)])
    async with service(served, sandbox) as url:
        status, headers, body = await got(url)
    assert (status, fault_of(body), sandbox.calls("document")) == (200, None, 2)
    assert {name.lower(): value for name, value in headers.items()}["content-length"] == str(len(body))


@frameworks
@pytest.mark.asyncio
async def test_clients_that_stop_reading_keep_nobody_out(served: Served) -> None:
    """One more than the session has places, each in the middle of a large document."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [Endless(chunk=2**18)] * 33)
    async with service(served, sandbox) as url, ClientSession(connector=TCPConnector(limit=0)) as client:
        stalled = [await client.get(f"{url}/orders/{ORDER}/invoice") for _ in range(33)]
        for answer in stalled:
            await answer.content.readexactly(100_000)
        status, _, body = await got(url)
        for answer in stalled:
            answer.close()
        async with asyncio.timeout(10):
            while sandbox.in_flight:  # noqa: ASYNC110 - a count of the sandbox's
                await asyncio.sleep(0.01)
    assert (status, fault_of(body)) == (200, None)


@frameworks
@pytest.mark.asyncio
async def test_a_client_that_leaves_stops_the_reading(served: Served) -> None:
    """When the client goes, the call to the service ends and its place is free."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [Endless(chunk=65_536)])
    async with service(served, sandbox) as url:
        async with ClientSession() as client:
            answer = await client.get(f"{url}/orders/{ORDER}/invoice")
            await answer.content.readexactly(200_000)
            answer.close()
        async with asyncio.timeout(10):
            while sandbox.in_flight:  # noqa: ASYNC110 - a count of the sandbox's
                await asyncio.sleep(0.01)
        status, _, body = await got(url)
    assert (status, fault_of(body)) == (200, None)
