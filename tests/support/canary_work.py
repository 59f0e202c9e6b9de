"""Work with secrets that are looked for everywhere, in a process of its own.

`python canary_work.py FOLDER direct|watched [planted]` prints, as JSON, which secrets were seen in which place and how
much was looked at there. `watched` has OpenTelemetry look on, by our own observer in both its ways and by the
instrumentation of aiohttp, which stays for the rest of a process. `planted` does no work, but has one secret put into
each place, as a careless line of code would, so that the looking itself is tried.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from attrs import evolve
from canaries import CANARIES, Listening, Places, summary
from peers import Connection, Peer, free_port, listening

from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    InvoiceDraft,
    InvoiceLine,
    OAuthClientCredentials,
    OrderDocuments,
    OutagePolicy,
    Poller,
    RetryPolicy,
    Session,
    StaticToken,
    Timeouts,
)
from invoicing_async.auth import Auth, ProvidedAuth
from invoicing_async.errors import TransportError
from invoicing_async.events import AttemptFailed, DocumentSaved, Observer, combined
from invoicing_async.repair import write_sheet
from invoicing_async.reports import Report
from invoicing_async.runs import DocumentRun, InvoiceRun, State
from invoicing_async.sandbox import (
    Answer,
    DropBeforeAnswer,
    Hang,
    NotEligible,
    NotPdf,
    Operation,
    RateLimited,
    Reset,
    Sandbox,
    SandboxCredentials,
    SandboxSettings,
    Truncated,
    Unavailable,
    demo_orders,
)
from invoicing_async.transport import AiohttpTransport, serve

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
RETRY = RetryPolicy(attempts=2, first=0.001, ceiling=0.01)
PATIENT = RetryPolicy(attempts=30, first=0.001, ceiling=0.01)
"""Of batches: no item of theirs fails for the service's sake alone."""
TIMEOUTS = Timeouts(connect=1.0, read=0.1, attempt=0.2)
OUTAGE = OutagePolicy(probe=0.02, ceiling=0.1, patience=5.0)
POLLER = Poller(first=0.01, ceiling=0.05)
FAULTS = (
    Unavailable(), Unavailable(), Answer(status=401), RateLimited(retry_after="0"), Reset(), Reset(after=100),
    Truncated(missing=10), NotPdf(), Hang(), Hang(after=50), NotEligible(), Answer(status=500, body=b"oops"),
    Answer(status=200, body=b"{"),
)  # fmt: skip


class Issuing:
    """A service whose access token is the canary."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    @asynccontextmanager
    async def send(self, request: Any, exchange: Any) -> Any:
        if request.headers.get("Authorization", "").endswith(CANARIES["access token"]):
            request = evolve(request, headers={**request.headers, "Authorization": f"Bearer {sandbox_token()}"})
        async with self._sandbox.send(request, exchange) as response:
            answer: Any = response
            if request.path.endswith("/oauth/token") and response.status == 200:
                said = {"access_token": CANARIES["access token"], "token_type": "Bearer", "expires_in": 3600}
                body = json.dumps(said).encode()
                head = {"Content-Type": "application/json", "Content-Length": str(len(body))}
                answer = evolve(answer, body=body, headers=head)
            yield answer

    async def close(self) -> None: ...


def sandbox_token() -> str:
    return credentials().token


def credentials() -> SandboxCredentials:
    return SandboxCredentials(
        secret_key=CANARIES["secret key"],
        store_token=CANARIES["store token"],
        client_secret=CANARIES["client secret"],
        token=CANARIES["bearer token"],
    )


def drafts(count: int, prefix: str) -> Iterator[InvoiceDraft]:
    line = InvoiceLine(name="Tea", unit="cup", price="15000", quantity=2)
    for number in range(count):
        yield InvoiceDraft(key=f"{prefix}-{number}", invoice_template_id=TEMPLATE, lines=[line])


class Work:
    """The work, and the places that are looked at meanwhile. Its sessions take the further `observers` in turn."""

    def __init__(self, folder: Path, places: Places, observers: Iterable[Observer] = ()) -> None:
        self.folder = folder
        self.places = places
        self._observers = cycle(observers)
        self._kinds: set[str] = set()
        self.sandbox = Sandbox(SandboxSettings(credentials=credentials()))

    def heard(self, event: Any) -> None:
        self.places.look_at_event(event)
        kind = f"{type(event).__name__} of {getattr(event, 'operation', '')}"
        if kind not in self._kinds:
            self._kinds.add(kind)
            self.places.look_at_objects([event])

    async def seen(self, work: Awaitable[object]) -> None:
        """Do a piece of the work and look at what it raises."""
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is, it is looked at
            self.places.look_at_error(error)

    def session(self, url: str, auth: Auth, **options: Any) -> Session:
        observer = next(self._observers, None)
        heard = self.heard if observer is None else combined(observer, self.heard)
        given = {"retry": RETRY, "timeouts": TIMEOUTS, "outage": OUTAGE, "on_event": heard, **options}
        found = Session(url, auth=auth, **given)
        self.places.look("reprs", f"{found!r} {found} {auth!r} {auth}")
        return found

    async def documents(self, url: str) -> None:
        """A batch with a run file, every fault, a report, and single calls with a wrong key."""
        sandbox, orders = self.sandbox, demo_orders(20)
        run = DocumentRun.open(self.folder / "documents.db", folder=self.folder / "pdf", layout="{order_id}")
        auth = HmacAuth(**sandbox.credentials.partner())
        async with self.session(url, auth, retry=PATIENT) as session, run as opened:
            sandbox.script(Operation.DOCUMENT, FAULTS)
            await opened.add(orders)
            async with Report(self.folder / "report.csv", ("key", "state", "error")) as report:
                async for outcome in opened.download(OrderDocuments(session)):
                    error = getattr(outcome, "error", None)
                    await report.add({"key": outcome.order_id, "state": repr(outcome), "error": str(error)})
                await report.publish()
            self.look_at_databases()
        async with self.session(url, auth) as session:
            for fault in FAULTS:
                sandbox.script(Operation.DOCUMENT, [fault] * 3)
                await self.seen(OrderDocuments(session).download(orders[0], self.folder / "one", on_existing="replace"))
                sandbox._scripts.clear()
        wrong = {**sandbox.credentials.partner(), "secret_key": CANARIES["wrong secret"]}
        async with self.session(url, HmacAuth(**wrong)) as session:
            await self.seen(OrderDocuments(session).download(orders[0], self.folder / "never"))

    async def provided(self, url: str) -> None:
        """A provider that gives a secret which is refused, then nothing."""
        given = iter([CANARIES["provided secret"]] * 2)

        async def provide() -> Auth:
            return HmacAuth(**{**self.sandbox.credentials.partner(), "secret_key": next(given)})

        async with self.session(url, ProvidedAuth(provide)) as session:
            for _ in range(2):
                await self.seen(OrderDocuments(session).download(demo_orders(1)[0], self.folder / "never"))

    async def invoices(self, url: str) -> None:
        """Submissions that end well, badly and in doubt, with and without a run; exports; a sheet for the doubts."""
        sandbox = self.sandbox
        auth = OAuthClientCredentials(**sandbox.credentials.client())
        async with (
            self.session(url, auth, retry=PATIENT) as patient,
            self.session(url, auth) as session,
            InvoiceRun.open(self.folder / "invoices.db") as run,
        ):
            service = AsyncInvoices(session)
            await run.add(drafts(12, "run"))
            sandbox.script(Operation.SUBMIT, [Unavailable(), DropBeforeAnswer(), Answer(status=401), Reset(), Hang()])
            sandbox.script(Operation.STATUS, [Unavailable(), Reset(), Answer(status=401)])
            async for _ in run.run(AsyncInvoices(patient), poller=POLLER):
                pass
            self.look_at_databases()
            await write_sheet(run.ledger, self.folder / "doubts.csv", (State.IN_DOUBT, State.SUCCESS))
            for fault in (DropBeforeAnswer(), Hang(), Answer(status=500), Answer(body=b"{"), Unavailable()):
                sandbox.script(Operation.SUBMIT, [fault] * 3)
                await self.seen(service.submit(next(drafts(1, f"single {fault!r:.20}"))))
                sandbox._scripts.clear()
            done = await service.wait((await service.submit(next(drafts(1, "good")))).request_id, poller=POLLER)
            assert done.data is not None
            for refusal in (Answer(status=403), Reset(), NotPdf(), Hang()):
                sandbox.script(Operation.FILE, [refusal] * 2)
                await self.seen(service.export(done.data.id, self.folder / "exports", poller=[0.01]))
            sandbox.script(Operation.TOKEN, [Answer(status=401), Answer(status=400), Reset()])
            sandbox.revoke_tokens()
            await self.cut_off(session)
        async with self.session(url, auth_that_fails()) as session:
            await self.seen(AsyncInvoices(session).submit(next(drafts(1, "refused"))))
        async with self.session(url, StaticToken(CANARIES["bearer token"])) as session:
            await self.seen(AsyncInvoices(session).submit(next(drafts(1, "static"))))

    async def cut_off(self, session: Session) -> None:
        """A submission that is cancelled while it is on its way, and one that the session's end cuts off."""
        service = AsyncInvoices(session)
        self.sandbox._scripts.clear()
        self.sandbox.script(Operation.SUBMIT, [Hang(), Hang()])
        tasks = [asyncio.create_task(service.submit(draft)) for draft in drafts(2, "cut")]
        await asyncio.sleep(0.1)
        self.places.look_at_objects()
        tasks[0].cancel()
        await self.seen(tasks[0])
        await session.close()
        await self.seen(tasks[1])

    async def proxied(self, url: str) -> None:
        """A proxy with a password that refuses, one that cuts, and one that is not there."""

        async def refusing(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            await connection.say(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

        async def cutting(connection: Connection, peer: Peer) -> None:
            peer.requests.append(await connection.request())
            connection.reset()

        partner = HmacAuth(**self.sandbox.credentials.partner())
        async with listening(refusing) as first, listening(cutting) as second:
            ports = [int(peer.url.rsplit(":", 1)[1]) for peer in (first, second)]
            for port in (*ports, free_port()):
                for target in (url, url.replace("http://", "https://")):
                    transport = self.proxy(port)
                    async with self.session(target, partner, transport=transport) as session:
                        await self.seen(OrderDocuments(session).download(demo_orders(1)[0], self.folder / "never"))
                    await transport.close()

    def proxy(self, port: int) -> AiohttpTransport:
        found = AiohttpTransport(proxy=f"http://user:{CANARIES['proxy password']}@127.0.0.1:{port}", timeouts=TIMEOUTS)
        self.places.look("reprs", f"{found!r} {found}")
        return found

    def look_at_databases(self) -> None:
        """While they are open, with what is not in the file itself yet."""
        files = [file for file in self.folder.iterdir() if ".db" in file.name]
        self.places.look_at_files("run files", files)

    async def all(self) -> None:
        async with AsyncExitStack() as stack:
            plain = await stack.enter_async_context(serve(self.sandbox, base_path="/api/v1"))
            issuing = await stack.enter_async_context(serve(Issuing(self.sandbox), base_path="/api"))
            await self.documents(plain)
            await self.provided(plain)
            await self.invoices(issuing)
            await self.proxied(plain)
        self.look_at_databases()
        self.places.look_at_files("reports", self.folder.glob("*.csv"))
        self.places.look_at_files("documents", (file for file in self.folder.glob("*/*") if file.is_file()))
        self.places.look_at_objects()


def auth_that_fails() -> OAuthClientCredentials:
    return OAuthClientCredentials(client_id="c", client_secret=CANARIES["wrong secret"], tenant_connection_code="t")


def telemetry() -> tuple[tuple[Observer, ...], Callable[[], str]]:
    """Let OpenTelemetry watch aiohttp's client and our events; the function gives all that it kept."""
    from opentelemetry import metrics, trace
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from invoicing_async.telemetry import OpenTelemetry

    spans, provider, reader = InMemorySpanExporter(), TracerProvider(), InMemoryMetricReader()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([reader]))
    AioHttpClientInstrumentor().instrument()

    def kept() -> str:
        measured = reader.get_metrics_data()
        told = (f"{span.to_json()} {span.events!r}" for span in spans.get_finished_spans())
        return "".join([*told, measured.to_json() if measured else ""])

    return (OpenTelemetry(), OpenTelemetry(client_spans=False)), kept


PLANTED = dict(
    zip(
        ("logs", "events", "errors", "tracebacks", "reprs", "run files", "reports", "documents", "telemetry"),
        [*CANARIES, "store token"],
        strict=True,
    )
)
"""Which secret a careless line puts into which place."""


def plant(place: str, work: Work) -> None:
    """Put a secret where it must not be, as a careless line would."""
    secret = CANARIES[PLANTED[place]]
    match place:
        case "logs":
            logging.getLogger("invoicing_async").debug("sent", extra={"headers": {"x": secret}})
        case "events":
            work.heard(DocumentSaved(order_id=secret, path=Path("x"), size=1))
        case "errors":
            work.places.look_at_error(ValueError(secret))
        case "tracebacks":
            try:
                json.loads("{" * len(secret))
            except ValueError as error:
                work.places.look_at_error(error)
        case "reprs":
            event = AttemptFailed(operation="x", path="/", attempt=1, error=TransportError(secret))
            work.places.look_at_objects([event])
        case "run files" | "reports" | "documents":
            file = work.folder / {"run files": "more.db-wal", "reports": "more.csv"}.get(place, "pdf/more.pdf")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"\x00left " + secret.encode() + b" right\x00")
        case "telemetry":
            from opentelemetry import trace

            with trace.get_tracer("test").start_as_current_span("x") as span:
                span.set_attribute("http.request.header.authorization", f"Basic {secret}")


def main(folder: str, how: str, *planted: str) -> Mapping[str, Any]:
    places = Places()
    logging.basicConfig(level=1, handlers=[Listening(places)])
    observers, kept = telemetry() if how == "watched" else ((), None)
    work = Work(Path(folder), places, observers)
    if planted:
        for place in PLANTED:
            plant(place, work)
        work.look_at_databases()
        places.look_at_files("reports", work.folder.glob("*.csv"))
        places.look_at_files("documents", work.folder.glob("*/*"))
    else:
        asyncio.run(work.all(), debug=False)
    if kept is not None:
        told = kept()
        assert planted or ("invoicing.operation" in told and "http.client.request.duration" in told)
        places.look("telemetry", told)
    return summary(places)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        print(json.dumps(main(*sys.argv[1:])))  # noqa: T201 - its one output
