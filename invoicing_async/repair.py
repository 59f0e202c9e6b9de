"""Repairing a run: many items in doubt are listed, looked up, answered and settled at once.

`entries`, `sheet_head` and `sheet_line` write items as a sheet that is filled in and read back by `read_answers`.
`settle` judges every answer against the run, and against the service if that can be asked, before it changes anything.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from errno import EEXIST
from hashlib import sha256
from os import PathLike
from pathlib import Path, PurePath
from unicodedata import normalize

from attrs import frozen

from ._core.clock import Clock
from ._core.error_words import words_of
from ._durable.doubts import lateness, left_at, raise_if_too_early, seconds_in_doubt
from ._durable.items import is_below, recorded_path, recorded_store
from ._durable.records import Change, NewDraft, SupersededError
from ._durable.sheet import (
    COLUMNS,
    Answer,
    AnswersError,
    Contents,
    Entry,
    contents,
    contents_of,
    entries,
    number_of,
    read_answers,
    sheet_head,
    sheet_line,
)
from ._durable.states import Event
from ._einvoices.poll_scheduler import Schedule
from ._einvoices.rules import KEY_LENGTH
from ._files.publish import Destination
from ._files.writer import DiskWriter
from .drafts import LineFault
from .errors import ApiError, AuthenticationError, InvoicingError, SessionError
from .invoices import AsyncInvoices
from .invoices._client import work_of
from .models import InvoiceRequest
from .runs import ExportTo, Intake, InvoiceRun, Item, LedgerReader, State
from .session import Sleep

__all__ = [
    "COLUMNS",
    "Answer",
    "AnswersError",
    "Contents",
    "Entry",
    "Finding",
    "Settled",
    "UnverifiedError",
    "contents",
    "entries",
    "export_again",
    "lateness",
    "note_unreadable",
    "read_answers",
    "rejected_codes",
    "retry_rejected",
    "settle",
    "sheet_head",
    "sheet_line",
    "too_early_for",
    "write_sheet",
]

_log = logging.getLogger("invoicing_async")

_NOT_FOUND = 404


class UnverifiedError(AnswersError):
    """The service does not know a request id that was answered, has another invoice under it, or could not be asked."""

    hint = "If you are sure all the same, take the request ids unasked: --unverified."


@frozen(kw_only=True)
class Finding:
    """What the service has under a request id, beside what the draft says."""

    request: InvoiceRequest
    draft: Contents
    found: Contents

    @property
    def faults(self) -> tuple[str, ...]:
        """What shows that it is another invoice; empty if nothing does."""
        return tuple(self.draft.differs(self.found))

    def json(self) -> dict[str, object]:
        """Return what was found as one flat object."""
        data = self.request.data
        return {
            "request_id": self.request.request_id,
            "status": str(self.request.status),
            "invoice_id": data and data.id,
            "authority_status": data and data.authority_status and str(data.authority_status),
            "buyer": self.found.buyer,
            "tax_code": self.found.tax_code,
            "amount": None if self.found.amount is None else f"{self.found.amount:f}",
        }


async def _find(invoices: AsyncInvoices, answer: Answer, item: Item) -> Finding | LineFault:
    """Ask the service for the id of an answer."""
    number = answer.request_id or ""
    try:
        request = await invoices.status(number)
    except (AuthenticationError, SessionError):
        raise
    except InvoicingError as error:
        unknown = isinstance(error, ApiError) and error.status == _NOT_FOUND
        message = f"the service knows no request {number}" if unknown else f"could not be asked for: {error}"
        return LineFault("", message, line=answer.line, column="request_id")
    found = Contents() if request.data is None else contents_of(request.data.raw, "invoice_lines")
    finding = Finding(request=request, draft=contents(item.payload), found=found)
    if finding.faults:
        message = f"{number} is another invoice than {item.key!r}: {'; '.join(finding.faults)}"
        return LineFault("", message, line=answer.line, column="request_id")
    return finding


@frozen
class Settled:
    """An item after an answer about it, and what the service had under the id, None if it was not asked.

    `changed` is false if the run knew the answer before, or somebody else has moved on with the item meanwhile.
    """

    item: Item
    finding: Finding | None = None
    changed: bool = True


async def settle(
    run: InvoiceRun,
    answers: Iterable[Answer],
    *,
    invoices: AsyncInvoices | None = None,
    clock: Clock | None = None,
) -> AsyncGenerator[Settled]:
    """Settle items in doubt by what was found at the service, and yield each as it is then recorded.

    With `invoices` the service is asked for each request id first. Every answer is judged before any is carried out:
    raises `AnswersError` with every fault for an unknown key, an item that is not in doubt, and an id that is another
    item's; `UnverifiedError` for an id that the service does not know, or under which it has another invoice;
    `ResolutionTooEarlyError` where not-created may not be said yet. Then nothing was changed. An answer that the run
    has already is no fault.
    """
    listed = tuple(answers)
    known, open_ = await _judged(run.ledger, listed)
    not_created = [item for answer, item in open_ if not answer.created]
    raise_if_too_early(not_created, lateness(run.ledger), run.ledger.now() if clock is None else clock.now())
    found = {} if invoices is None else await _found(invoices, open_)
    for item in known:
        yield Settled(item, changed=False)
    # The one sent last is the first to be told as not created: if that is not too early, none is.
    for answer, item in sorted(open_, key=lambda pair: (pair[0].created, -(left_at(pair[1]) or 0.0))):
        is_changed = True
        try:
            now = await run.resolve(
                item.key, created=answer.created, request_id=answer.request_id, attempt=item.attempt
            )
        except SupersededError as error:
            _log.warning("what was found out of %r is not recorded: %s", item.key, error)
            now, is_changed = await run.ledger.get(item.seq) or item, False
        yield Settled(now, found.get(item.seq), is_changed)


_Pair = tuple[Answer, Item]


async def _judged(ledger: LedgerReader, answers: tuple[Answer, ...]) -> tuple[list[Item], list[_Pair]]:
    """Hold every answer against the run: what it knows already, and what is to be done."""
    owners = await _owners(ledger, {answer.request_id.lower() for answer in answers if answer.request_id})
    known: list[Item] = []
    open_: list[_Pair] = []
    faults: list[LineFault] = []
    met: dict[int, Answer] = {}
    for answer in answers:
        item = await _item(ledger, answer)
        fault = _fault(answer, item, owners) or _met(answer, item, met)
        if fault is not None:
            faults.append(LineFault("", fault[1], line=answer.line, column=fault[0]))
        elif item is not None and item.state == State.IN_DOUBT:
            open_.append((answer, item))
        elif item is not None:
            known.append(item)
    if faults:
        raise AnswersError(faults)
    return known, open_


async def _item(ledger: LedgerReader, answer: Answer) -> Item | None:
    if answer.item is not None:
        return await ledger.get(answer.item)
    return await ledger.get(answer.key) or await ledger.get(normalize("NFC", answer.key))


def _fault(answer: Answer, item: Item | None, owners: Mapping[str, Item]) -> tuple[str, str] | None:
    """Say what of an answer cannot stand, as its column and why."""
    if item is None:
        return "key", f"this run has no {answer.key!r}"
    if answer.item is not None and normalize("NFC", answer.key) != normalize("NFC", item.key):
        cell, key = number_of(answer.key), number_of(item.key)
        if cell is None or cell != key:  # a spreadsheet drops zeros before a number
            text = f"item {answer.item} is {item.key!r}, not {answer.key!r}: a spreadsheet may have changed the key"
            return "key", text
    if item.state != State.IN_DOUBT:
        # One that stands as this very answer left it is no fault, so that a file may be given again.
        number = (answer.request_id or "").lower()
        is_same_id = item.request_id is not None and item.request_id.lower() == number
        if not (is_same_id if answer.created else item.state == State.NOT_SENT):
            return "answer", f"{item.key!r} is {item.state.replace('_', ' ')}, not in doubt"
    owner = owners.get((answer.request_id or "").lower())
    if owner is not None and owner.seq != item.seq:
        return "request_id", f"{answer.request_id} is the request of {owner.key!r}"
    return None


def _met(answer: Answer, item: Item | None, met: dict[int, Answer]) -> tuple[str, str] | None:
    first = met.setdefault(item.seq if item else 0, answer)
    return None if first is answer else ("key", f"{answer.key!r} stands in line {first.line} too")


async def _owners(ledger: LedgerReader, ids: set[str]) -> dict[str, Item]:
    """Return the items that have one of these request ids."""
    found: dict[str, Item] = {}
    if ids:
        async with aclosing(ledger.items()) as items:
            async for item in items:
                if item.request_id and item.request_id.lower() in ids:
                    found[item.request_id.lower()] = item
    return found


async def _found(invoices: AsyncInvoices, open_: list[_Pair]) -> dict[int, Finding]:
    """Ask the service for every id, many at once. Raises `UnverifiedError` with all that cannot stand."""
    findings: dict[int, Finding] = {}
    faults: list[LineFault] = []

    async def ask(pair: _Pair, _: Sleep) -> tuple[int, Finding | LineFault | BaseException]:
        return pair[1].seq, await _find(invoices, *pair)

    created = [pair for pair in open_ if pair[0].created]
    outcomes = work_of(invoices).each(created, ask, on_not_started=lambda pair, error: (pair[1].seq, error))
    async with aclosing(outcomes):
        async for seq, outcome in outcomes:
            if isinstance(outcome, Finding):
                findings[seq] = outcome
            elif isinstance(outcome, LineFault):
                faults.append(outcome)
    if faults:
        raise UnverifiedError(sorted(faults, key=lambda fault: fault.line))
    return findings


def too_early_for(item: Item, late: float, now: float) -> float:
    """Return the seconds for which an item in doubt may not be said to be not created; 0 if it may.

    `late` is the run's `lateness`, `now` is in epoch seconds.
    """
    return seconds_in_doubt(item, late, now)


async def retry_rejected(run: InvoiceRun, codes: Iterable[str] = ()) -> list[Item]:
    """Let every rejected item be sent again by the next run, or those that were refused with one of these codes.

    All of them or, after a crash, none. Returns them as they are then recorded.
    """
    wanted = frozenset(codes)
    async with aclosing(run.ledger.items((State.REJECTED,))) as items:
        chosen = [item.seq async for item in items if not wanted or item.code in wanted]
    await run.ledger.transition_many([Change(ref=seq, event=Event.RETRY_ASKED) for seq in chosen])
    return [item for seq in chosen if (item := await run.ledger.get(seq)) is not None]


async def rejected_codes(ledger: LedgerReader) -> Counter[str]:
    """Count the rejected items of a run by the code that they were refused with, "none" where there is none."""
    async with aclosing(ledger.items((State.REJECTED,))) as items:
        return Counter([item.code or "none" async for item in items])


async def write_sheet(ledger: LedgerReader, path: str | PathLike[str], states: Iterable[str]) -> int:
    """Write the items in these states as a sheet to a new file, whole or not at all, and return how many there are.

    Raises `FileExistsError` if there is a file: it may be filled in.
    """
    number, out, disk = 0, Path(path), DiskWriter()
    try:
        if await disk.run(out.exists):
            raise FileExistsError(EEXIST, os.strerror(EEXIST), str(out))
        spool = await disk.spool(out.parent)
        try:
            await spool.write([sheet_head().encode()])
            async with aclosing(entries(ledger, states)) as listed:
                async for entry in listed:
                    number += 1
                    await spool.write([sheet_line(entry).encode("utf-8", "backslashreplace")])
            await spool.publish(Destination(target=out, durable=True))
        finally:
            await spool.discard()
    finally:
        await disk.close()
    return number


async def note_unreadable(run: InvoiceRun, errors: Mapping[str, str]) -> tuple[Intake, frozenset[str]]:
    """Take in drafts that could not be read as invalid, by their keys, with what is wrong with each.

    So a run knows what of its input is to be corrected. Returns what became of them, and the keys that were taken: one
    that is no key, or that the run knows from a draft that can be sent, is not.
    """
    new = [
        NewDraft(key=key, payload=error, payload_sha256=sha256(error.encode()).hexdigest(), error=error)
        for key, error in errors.items()
        if await _is_free(run.ledger, key)
    ]
    return await run.ledger.add_drafts(new), frozenset(draft.key for draft in new)


async def _is_free(ledger: LedgerReader, key: str) -> bool:
    if not 0 < len(key) <= KEY_LENGTH or not key.isprintable():
        return False
    item = await ledger.get(key)
    return item is None or item.state == State.INVALID


async def export_again(
    run: InvoiceRun, invoices: AsyncInvoices, key: str, to: ExportTo, *, poller: Schedule | None = None
) -> bool:
    """Export anew an invoice whose file is missing or broken, to its recorded place; tell whether that was done.

    Where the recorded folder is gone and the run goes `to` another, it is saved there. What fails is recorded as the
    item's `error`.
    """
    item = await run.ledger.get(key)
    if item is None or item.path is None or item.invoice_id is None:
        return False
    path, store, to_folder = recorded_path(item), recorded_store(item), to.folder
    # Nothing in a store is replaced: what is missing comes back under its name, beside what is broken.
    stays = bool(store) or is_below(item.path, str(to_folder)) or path.parent.is_dir()
    name = path if store else PurePath(path.name)
    try:
        saved = await invoices.export(
            item.invoice_id,
            (store or path.parent) if stays else to_folder,
            format=path.suffix.removeprefix("."),
            name=name if stays else run.export_name(item, to),
            on_existing=("new name" if store else "replace") if stays else "keep",
            poller=poller,
        )
    except InvoicingError as error:
        if work_of(invoices).ends_batch(error):
            raise
        await run.ledger.transition(item.seq, Event.EXPORT_FAILED, error=words_of(error))
        return False
    where = saved.address if saved.store else str(saved.path.absolute())
    await run.ledger.transition(item.seq, Event.EXPORTED, path=where, size=saved.size, sha256=saved.sha256)
    return True
