"""What users write, as type checkers must take it. Only names that users have, in the forms that are documented."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from decimal import Decimal
from pathlib import Path
from typing import assert_never
from uuid import UUID

from attrs import evolve

from invoicing_async import (
    ApiError,
    AsyncInvoices,
    Consumer,
    Deferred,
    DownloadOutcome,
    DraftError,
    Duplicate,
    Failed,
    HmacAuth,
    InDoubt,
    Invalid,
    InvoiceDraft,
    InvoiceLine,
    InvoiceRequest,
    InvoicingError,
    Limits,
    NotSent,
    NotStarted,
    OnExisting,
    OrderDocuments,
    OrderStatusError,
    PaymentMethod,
    Poller,
    PollTimeoutError,
    Rejected,
    RetryPolicy,
    Saved,
    SavedDocument,
    Session,
    Skipped,
    StaticToken,
    SubmissionInDoubtError,
    SubmitOutcome,
    Submitted,
    SubmitToTax,
    Timeouts,
    Unsettled,
    VatRate,
)
from invoicing_async.auth import Auth, Call
from invoicing_async.clock import Clock, RealClock
from invoicing_async.events import AttemptFailed, Event, RetryScheduled
from invoicing_async.runs import DocumentRun, InvoiceRun, Item
from invoicing_async.sandbox import Sandbox
from invoicing_async.transport import AiohttpTransport, Exchange, Request, Response, Transport

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def amounts() -> list[Decimal | None]:
    """Amounts are given as Decimal, int or digits in text, and are Decimal afterwards."""
    line = InvoiceLine(name="Tea", unit="cup", price="15000", quantity=2, tax_amount=Decimal("1.5"), amount=None)
    other = InvoiceLine(name="Tea", unit="cup", price=15000, quantity=Decimal(2), discount_amount="0", amount=30000)
    return [line.price, line.quantity, line.tax_amount, other.discount_amount, other.amount]


def choices(rate: VatRate, text: str) -> list[VatRate | None]:
    """A choice is given as the member or as its text, and None for none."""
    lines = [
        InvoiceLine(name="Tea", unit="cup", price=1, quantity=1, vat_rate=given) for given in (rate, text, "TEN", None)
    ]
    return [line.vat_rate for line in lines]


def drafts(line: InvoiceLine, by_name: Mapping[str, InvoiceLine]) -> list[InvoiceDraft]:
    """Lines are given as any iterable, and are a tuple afterwards."""
    first = InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=[line], consumer=Consumer(name="Ann"))
    more = InvoiceDraft(
        key="b",
        invoice_template_id=TEMPLATE,
        lines=(line for _ in range(2)),
        payment_method=PaymentMethod.CASH,
        submit_to_tax=SubmitToTax(emails=["a@b.test"], send_mail=True),
        extra={"note": {"nested": [1, "two"]}},
    )
    last = InvoiceDraft(
        key="c", invoice_template_id=TEMPLATE, lines=by_name.values(), payment_method="BANK_TRANSFER", extra={}
    )
    kept: tuple[InvoiceLine, ...] = more.lines
    return [first, evolve(last, key="d", lines=kept), evolve(last, has_tax_authority_code=False)]


async def ids_of(rows: list[int]) -> AsyncIterator[int]:
    """An order id may come from a database as it is."""
    for row in rows:
        yield row


async def downloads(session: Session, folder: Path, number: UUID) -> SavedDocument:
    """Order ids are text, UUIDs or ints, from any kind of iterable."""
    documents = OrderDocuments(session, content_types={"text/plain"})
    async with documents.open("a") as pdf:
        headers: dict[str, str] = pdf.headers
        async for chunk in pdf.chunks:
            print(len(chunk), headers)
    for ids in (["a", "b"], (7, number), {"a"}):
        async for outcome in documents.download_many(ids, folder, on_existing="replace"):
            print(told(outcome))
    async with aclosing(documents.download_many(ids_of([1]), str(folder), on_existing=OnExisting.KEEP)) as outcomes:
        async for outcome in outcomes:
            print(outcome.order_id)
            break
    return await documents.download(number, folder, layout="{date:%Y}/{order_id}")


def told(outcome: DownloadOutcome) -> str:
    """Every outcome has its own fields, and no other outcome is left."""
    match outcome:
        case Saved(order_id, document) | Skipped(order_id, document):
            return f"{order_id} {document.sha256} {document.size:,}"
        case Deferred(_, error):
            refusal: OrderStatusError = error
            return ", ".join(refusal.allowed_substatuses)
        case Failed(_, error):
            return failure(error)
        case Duplicate(order_id):
            return order_id
        case NotStarted(order_id, error):
            return f"{order_id} {error!r}"
        case _:
            assert_never(outcome)


def failure(error: InvoicingError | OSError | ValueError) -> str:
    if isinstance(error, InvoicingError):
        return f"{error.hint} {len(error.attempts)}"
    return str(error.errno) if isinstance(error, OSError) else str(error)


async def submissions(session: Session, drafted: list[InvoiceDraft]) -> AsyncGenerator[str]:
    """Drafts are submitted one by one or many at once."""
    invoices = AsyncInvoices(session, rounding=Decimal(1))

    async def note() -> None:
        print("about to leave")

    request = await invoices.submit(drafted[0], before=note)
    yield request.request_id
    async for outcome in invoices.submit_many(drafted, concurrency=4):
        yield fate_of(outcome)


def fate_of(outcome: SubmitOutcome) -> str:
    """A refusal is an answer, a doubt is its error, and a fault is a list of faults."""
    match outcome:
        case Submitted(draft, request):
            return f"{draft.key} {request.status}"
        case Rejected(_, error):
            refusal: ApiError = error
            return f"{refusal.status} {refusal.code}"
        case InDoubt(draft, error):
            doubt: SubmissionInDoubtError = error
            return f"{draft.key} {doubt.body_sha256} {doubt.request_ids}"
        case Invalid(_, error):
            faults: DraftError = error
            return "; ".join(f"{fault.path}: {fault.message}" for fault in faults.faults)
        case NotSent(draft, error):
            return f"{draft.key} {error}"
        case Duplicate(_, draft):
            return draft.key
        case _:
            assert_never(outcome)


async def waits(session: Session, number: UUID) -> InvoiceRequest:
    """A wait takes a poller or the waits themselves; what ends without an answer is no answer."""
    invoices = AsyncInvoices(session)
    async for done in invoices.wait_many([str(number), number], poller=Poller(first=0.1, timeout=None)):
        if isinstance(done, Unsettled):
            print(done.request_id, done.error)
        elif done.data is not None:
            saved = await invoices.export(done.data.id, "folder", format="xml", poller=[1, 2.5])
            print(saved.path)
    try:
        return await invoices.wait(number, poller=(1.0 for _ in range(10)))
    except PollTimeoutError as error:
        if error.last is None:
            raise
        return error.last


async def runs(session: Session, drafted: list[InvoiceDraft], ids: list[str]) -> list[Item]:
    """Runs take the same values."""
    async with InvoiceRun.open("run.db") as run:
        await run.add(drafted)
        items = [item async for item in run.run(AsyncInvoices(session), poller=Poller.adaptive())]
        items.append(await run.submit_one(drafted[0], AsyncInvoices(session)))
    async with DocumentRun.open(Path("documents.db"), folder="documents") as documents:
        await documents.add(ids)
        async for outcome in documents.download(OrderDocuments(session), verify=False):
            print(told(outcome))
    return items


class Rotating:
    """Credentials of one's own."""

    def ready(self, clock: Clock) -> bool:
        return clock.now() > 0

    async def prepare(self, call: Call, clock: Clock) -> None:
        await clock.sleep(0)

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        return {"Authorization": f"{request.method} {base_path} {now}"}

    def refused(self, sent: Mapping[str, str]) -> bool:
        return not sent


class Recorded:
    """A transport of one's own around another."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner

    def send(self, request: Request, exchange: Exchange) -> AbstractAsyncContextManager[Response]:
        print(request.method, request.path)
        return self._inner.send(request, exchange)

    async def close(self) -> None:
        await self._inner.close()


class StoppedClock(RealClock):
    """A clock of one's own."""

    def now(self) -> float:
        return 1.7e9

    async def sleep(self, seconds: float) -> None:
        print(seconds)


def observed(event: Event) -> None:
    """An observer gets any event."""
    match event:
        case RetryScheduled(operation=operation, delay=delay, reason=reason):
            print(operation, delay, reason)
        case AttemptFailed(error=error):
            print(error.hint)
        case _:
            print(event)


def credentials() -> Iterator[Auth]:
    """Each of these is an `Auth`."""
    sandbox = Sandbox()
    yield HmacAuth(**sandbox.credentials.partner())
    yield StaticToken("t")
    yield Rotating()


async def sessions(auth: Auth) -> bytes:
    """A session is set up by values, and a view of it has others."""
    transports: list[Transport | Callable[[], Transport] | None] = [
        None, Sandbox(), Recorded(Sandbox()), AiohttpTransport(proxy="http://proxy:3128"), AiohttpTransport,
    ]  # fmt: skip
    session = Session(
        "https://service.test/api/v1",
        auth=auth,
        retry=RetryPolicy(attempts=3, deadline=None),
        timeouts=Timeouts(connect=1),
        limits=Limits(concurrency=8, per_second=5, stop_after=None),
        transport=transports[0],
        clock=StoppedClock(),
        on_event=observed,
    )

    async def content(response: Response) -> bytes:
        return await response.read(1000)

    async with session:
        hasty = session.with_options(retry=RetryPolicy(deadline=10.0), auth=StaticToken("other"))
        request = Request(method="GET", path="/status")
        async with hasty.open(request, content) as opened:
            print(opened, session.health().ready, session.limits.concurrency)
        return await hasty.call(request, content, retry=RetryPolicy(attempts=1))
