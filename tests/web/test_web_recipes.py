"""The recipes of web services, each behind its real framework and on real sockets, as their clients see them."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp_app
import fastapi_app
import invoicing_service
import litestar_app
import pytest
import starlette_app
from aiohttp import ClientSession, TCPConnector
from attrs import evolve, frozen
from invoicing_service import draft_of, invoicing, settle
from leaks import others
from places import TESTS
from web_servers import Seen, aiohttp_served, asgi_served, head_then_get, leave_during, seen, until

from invoicing_async import OrderDocuments, Poller, Settings
from invoicing_async._files.pdf import fault_of
from invoicing_async.drafts import dump_draft, example_draft
from invoicing_async.errors import AuthenticationError, DraftError
from invoicing_async.runs import InvoiceRun, Item
from invoicing_async.sandbox import (
    Answer,
    Endless,
    Faults,
    Hang,
    NotEligible,
    RateLimited,
    Sandbox,
    SandboxSettings,
    Truncated,
    demo_orders,
)

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("logging_is_as_it_was")]

ORDERS = demo_orders(8)
LOGIN_PAGE = Answer(headers={"Content-Type": "text/html"}, body=b"<html>Please log in</html>")
UNKNOWN = Answer(
    status=404,
    headers={"Content-Type": "application/json"},
    body=b'{"success": false, "error": {"code": "ORDER_404", "message": "No such order in shard db-7"}}',
)
DRAFT = dump_draft(example_draft(1)).encode()
KEY = example_draft(1).key
RUN = "invoices.db"


@frozen
class Recipe:
    module: ModuleType
    serve: Callable[[Any], AbstractAsyncContextManager[str]]


RECIPES = {
    "fastapi": Recipe(fastapi_app, asgi_served),
    "aiohttp": Recipe(aiohttp_app, aiohttp_served),
    "litestar": Recipe(litestar_app, asgi_served),
    "starlette": Recipe(starlette_app, asgi_served),
}
each_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@pytest.fixture
def kept_open(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Hold on to every document that is opened, so that only the recipe closes it and not the end of its last name."""
    opened = list[object]()
    open_ = OrderDocuments.open

    def kept(self: OrderDocuments, order_id: Any) -> Any:
        opened.append(found := open_(self, order_id))
        return found

    monkeypatch.setattr(OrderDocuments, "open", kept)
    return opened


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of the background follow each other at once."""
    monkeypatch.setattr(invoicing_service, "PAUSE", 0.01)
    monkeypatch.setattr(invoicing_service, "POLLER", Poller(first=0.01, timeout=1.0))
    monkeypatch.setattr(invoicing_service, "DRAIN", 2.0)


def settings(sandbox: Sandbox, url: str, **more: str) -> Settings:
    """What the environment holds for a sandbox at this address."""
    given = {
        "INVOICING_DOCUMENTS_": {**sandbox.credentials.partner(), "base_url": url, **more},
        "INVOICING_INVOICES_": {**sandbox.credentials.client(), "base_url": url},
    }
    return Settings.load(
        environ={prefix + name.upper(): value for prefix, values in given.items() for name, value in values.items()}
    )


@asynccontextmanager
async def service(recipe: Recipe, sandbox: Sandbox, folder: Path, **more: Any) -> AsyncIterator[str]:
    """Serve a recipe on the sandbox, and see that nothing of it is left."""
    async with sandbox.serve(base_path="/api/v1") as url:
        before = others()
        async with recipe.serve(recipe.module.application(settings(sandbox, url, **more), folder / RUN)) as web_url:
            yield web_url
        await until(lambda: others() <= before)
        assert sandbox.in_flight == 0


def invoice_of(order: str) -> str:
    return f"/orders/{order}/invoice"


async def submitted(url: str, body: bytes = DRAFT) -> Seen:
    return await seen(f"{url}/invoices", method="POST", body=body)


@each_recipe
async def test_a_whole_invoice_passes_through(recipe: Recipe, tmp_path: Path) -> None:
    """With its type, name and length; one that broke on its way is asked for again, which nobody sees."""
    sandbox = Sandbox()
    sandbox.script(ORDERS[1], [Truncated(missing=100)])
    async with service(recipe, sandbox, tmp_path) as url:
        for order in ORDERS[:2]:
            found = await seen(url + invoice_of(order))
            assert (found.status, fault_of(found.body)) == (200, None)
            assert found.headers["content-type"] == "application/pdf"
            assert found.headers["content-length"] == str(len(found.body))
            assert found.headers["content-disposition"] == f'attachment; filename="invoice-{order}.pdf"'
    assert sandbox.calls("document") == 3


@each_recipe
async def test_head_fetches_no_document_and_does_not_upset_the_connection(recipe: Recipe, tmp_path: Path) -> None:
    """A body behind the answer to HEAD would be taken for the next answer."""
    sandbox = Sandbox()
    async with service(recipe, sandbox, tmp_path) as url:
        refused, found = await head_then_get(url + invoice_of(ORDERS[0]))
    assert (refused, found, sandbox.calls("document")) == (405, 200, 1)


@each_recipe
async def test_an_error_is_told_by_the_table_and_in_no_words_of_the_service(recipe: Recipe, tmp_path: Path) -> None:
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [NotEligible()])
    sandbox.script(ORDERS[1], [UNKNOWN])
    sandbox.script(ORDERS[2], [LOGIN_PAGE])
    sandbox.script(ORDERS[4], [RateLimited(retry_after="30")])
    async with service(recipe, sandbox, tmp_path) as url:
        assert (await seen(f"{url}/ready")).status == 200
        told = [await seen(url + invoice_of(order)) for order in ORDERS[:3]]
        assert [found.status for found in told] == [409, 404, 502]
        busy = await seen(url + invoice_of(ORDERS[4]))
        assert (busy.status, busy.json["code"], busy.headers["retry-after"]) == (503, "busy", "30")
        assert (await seen(f"{url}/ready")).status == 503
        outside = await seen(url + invoice_of("%2e%2e"))
        assert outside.status in {404, 422}
    for found in [*told, busy]:
        assert found.headers["content-type"].startswith("application/json")
        assert not any(word in found.body for word in (b"%PDF", b"shard", b"log in", b"127.0.0.1"))
    assert [found.json["code"] for found in told] == ["not_eligible", "not_found", "bad_answer"]
    assert sandbox.calls("document") == 4


async def test_a_credential_of_the_service_is_no_business_of_its_clients(tmp_path: Path) -> None:
    """They get no 401, by which a browser would ask for a password, and nothing of the secret."""
    recipe = RECIPES["starlette"]
    async with service(recipe, Sandbox(), tmp_path, secret_key="a wrong secret") as url:
        found = await seen(url + invoice_of(ORDERS[0]))
    assert (found.status, found.json["code"]) == (502, "upstream_refused")
    assert b"secret" not in found.body
    assert "www-authenticate" not in found.headers


async def test_a_silent_service_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["aiohttp"]
    monkeypatch.setattr(invoicing_service, "DEADLINE", 0.1)
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [Hang()] * 5)
    async with service(recipe, sandbox, tmp_path) as url:
        found = await seen(url + invoice_of(ORDERS[0]))
        assert (found.status, found.json["code"]) == (504, "deadline")
        assert sandbox.in_flight == 0


@each_recipe
@pytest.mark.parametrize("answer", [Hang(), Hang(after=100)], ids=["silent", "within-a-small-document"])
async def test_a_client_that_leaves_while_it_waits_ends_the_call(recipe: Recipe, answer: Hang, tmp_path: Path) -> None:
    """Long before the deadline, and the next client is served."""
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [answer])
    async with service(recipe, sandbox, tmp_path) as url:
        await leave_during(url + invoice_of(ORDERS[0]), lambda: sandbox.in_flight == 1)
        async with asyncio.timeout(2):
            await until(lambda: sandbox.in_flight == 0)
        assert sandbox.calls("document") == 1
        assert (await seen(url + invoice_of(ORDERS[0]))).status == 200


@each_recipe
@pytest.mark.usefixtures("kept_open")
async def test_a_client_that_leaves_a_large_document_ends_the_call(recipe: Recipe, tmp_path: Path) -> None:
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [Endless()])
    async with service(recipe, sandbox, tmp_path) as url, ClientSession() as client:
        answer = await client.get(url + invoice_of(ORDERS[0]))
        await answer.content.readexactly(200_000)
        answer.close()
        await until(lambda: sandbox.in_flight == 0)
        assert (await seen(url + invoice_of(ORDERS[0]))).status == 200


@pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
async def test_clients_that_stop_reading_keep_nobody_out(name: str, tmp_path: Path) -> None:
    """One more than the session has places, each in the middle of a large document."""
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [Endless(chunk=2**18)] * 33)
    async with (
        service(RECIPES[name], sandbox, tmp_path) as url,
        ClientSession(connector=TCPConnector(limit=0)) as client,
    ):
        stalled = [await client.get(url + invoice_of(ORDERS[0])) for _ in range(33)]
        for answer in stalled:
            await answer.content.readexactly(100_000)
        found = await seen(url + invoice_of(ORDERS[0]))
        for answer in stalled:
            answer.close()
        await until(lambda: sandbox.in_flight == 0)
    assert (found.status, fault_of(found.body)) == (200, None)


@each_recipe
async def test_a_large_document_that_breaks_is_never_passed_off_as_whole(recipe: Recipe, tmp_path: Path) -> None:
    sandbox = Sandbox()
    headers = {"Content-Type": "application/pdf", "Content-Length": str(2**22)}
    sandbox.script(ORDERS[0], [Answer(headers=headers, body=b"%PDF-1.7\n".ljust(2**21, b"%"))])
    async with service(recipe, sandbox, tmp_path) as url:
        with pytest.raises(Exception, match=r"payload|Response"):
            await seen(url + invoice_of(ORDERS[0]))


@each_recipe
async def test_a_submission_is_taken_once_and_settled_in_the_background(recipe: Recipe, tmp_path: Path) -> None:
    """The same again gets the same request; another under its key is a conflict, and one with faults lists them."""
    sandbox = Sandbox(faults=Faults(polls_until_done=(2, 2)))
    async with service(recipe, sandbox, tmp_path) as url:
        first, again = await submitted(url), await submitted(url)
        other = await submitted(url, dump_draft(evolve(example_draft(2), key=KEY)).encode())
        wrong = await submitted(url, b'{"key": "K", "lines": [{"price": "many"}]}')
        empty = await submitted(url, b"")
        assert (first.status, first.json["key"], first.json["state"]) == (202, KEY, "submitted")
        assert again.json["request_id"] == first.json["request_id"]
        while (await submitted(url)).json["state"] != "success":  # noqa: ASYNC110 - as a client of it would
            await asyncio.sleep(0.01)
    assert (other.status, other.json["code"]) == (409, "conflict")
    assert (wrong.status, wrong.json["code"], empty.status) == (422, "invalid", 422)
    assert "lines[0].price" in wrong.json["message"]
    assert len(sandbox.created) == 1


@each_recipe
async def test_a_client_that_leaves_does_not_stop_a_submission(recipe: Recipe, tmp_path: Path) -> None:
    """It is carried out and recorded; nothing is in doubt."""
    sandbox = Sandbox(SandboxSettings(latency=0.1))
    async with service(recipe, sandbox, tmp_path) as url:
        await leave_during(f"{url}/invoices", lambda: sandbox.calls("submit") == 1, method="POST", body=DRAFT)
        assert (await submitted(url)).json["state"] in {"submitted", "success"}
    assert sandbox.calls("submit") == 1


@each_recipe
async def test_a_full_disk_is_a_fault_of_this_service(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clients hear nothing of the file, which stands in the log, with where it happened."""
    records = list[logging.LogRecord]()

    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/var/lib/run.db")

    def kept(record: logging.LogRecord) -> bool:
        records.append(record)
        return False

    monkeypatch.setattr(InvoiceRun, "submit_one", full)
    monkeypatch.setattr(invoicing_service.LOG, "filters", [kept])  # Litestar takes away other handlers
    async with service(recipe, Sandbox(), tmp_path) as url:
        found = await submitted(url)
    assert (found.status, found.json["code"]) == (500, "internal")
    assert b"run.db" not in found.body
    (record,) = records
    assert "No space left on device: '/var/lib/run.db'" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.usefixtures("no_settings")
async def test_the_application_that_uvicorn_makes_has_its_settings_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Sandbox().serve(base_path="/api/v1") as base_url:
        for name, value in settings(Sandbox(), base_url).values.items():
            monkeypatch.setenv(name, value)
        async with asgi_served(fastapi_app.app()) as url:
            assert (await seen(url + invoice_of(ORDERS[0]))).status == 200
            assert (await submitted(url)).json["state"] == "submitted"
    assert (tmp_path / RUN).exists()


async def test_behind_a_middleware_of_fastapis_all_is_as_without(tmp_path: Path) -> None:
    """One made by `@app.middleware("http")`, which stands between the application and its client."""
    sandbox = Sandbox()
    sandbox.script(ORDERS[0], [Hang(), Endless()])

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    async with sandbox.serve(base_path="/api/v1") as base_url:
        app = fastapi_app.application(settings(sandbox, base_url), tmp_path / RUN)
        app.middleware("http")(passing)
        async with asgi_served(app) as web_url:
            url = web_url + invoice_of(ORDERS[0])
            await leave_during(url, lambda: sandbox.in_flight == 1)
            await until(lambda: sandbox.in_flight == 0)
            async with ClientSession() as client:
                answer = await client.get(url)
                await answer.content.readexactly(200_000)
                answer.close()
                await until(lambda: sandbox.in_flight == 0)
            assert fault_of((await seen(url)).body) is None


@pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
@pytest.mark.parametrize("name", ["fastapi", "litestar", "starlette"])
@pytest.mark.usefixtures("kept_open")
async def test_a_client_that_leaves_without_having_read_leaves_nothing_open(
    name: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first byte, and while one waits to be read: what is iterated over hears of neither by itself."""
    sandbox, client, passed_on = Sandbox(), asyncio.Queue[dict[str, Any]](), list[object]()
    sandbox.script(ORDERS[0], [Endless()])

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == at:
            client.put_nowait({"type": "http.disconnect"})
            if at == "http.response.body":
                await asyncio.get_running_loop().create_future()

    def kept(*arguments: Any) -> Any:
        passed_on.append(found := generator(*arguments))
        return found

    generator = litestar_app.passed_on
    for module in (litestar_app, starlette_app):
        monkeypatch.setattr(module, "passed_on", kept)
    path = invoice_of(ORDERS[0])
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    async with sandbox.serve(base_path="/api/v1") as url:
        app = RECIPES[name].module.application(settings(sandbox, url), tmp_path / RUN)
        async with app.lifespan() if name == "litestar" else app.router.lifespan_context(app):
            await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}, "app": app}, client.get, send)
            assert sandbox.calls("document") == 1
            async with asyncio.timeout(2):
                await until(lambda: sandbox.in_flight == 0)


# What is the same for all of them, without HTTP before it.


async def test_a_request_ends_by_its_deadline_and_the_submission_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks again gets what became of it."""
    monkeypatch.setattr(invoicing_service, "DEADLINE", 0.1)
    sandbox = Sandbox(SandboxSettings(latency=0.2))
    async with sandbox.serve() as url, invoicing(settings(sandbox, url), tmp_path / RUN) as found:
        draft = draft_of(DRAFT)
        assert (await found.submit(draft)).state in {"planned", "sending"}
        while (await found.submit(draft)).state != "submitted":  # noqa: ASYNC110 - as a client of it would
            await asyncio.sleep(0.01)
    assert sandbox.calls("submit") == 1


async def test_what_could_not_be_sent_is_sent_when_the_service_is_there_again(tmp_path: Path) -> None:
    sandbox = Sandbox(faults=Faults(polls_until_done=(0, 0)))
    drafts = [example_draft(number) for number in range(3)]
    async with sandbox.serve() as url, InvoiceRun.open(tmp_path / "invoices.db") as run:
        await run.add(drafts)
    async with sandbox.serve() as url, invoicing(settings(sandbox, url), tmp_path / RUN) as found:
        while (await found.run.ledger.counts())["success"] < len(drafts):  # noqa: ASYNC110 - as an operator would look
            await asyncio.sleep(0.01)
    assert len(sandbox.created) == len(drafts)


async def test_a_process_that_is_told_to_stop_records_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of a client that left, and long after its answer came."""
    sandbox, recorded = Sandbox(SandboxSettings(latency=0.05)), list[Item]()
    submit_one = InvoiceRun.submit_one

    async def slowly(*arguments: Any) -> Item:
        item = await submit_one(*arguments)
        await asyncio.sleep(0.2)
        recorded.append(item)
        return item

    monkeypatch.setattr(InvoiceRun, "submit_one", slowly)
    async with sandbox.serve() as url, invoicing(settings(sandbox, url), tmp_path / RUN) as found:
        waiting = asyncio.create_task(found.submit(draft_of(DRAFT)))
        await until(lambda: sandbox.calls("submit") == 1)
        waiting.cancel()
    assert [item.state for item in recorded] == ["submitted"]


async def test_a_process_that_is_told_to_stop_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the service does not answer in time is cut off, and in doubt."""
    monkeypatch.setattr(invoicing_service, "DRAIN", 0.05)
    sandbox = Sandbox()
    sandbox.script("submit", [Hang()])
    async with asyncio.timeout(5), sandbox.serve() as url, invoicing(settings(sandbox, url), tmp_path / RUN) as found:
        waiting = asyncio.create_task(found.submit(draft_of(DRAFT)))
        await until(lambda: sandbox.calls("submit") == 1 or sandbox.in_flight == 1)
    item = await waiting
    assert item.state == "in_doubt"


class Failing:
    """A run whose rounds fail one after the other, and which is told to stop in the last one."""

    def __init__(self, stopping: asyncio.Event, *errors: Exception) -> None:
        self.stopping, self.errors = stopping, [*errors]

    async def run(self, *_: object, **__: object) -> AsyncIterator[None]:
        if self.errors:
            raise self.errors.pop(0)
        self.stopping.set()
        for item in list[None]():
            yield item


async def test_the_background_goes_on_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """Of the services, of the disk, and of this program; it says what is wrong: nobody else hears of it."""
    stopping = asyncio.Event()
    refused, full = AuthenticationError("the credential is refused", status=401), OSError(errno.ENOSPC, "No space left")
    failing: Any = Failing(stopping, refused, full, KeyError("a fault"))
    await settle(failing, failing, stopping)
    assert "the invoices have to wait: the credential is refused" in caplog.text
    assert "the invoices have to wait: [Errno 28] No space left" in caplog.text
    assert "KeyError: 'a fault'" in caplog.text


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"no JSON", b"\xff\xfe", json.dumps({"key": "K"}).encode()])
async def test_a_body_that_is_no_draft_is_refused(body: bytes) -> None:
    with pytest.raises(DraftError):
        draft_of(body)


@pytest.mark.parametrize("file", sorted((TESTS / "recipes").glob("*.py")), ids=lambda file: file.stem)
async def test_a_recipe_uses_public_names_and_has_annotations_that_are_text(file: Path) -> None:
    """So that what is tested here holds for those who copy it, and who write that line first in every module."""
    source = file.read_text()
    assert "\nfrom __future__ import annotations\n" in source
    assert re.findall(r"^(?:from|import) .*\b_\w+", source.replace("__future__", ""), re.MULTILINE) == []
