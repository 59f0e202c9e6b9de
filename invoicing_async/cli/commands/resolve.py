"""`runs resolve`: what became of e-invoices in doubt, said one at a time or from a filled-in sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from math import ceil
from typing import Annotated, Literal

from attrs import frozen
from cyclopts import Parameter

from ...errors import ResolutionTooEarlyError
from ...invoices import AsyncInvoices
from ...repair import (
    Answer,
    AnswersError,
    Contents,
    Settled,
    UnverifiedError,
    read_answers,
    settle,
)
from ...reports import INVOICE_ITEMS, item_row
from ...runs import InvoiceRun, State
from ...settings import Settings, SettingsError
from ..durable import entered
from ..exits import CommandError, Exit, checked
from ..input.ids import SOURCE, opened
from ..input.options import FLAG, Common, RateOptions, RunFile
from ..run_summary import command
from ..summary import words
from ..terminal.output import Count, Output, plain

__all__ = ["KEY", "resolve", "standing"]

KEY: Parameter = Parameter(allow_leading_hyphen=True)


async def resolve(
    file: RunFile,
    key: Annotated[str | None, KEY] = None,
    /,
    *,
    as_: Annotated[Literal["created", "not-created"] | None, Parameter(name="--as")] = None,
    request_id: str | None = None,
    from_: Annotated[str | None, SOURCE, Parameter(name="--from")] = None,
    undo: Annotated[bool, FLAG] = False,
    unverified: Annotated[bool, FLAG] = False,
    pace: RateOptions | None = None,
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
    output = Output.of(common)
    _check_usage(key, as_, request_id, from_, undo=undo)
    if undo:
        return await _undone(output, file, key or "")
    if from_ is not None:
        answers = _read(from_, output)
    else:
        answers = (Answer(key=key or "", created=as_ == "created", request_id=request_id),)
    ask = not unverified and any(answer.created for answer in answers)
    settings = common.settings() if ask else None
    async with entered(InvoiceRun.open(file, create=False)) as run:
        if key is not None:
            await standing(run, key, State.IN_DOUBT, "in doubt")
        return await _settled(run, answers, _Resolving(output, file, from_, settings, pace or RateOptions()))


@frozen
class _Resolving:
    """The options of `resolve`: the file of answers, None for one answer; without `settings` no service is asked."""

    output: Output
    file: str
    answers: str | None
    settings: Settings | None
    pace: RateOptions


def _check_usage(key: str | None, as_: str | None, request_id: str | None, from_: str | None, *, undo: bool) -> None:
    """Raise `CommandError` for options that do not go together."""
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
        checked(lambda: read_answers(f"key,answer,request_id\nK,created,{request_id}\n".encode()), "--request-id")


def _read(where: str, output: Output) -> tuple[Answer, ...]:
    """Read a file of answers. Raises `CommandError` after telling every fault."""
    with opened(where) as file:
        data = file.read()
    try:
        answers = read_answers(data)
    except AnswersError as error:
        raise _refused(error, output, where) from None
    if not answers:
        raise CommandError(f"{where} has no answer", hint="Fill in the columns answer and request_id.")
    return answers


def _refused(error: AnswersError, output: Output, where: str) -> CommandError:
    """Print every fault in a line of its own; return the error that ends the command."""
    for fault in error.faults:
        output.err.print(plain(f"{where} {fault}"), markup=False, soft_wrap=True)
    return CommandError(f"nothing was changed: {len(error.faults):,} faults in {where}", hint=error.hint)


async def _settled(run: InvoiceRun, answers: tuple[Answer, ...], context: _Resolving) -> Exit:
    output, done = context.output, Counter[str]()
    try:
        async with _asking(context) as invoices, aclosing(settle(run, answers, invoices=invoices)) as settled:
            async for one in settled:
                done[one.item.state if one.changed else "known"] += 1
                _tell(output, one)
    except AnswersError as error:
        if context.answers is not None:
            raise _refused(error, output, context.answers) from None
        hint = error.hint if isinstance(error, UnverifiedError) else ""
        raise CommandError("; ".join(fault.message for fault in error.faults), hint=hint) from None
    except ResolutionTooEarlyError as error:
        raise CommandError(f"nothing was changed: {error} ({ceil(error.remaining)} s left)", hint=error.hint) from None
    except SettingsError:
        raise
    except ValueError as error:
        raise CommandError(str(error)) from None
    if not output.json:
        if context.answers is not None:
            meanings = {
                "submitted": "created; `runs resume` waits for them",
                "not_sent": "not created; `runs resume` sends them",
                "known": "said before; nothing was changed",
            }
            rows = [Count(words(end), f"{done[end]:,}", meaning) for end, meaning in meanings.items() if done[end]]
            output.counts(f"Answers about {context.file}", [*rows, Count("total", f"{done.total():,}", style="bold")])
        output.say(f"\n Next\n   {command('runs', 'resume', context.file)}")
    return Exit.DONE


def _tell(output: Output, settled: Settled) -> None:
    """Tell how an item stands now, with what the service has under its id beside the draft."""
    item, finding = settled.item, settled.finding
    output.line(INVOICE_ITEMS.whole(item_row(item)) | {"found": finding and finding.json()})
    if output.json:
        return
    about = f", request {item.request_id}" if item.request_id else ""
    output.say(f" {plain(item.key)} is {words(item.state)}{about}{'' if settled.changed else ' (said before)'}")
    if finding is not None:
        output.say(f"   draft    {_in_words(finding.draft)}", "dim")
        output.say(f"   service  {_in_words(finding.found)}, {plain(finding.request.status)}", "dim")


def _in_words(found: Contents) -> str:
    amount = None if found.amount is None else f"{found.amount:,f}"
    told = (("buyer", found.buyer), ("tax code", found.tax_code), ("code", found.customer), ("amount", amount))
    return plain(", ".join(f"{name} {value}" for name, value in told if value) or "nothing said of the invoice yet")


@asynccontextmanager
async def _asking(context: _Resolving) -> AsyncIterator[AsyncInvoices | None]:
    """Return the e-invoices of the service, None if it is not to be asked."""
    settings, pace = context.settings, context.pace
    if settings is None:
        yield None
        return
    try:
        session = settings.invoices(pace)
    except SettingsError as error:
        error.hint = f"{error.hint} Or take the ids as they are, with --unverified.".strip()
        raise
    async with session:
        yield settings.e_invoices(session)


async def _undone(output: Output, file: str, key: str) -> Exit:
    async with entered(InvoiceRun.open(file, create=False)) as run:
        try:
            item = await run.undo(key)
        except ValueError as error:
            raise CommandError(str(error)) from None
    output.line(INVOICE_ITEMS.whole(item_row(item)))
    if not output.json:
        show = command("runs", "show", file, "--state", "in_doubt")
        output.say(f" {plain(item.key)} is {words(item.state)} again\n\n Next\n   {show}")
    return Exit.DONE


async def standing(run: InvoiceRun, key: str, state: State, said: str) -> None:
    """Raise `CommandError` unless the run has an item of this key in this state."""
    item = await run.ledger.get(key)
    if item is None:
        raise CommandError(f"this run has no {key!r}", hint=command("runs", "show", run.ledger.name, "--items"))
    if item.state != state:
        hint = "That is final. Submit the corrected invoice under a new key." if item.state == State.FAILED else ""
        raise CommandError(f"{key!r} is {words(item.state)}, not {said}", hint=hint)
