"""The web services of the README itself, run by the real frameworks on real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from attrs import frozen
from places import README
from readme_blocks import example
from served import serving_sandbox, whole
from web_servers import aiohttp_served, asgi_served, head_then_get, leave_during, seen, until

from invoicing_async import AsyncInvoices, HmacAuth, OAuthClientCredentials, Session
from invoicing_async._files.pdf import fault_of
from invoicing_async.drafts import example_draft
from invoicing_async.runs import InvoiceRun
from invoicing_async.sandbox import (
    Answer,
    Endless,
    Faults,
    Hang,
    NotEligible,
    Sandbox,
    SandboxSettings,
    demo_orders,
)
from invoicing_async.web import JUDGED, ROWS

pytestmark = pytest.mark.usefixtures("logging_is_as_it_was")

ORDER = demo_orders(1)[0]
LOGIN_PAGE = Answer(headers={"Content-Type": "text/html"}, body=b"<html>Please log in</html>")


@frozen
class Shown:
    """An application of the README by its function's name, and what serves it."""

    name: str
    serve: Callable[[Any], AbstractAsyncContextManager[str]]


APPLICATIONS = {
    "fastapi": Shown("fastapi_app", asgi_served),
    "aiohttp": Shown("aiohttp_app", aiohttp_served),
    "litestar": Shown("litestar_app", asgi_served),
}
each_application = pytest.mark.parametrize("shown", APPLICATIONS.values(), ids=APPLICATIONS)


@asynccontextmanager
async def invoice_url(shown: Shown, sandbox: Sandbox) -> AsyncIterator[str]:
    async with sandbox.serve(base_path="/api/v1") as base_url:
        application = example(shown.name)(base_url, HmacAuth(**sandbox.credentials.partner()))
        async with shown.serve(application) as url:
            yield f"{url}/orders/{ORDER}/invoice"


@each_application
@pytest.mark.asyncio
async def test_there_is_a_whole_invoice_or_no_byte_of_one(shown: Shown) -> None:
    """What is no invoice is an error of the web service, told by the table."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [NotEligible(), LOGIN_PAGE])
    async with invoice_url(shown, sandbox) as url:
        refused = [await seen(url) for _ in range(2)]
        found = await seen(url)
    assert [(answer.status, answer.json["code"]) for answer in refused] == [(409, "not_eligible"), (502, "bad_answer")]
    assert not any(b"%PDF" in answer.body for answer in refused)
    assert (found.status, fault_of(found.body)) == (200, None)
    assert found.headers["content-type"] == "application/pdf"
    assert found.headers["content-length"] == str(len(found.body))
    assert found.headers["content-disposition"] == f'attachment; filename="invoice-{ORDER}.pdf"'


@each_application
@pytest.mark.asyncio
async def test_head_fetches_no_document_and_does_not_upset_the_connection(shown: Shown) -> None:
    """A body behind the answer to HEAD would be taken for the next answer."""
    sandbox = Sandbox()
    async with invoice_url(shown, sandbox) as url:
        assert await head_then_get(url) == (405, 200)
    assert sandbox.calls("document") == 1


@each_application
@pytest.mark.asyncio
async def test_a_client_that_leaves_ends_the_call(shown: Shown) -> None:
    """While it waits, and in the middle of a large document."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [Hang(), Endless()])
    async with invoice_url(shown, sandbox) as url:
        await leave_during(url, lambda: sandbox.in_flight == 1)
        await until(lambda: sandbox.in_flight == 0)
        async with ClientSession() as client:
            answer = await client.get(url)
            await answer.content.readexactly(200_000)
            answer.close()
            await until(lambda: sandbox.in_flight == 0)
        assert fault_of((await seen(url)).body) is None


@pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
@pytest.mark.asyncio
async def test_clients_that_stop_reading_keep_nobody_out(name: str) -> None:
    """One more than the session has places, each in the middle of a large document."""
    sandbox = Sandbox()
    sandbox.script(ORDER, [Endless(chunk=2**18)] * 33)
    async with (
        invoice_url(APPLICATIONS[name], sandbox) as url,
        ClientSession(connector=TCPConnector(limit=0)) as client,
    ):
        stalled = [await client.get(url) for _ in range(33)]
        for answer in stalled:
            await answer.content.readexactly(100_000)
        found = await seen(url)
        for answer in stalled:
            answer.close()
        await until(lambda: sandbox.in_flight == 0)
    assert (found.status, fault_of(found.body)) == (200, None)


@pytest.mark.asyncio
async def test_what_a_request_submits_is_settled_in_the_background(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after the request was given up."""
    sandbox = Sandbox(SandboxSettings(latency=0.02), faults=Faults(polls_until_done=(1, 1)))
    draft = example_draft(1)
    auth = OAuthClientCredentials(**sandbox.credentials.client())
    submit, settle_all = example("submit"), example("settle_all")
    async with (
        sandbox.serve() as url,
        InvoiceRun.open(tmp_path / "run.db") as run,
        Session(url, auth=auth) as session,
    ):
        invoices, stopping = AsyncInvoices(session), asyncio.Event()
        request = asyncio.create_task(submit(run, invoices, draft))
        await until(lambda: sandbox.calls("submit") == 1)
        request.cancel()
        assert (await submit(run, invoices, draft)).state == "submitted"
        settling = asyncio.create_task(settle_all(run, invoices, stopping))
        await until(lambda: "success" in capsys.readouterr().out)
        run.stop()
        stopping.set()
        await settling
    assert len(sandbox.created) == 1


def test_a_script_saves_an_invoice_without_a_loop(tmp_path: Path) -> None:
    sandbox = Sandbox()
    with serving_sandbox(sandbox) as variables:
        url, auth = variables["INVOICING_DOCUMENTS_BASE_URL"], HmacAuth(**sandbox.credentials.partner())
        saved = example("save_invoice")(url, auth, ORDER, str(tmp_path))
    assert whole(saved.path)


def test_the_readme_shows_every_status_of_the_table() -> None:
    _, _, rest = README.read_text().partition("\n## In a web service\n")
    rows = re.findall(r"^\| (\d{3}) \|", rest.partition("\n## ")[0], re.MULTILINE)
    assert [*map(int, rows)] == sorted({int(row.status) for row in (*ROWS.values(), *JUDGED.values())})
