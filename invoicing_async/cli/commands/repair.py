"""`runs resolve | retry | export | refresh`: what people say of a run's e-invoices, and what they need for that."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from math import ceil
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from attrs import frozen
from cyclopts import App, Parameter

from ...errors import ResolutionTooEarlyError
from ...invoices import AsyncInvoices
from ...repair import (
    Answer,
    AnswersError,
    Contents,
    Entry,
    Settled,
    UnverifiedError,
    entries,
    read_answers,
    retry_rejected,
    settle,
    sheet_head,
    sheet_line,
    write_sheet,
)
from ...runs import InvoiceRun, LedgerReader, Overview, RunKind, SqliteReader, State
from ..durable import entered
from ..exits import CommandError, Exit, checked
from ..input.ids import SOURCE, opened
from ..input.options import FLAG, Common, Pace
from ..input.settings import Settings
from ..run_summary import command
from ..summary import Account, carry_out, words
from ..terminal.output import Count, Screen, plain
from ..terminal.progress import Bar, live
from ..terminal.rows import REFRESHES, Row, item_row, refresh_row

__all__ = ["add_to"]

KEY = Parameter(allow_leading_hyphen=True)
Listed: TypeAlias = Literal[
    "planned", "not_sent", "submitted", "success", "failed", "rejected", "in_doubt", "invalid",
]  # fmt: skip


# -- resolve -----------------------------------------------------------------------------------------------------


async def resolve(
    file: str,
    key: Annotated[str | None, KEY] = None,
    /,
    *,
    as_: Annotated[Literal["created", "not-created"] | None, Parameter(name="--as")] = None,
    request_id: str | None = None,
    from_: Annotated[str | None, SOURCE, Parameter(name="--from")] = None,
    undo: Annotated[bool, FLAG] = False,
    unverified: Annotated[bool, FLAG] = False,
    pace: Pace | None = None,
    common: Common | None = None,
) -> int:
    """Say what became of e-invoices in doubt, after you looked them up at the service.

    One at a time with KEY and --as, or many with --from: `runs export FILE --state in_doubt --csv` writes the file
    that is filled in for that. The service is asked for each request id first, and what it has is shown beside the
    draft; an id that it does not know, or under which it has another invoice, is refused. Every answer is judged
    before anything is changed. What was created is polled by the next `runs resume`, what was not created is sent by
    it: be sure before you say so, or you make a second invoice of one that is there. It cannot be said before
    whatever was sent must have arrived. --undo takes an answer back, as long as nothing came of it.

    Exit code 0: done; 2: an answer cannot stand, could not be verified or comes too early, and nothing was changed.

    Parameters
    ----------
    file
        The run file.
    key
        The draft's key.
    as_
        What you found: it was created, or it was not.
    request_id
        With --as created: the request id of its submission.
    from_
        Read answers from this CSV, or - for stdin: columns key, answer (created or not-created) and request_id; a row
        without an answer is left as it is.
    undo
        Take back what was said of KEY: it is in doubt again.
    unverified
        Do not ask the service for the request ids; take them as they are.
    """
    common = common or Common()
    screen = Screen.of(common)
    _check_usage(key, as_, request_id, from_, undo=undo)
    if undo:
        return await _undone(screen, file, key or "")
    if from_ is not None:
        answers = _read(from_, screen)
    else:
        answers = (Answer(key=key or "", created=as_ == "created", request_id=request_id),)
    ask = not unverified and any(answer.created for answer in answers)
    settings = common.settings() if ask else None
    async with entered(InvoiceRun.open(file, create=False)) as run:
        if key is not None:
            await _standing(run, key, State.IN_DOUBT, "in doubt")
        return await _settled(run, answers, _Errand(screen, file, from_, settings, pace or Pace()))


@frozen
class _Errand:
    """What `resolve` was told: the file of answers, None for one answer; without `settings` no service is asked."""

    screen: Screen
    file: str
    answers: str | None
    settings: Settings | None
    pace: Pace


def _check_usage(key: str | None, as_: str | None, request_id: str | None, from_: str | None, *, undo: bool) -> None:
    """Raise `CommandError` for words that do not go together."""
    if from_ is not None:
        if key is not None or as_ is not None or request_id is not None or undo:
            raise CommandError("--from has all the answers: KEY, --as, --request-id and --undo do not go with it")
    elif key is None:
        raise CommandError("give a KEY, or --from ANSWERS.csv for many")
    elif undo:
        if as_ is not None or request_id is not None:
            raise CommandError("--undo takes an answer back: --as and --request-id do not go with it")
    elif as_ is None:
        raise CommandError("say what you found: --as created --request-id ID, or --as not-created")
    elif (as_ == "created") is (request_id is None):
        raise CommandError("--as created needs --request-id ID; --as not-created must not have one")
    elif request_id is not None:
        _check_id(request_id)


def _check_id(request_id: str) -> None:
    checked(lambda: read_answers(f"key,answer,request_id\nK,created,{request_id}\n".encode()), "--request-id")


def _read(where: str, screen: Screen) -> tuple[Answer, ...]:
    """Read a file of answers. Raises `CommandError` after telling every fault."""
    with opened(where) as file:
        data = file.read()
    try:
        answers = read_answers(data)
    except AnswersError as error:
        raise _refused(error, screen, where) from None
    if not answers:
        raise CommandError(f"{where} has no answer", hint="Fill in the columns answer and request_id.")
    return answers


def _refused(error: AnswersError, screen: Screen, where: str) -> CommandError:
    """Tell every fault in a line of its own, and give what ends the command below them."""
    for fault in error.faults:
        screen.err.print(plain(f"{where} {fault}"), markup=False, soft_wrap=True)
    return CommandError(f"nothing was changed: {len(error.faults):,} faults in {where}", hint=error.hint)


async def _settled(run: InvoiceRun, answers: tuple[Answer, ...], errand: _Errand) -> Exit:
    screen, done = errand.screen, Counter[str]()
    try:
        async with _asking(errand) as invoices, aclosing(settle(run, answers, invoices=invoices)) as settled:
            async for one in settled:
                done[one.item.state if one.changed else "known"] += 1
                _tell(screen, one)
    except AnswersError as error:
        if errand.answers is not None:
            raise _refused(error, screen, errand.answers) from None
        hint = error.hint if isinstance(error, UnverifiedError) else ""
        raise CommandError("; ".join(fault.message for fault in error.faults), hint=hint) from None
    except ResolutionTooEarlyError as error:
        raise CommandError(f"nothing was changed: {error} ({ceil(error.remaining)} s left)", hint=error.hint) from None
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not screen.json:
        if errand.answers is not None:
            screen.counts(f"Answers about {errand.file}", _counted(done))
        screen.say(f"\n Next\n   {command('runs', 'resume', errand.file)}")
    return Exit.DONE


def _counted(done: Counter[str]) -> Iterator[Count]:
    meanings = {
        "submitted": "created; `runs resume` waits for them",
        "not_sent": "not created; `runs resume` sends them",
        "known": "said before; nothing was changed",
    }
    for outcome, meaning in meanings.items():
        if done[outcome]:
            yield Count(words(outcome), f"{done[outcome]:,}", meaning)
    yield Count("total", f"{done.total():,}", style="bold")


def _tell(screen: Screen, settled: Settled) -> None:
    """Tell how an item stands now, with what the service has under its id beside the draft."""
    item, finding = settled.item, settled.finding
    screen.line(item_row(item) | ({} if finding is None else {"found": finding.json()}))
    if screen.json:
        return
    about = f", request {item.request_id}" if item.request_id else ""
    screen.say(f" {plain(item.key)} is {words(item.state)}{about}{'' if settled.changed else ' (said before)'}")
    if finding is not None:
        screen.say(f"   draft    {_in_words(finding.draft)}", "dim")
        screen.say(f"   service  {_in_words(finding.found)}, {plain(finding.request.status)}", "dim")


def _in_words(found: Contents) -> str:
    amount = None if found.amount is None else f"{found.amount:,f}"
    told = (("buyer", found.buyer), ("tax code", found.tax_code), ("code", found.customer), ("amount", amount))
    return plain(", ".join(f"{name} {value}" for name, value in told if value) or "nothing said of the invoice yet")


@asynccontextmanager
async def _asking(errand: _Errand) -> AsyncIterator[AsyncInvoices | None]:
    """Give the e-invoices of the service, None if it is not to be asked."""
    settings, pace = errand.settings, errand.pace
    if settings is None:
        yield None
        return
    limits, retry = checked(lambda: pace.limits, "pace"), checked(lambda: pace.retry, "pace")
    try:
        session = settings.invoices(limits=limits, retry=retry)
    except CommandError as error:
        error.hint = f"{error.hint} Or take the ids as they are, with --unverified.".strip()
        raise
    async with session:
        yield AsyncInvoices(session, names=settings.names(), endpoints=settings.endpoints())


async def _undone(screen: Screen, file: str, key: str) -> Exit:
    async with entered(InvoiceRun.open(file, create=False)) as run:
        try:
            item = await run.undo(key)
        except ValueError as error:
            raise CommandError(str(error)) from None
    screen.line(item_row(item))
    if not screen.json:
        show = command("runs", "show", file, "--state", "in_doubt")
        screen.say(f" {plain(item.key)} is {words(item.state)} again\n\n Next\n   {show}")
    return Exit.DONE


async def _standing(run: InvoiceRun, key: str, state: State, said: str) -> None:
    item = await run.ledger.get(key)
    if item is None:
        raise CommandError(f"this run has no {key!r}", hint=command("runs", "show", run.ledger.path, "--items"))
    if item.state != state:
        raise CommandError(f"{key!r} is {words(item.state)}, not {said}")


# -- retry -------------------------------------------------------------------------------------------------------


async def retry(
    file: str,
    key: Annotated[str | None, KEY] = None,
    /,
    *,
    state: Literal["rejected"] | None = None,
    code: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    common: Common | None = None,
) -> int:
    """Let e-invoices that the service rejected be sent again by the next `runs resume`: one by its key, or many.

    Order documents need no such word: every `runs resume` asks for what was deferred or failed.

    Parameters
    ----------
    file
        The run file.
    key
        The draft's key.
    state
        Without a key: all that are in this state.
    code
        With --state: only those that were refused with this code; may be given more than once.
    """
    screen = Screen.of(common or Common())
    if (key is None) is (state is None) or (code and state is None):
        raise CommandError("give a KEY, or --state rejected for all of them, with --code CODE for some of them")
    async with entered(InvoiceRun.open(file, create=False)) as run:
        if key is not None:
            await _standing(run, key, State.REJECTED, "rejected")
            items = [await run.retry(key)]
        else:
            items = await retry_rejected(run, code)
            if not items:
                raise CommandError(await _none_rejected(run, code))
    for item in items:
        screen.line(item_row(item))
        if not screen.json:
            screen.say(f" {plain(item.key)} is {words(item.state)}")
    if not screen.json:
        screen.say(f"\n {len(items):,} to be sent again\n\n Next\n   {command('runs', 'resume', file)}")
    return Exit.DONE


async def _none_rejected(run: InvoiceRun, codes: Iterable[str]) -> str:
    """Say why there is nothing to be tried again: what codes there are."""
    counts: Counter[str] = Counter()
    async with aclosing(run.ledger.items((State.REJECTED,))) as items:
        async for item in items:
            counts[item.code or "none"] += 1
    if not counts:
        return "nothing in this run is rejected"
    there = ", ".join(f"{code} ({number:,})" for code, number in counts.most_common())
    return f"nothing was rejected with {' or '.join(codes)}; the codes there are: {there}"


# -- export ------------------------------------------------------------------------------------------------------


async def export(
    file: str,
    out: Path | None = None,
    /,
    *,
    state: Annotated[tuple[Listed, ...], Parameter(negative="", show_default=False)] = ("in_doubt",),
    csv: Annotated[bool, FLAG] = False,
    common: Common | None = None,
) -> int:
    """Write the e-invoices in doubt as a table to be filled in and given back to `runs resolve FILE --from`.

    Each row has the buyer, tax code, amount (the sum of the lines before tax), when it was sent, and what the service
    said; `answer` (created or not-created) and `request_id` are left to be filled in. The table is CSV in UTF-8 with
    its mark; --json prints lines of JSON instead. The documents of finished invoices are saved by `runs resume FILE
    --export pdf --to DIR`.

    Parameters
    ----------
    file
        The run file.
    out
        Where to write it, a new file; stdout without.
    state
        The items in this state; may be given more than once.
    csv
        Write CSV, which is so anyway without --json.
    """
    screen = Screen.of(common or Common())
    if csv and screen.json:
        raise CommandError("--csv and --json exclude each other")
    async with entered(SqliteReader.read(file)) as ledger:
        if ledger.kind is not RunKind.INVOICES:
            raise CommandError(f"{file} is a run of order documents; this is for e-invoices")
        states = (await Overview.of(ledger)).recorded(state)
        number = await (_written(ledger, states, out) if out else _printed(ledger, states, screen))
    if out is not None:
        screen.say(f" {number:,} written to {out}\n\n When it is filled in")
        screen.say(f"   {command('runs', 'resolve', file, '--from', out)}")
    return Exit.DONE


async def _printed(ledger: LedgerReader, states: Sequence[str], screen: Screen) -> int:
    """Print a table as bytes, so that it is UTF-8 whatever the terminal is."""
    number = 0
    _put(screen, sheet_head(mark=not screen.out.is_terminal))
    async for entry in entries(ledger, states):
        number += 1
        screen.line(_entry_row(entry))
        _put(screen, sheet_line(entry))
    return number


def _put(screen: Screen, text: str) -> None:
    if not screen.json:
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()


def _entry_row(entry: Entry) -> Row:
    found = entry.contents
    amount = None if found.amount is None else f"{found.amount:f}"
    about = {"buyer": found.buyer, "tax_code": found.tax_code, "amount": amount}
    said = {name: getattr(entry, name) for name in ("sent_at", "http_status", "code", "said", "request_id")}
    named = " ".join(entry.named_ids) or None
    return {"item": entry.item, "key": entry.key, "state": entry.state, **about, **said, "named_ids": named}


async def _written(ledger: LedgerReader, states: Sequence[str], out: Path) -> int:
    """Write a table to a file, whole or not at all. Raises `CommandError` if there is one: it may be filled in."""
    try:
        return await write_sheet(ledger, out, states)
    except FileExistsError:
        raise CommandError(f"{out} is there already, and may be filled in", hint="Name another file.") from None
    except OSError as error:
        raise CommandError(f"cannot write {out}: {error.strerror or error}") from None


# -- refresh -----------------------------------------------------------------------------------------------------


async def refresh(
    file: str, /, *, report: Path | None = None, pace: Pace | None = None, common: Common | None = None
) -> int:
    """Ask the service again how every finished e-invoice stands with the tax authority, and record it.

    Nothing is submitted. Exit code 0: all stand; 1: some are refused by the authority, or could not be asked for; 2:
    usage, or another process holds the run; 3: stopped.

    Parameters
    ----------
    file
        The run file.
    report
        Write what was found of each to this file, CSV or JSON by its ending.
    """
    common, pace = common or Common(), pace or Pace()
    screen, settings = Screen.of(common), common.settings()
    limits, retry_policy = checked(lambda: pace.limits, "pace"), checked(lambda: pace.retry, "pace")
    settings.invoices(limits=limits, retry=retry_policy)

    async def work(account: Account) -> None:
        session = settings.invoices(limits=limits, retry=retry_policy, on_event=account.monitor)
        async with entered(InvoiceRun.open(file, create=False)) as run, session:
            account.taking.stop.then(run.stop)
            invoices = AsyncInvoices(session, names=settings.names(), endpoints=settings.endpoints())
            await _refresh(run, invoices, account)

    return await carry_out(REFRESHES, screen, work, report=report, resume=command("runs", "refresh", file))


async def _refresh(run: InvoiceRun, invoices: AsyncInvoices, account: Account) -> None:
    number = (await run.ledger.counts()).get(State.SUCCESS, 0)
    bar = Bar("E-invoices", number, lambda: account.settled, account.monitor.note)
    screen = account.screen
    async with live(screen.err, [bar], shown=screen.lively), aclosing(run.refresh(invoices)) as items:
        async for item in items:
            account.taking.taken += 1
            await account.add(refresh_row(item))
    account.taking.cut = account.taking.stop.asked and account.settled < number


async def accept_lost_log(file: str, /, *, common: Common | None = None) -> int:
    """Take a run whose write-ahead log is gone as it is: everything that may have been sent is in doubt.

    Only for a file that is refused because its log (FILE-wal) is damaged or not there, and can be had nowhere any more.
    What was taken in after the file was last whole is not known to it: look that up too before you give it again.

    Parameters
    ----------
    file
        The run file.
    """
    screen = Screen.of(common or Common())
    async with entered(InvoiceRun.open(file, create=False, accept_lost_log=True)) as run:
        counts = {state: count for state, count in (await run.ledger.counts()).items() if count}
    screen.line({"file": file, "counts": counts})
    if not screen.json:
        stand = ", ".join(f"{count:,} {words(State(state))}" for state, count in counts.items())
        screen.say(f" {plain(file)}: {stand}\n\n Next\n   {command('runs', 'show', file, '--state', 'in_doubt')}")
    return Exit.DONE


def add_to(app: App) -> None:
    """Put the commands into the app of run files."""
    for function in (resolve, retry, export, refresh, accept_lost_log):
        app.command(function)
