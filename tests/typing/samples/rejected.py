"""What users may write by mistake, as type checkers must refuse it: every line marked wrong, and no other."""

from __future__ import annotations

from pathlib import Path

from invoicing_async import (
    AsyncInvoices,
    Consumer,
    Deferred,
    DownloadOutcome,
    Failed,
    HmacAuth,
    InDoubt,
    InvoiceDraft,
    InvoiceLine,
    Limits,
    OrderDocuments,
    Poller,
    Rejected,
    RetryPolicy,
    Session,
    StaticToken,
    SubmitOutcome,
    SubmitToTax,
    Timeouts,
    Unsettled,
)
from invoicing_async.events import Event, Paused
from invoicing_async.runs import DocumentRun, InvoiceRun

TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def values(line: InvoiceLine) -> None:
    InvoiceLine(name="Tea", unit="cup", price=1.5, quantity=2)  # wrong: floats are not exact
    InvoiceLine(name="Tea", unit="cup", price=None, quantity=2)  # wrong: required
    InvoiceLine(name="Tea", unit="cup", price=1, quantity=b"2")  # wrong: bytes are no digits
    InvoiceLine(name="Tea", unit="cup", price=1)  # wrong: no quantity
    InvoiceLine(name=7, unit="cup", price=1, quantity=2)  # wrong: a name is text
    InvoiceLine(name="Tea", unit="cup", price=1, quantity=2, vat_rate=10)  # wrong: the table has names
    InvoiceLine("Tea", "cup", 1, 2)  # wrong: by name only
    InvoiceLine(name="Tea", unit="cup", price=1, quantity=2, is_promotion="no")  # wrong: a flag is a bool
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=line)  # wrong: one line is no list
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=["Tea"])  # wrong: a line is an InvoiceLine
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=None)  # wrong: required
    InvoiceDraft(key=1, invoice_template_id=TEMPLATE, lines=[line])  # wrong: a key is text
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=[line], consumer="Ann")  # wrong: a Consumer
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=[line], note="x")  # wrong: not a field; see extra
    InvoiceDraft(key="a", invoice_template_id=TEMPLATE, lines=[line], payment_method=1)  # wrong: the table has names
    SubmitToTax(emails=[1])  # wrong: an address is text
    Consumer(phone=5)  # wrong: a phone number is text
    line.price = 2  # wrong: a value is frozen
    text: str = line.price  # wrong: it is a Decimal
    print(text)


def settings() -> None:
    Session("https://service.test")  # wrong: no auth
    Session("https://service.test", auth="token")  # wrong: an Auth
    Session("https://service.test", StaticToken("t"))  # wrong: by name only
    RetryPolicy(5)  # wrong: by name only
    Timeouts(connect="1")  # wrong: seconds
    Limits(concurency=8)  # wrong: a typing mistake
    Poller(first=None)  # wrong: seconds
    HmacAuth("p", "s")  # wrong: by name only
    Session("https://service.test", auth=StaticToken("t"), on_event=observed)  # wrong: it takes one kind of event
    Session("https://service.test", auth=StaticToken("t"), transport="http://proxy:3128")  # wrong: a Transport


def observed(event: Paused) -> None:
    print(event.next_probe)


def of_event(event: Event) -> str:
    return event.call_id  # wrong: not every event is of a call


async def calls(session: Session, folder: Path, line: InvoiceLine) -> None:
    documents = OrderDocuments(session)
    await documents.download(None, folder)  # wrong: no id
    await documents.download(7.0, folder)  # wrong: a float is no id
    await documents.download(b"a", folder)  # wrong: nor are bytes
    documents.download_many([None], folder)  # wrong: no id
    documents.download_many(7, folder)  # wrong: several ids
    documents.download_many(["a"], folder, layout=7)  # wrong: a Layout or its text
    OrderDocuments("https://service.test")  # wrong: a Session
    invoices = AsyncInvoices(session, rounding=1.0)  # wrong: floats are not exact
    await invoices.submit(line)  # wrong: a draft
    invoices.submit_many([line])  # wrong: drafts
    await invoices.wait(7)  # wrong: an id of the service is text or a UUID
    await invoices.wait("a", poller="fast")  # wrong: a Poller or seconds
    done = [one async for one in invoices.wait_many(["a"])]
    print(done[0].reason)  # wrong: an Unsettled has none
    async with DocumentRun.open("a.db") as run:
        run.download(invoices)  # wrong: documents are had from OrderDocuments
    async with InvoiceRun.open("a.db") as of_invoices:
        await of_invoices.submit_one(line, invoices)  # wrong: a draft
        await of_invoices.resolve("a")  # wrong: created or not


def inside(session: Session, documents: OrderDocuments, invoices: AsyncInvoices) -> None:
    session.limits = Limits()  # wrong: read only
    print(session.governor)  # wrong: not for users
    print(session.admission)  # wrong: not for users
    print(session.transport)  # wrong: not for users
    print(session.tell)  # wrong: not for users
    print(documents.saver)  # wrong: not for users
    print(documents.ends_batch)  # wrong: not for users
    print(invoices.submit_dumped)  # wrong: not for users
    print(invoices.each)  # wrong: not for users


def outcomes(outcome: DownloadOutcome, submitted: SubmitOutcome, unsettled: Unsettled) -> None:
    print(outcome.document)  # wrong: only what was saved has one
    match outcome:
        case Deferred(_, error):
            print(error.errno)  # wrong: a refusal, no trouble with the disk
        case Failed(_, error):
            print(error.attempts)  # wrong: trouble with the disk has none
        case _:
            pass
    match submitted:
        case Rejected(_, error):
            print(error.faults)  # wrong: the service's refusal, not the draft's faults
        case InDoubt(_, error):
            print(error.retry_after)  # wrong: a doubt is no answer
        case _:
            pass
    print(unsettled.error.request_id)  # wrong: only a PollTimeoutError has one
