"""What a run file holds, as values: items, drafts, changes, journal entries, pauses and holders; and its errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from attrs import field, frozen

from .._values.moments import moment_words
from ..errors import InvoicingError, Sent
from .states import DocumentState, Event, RunKind, State

__all__ = [
    "Change",
    "DamagedRunError",
    "DraftConflictError",
    "Holder",
    "Intake",
    "Item",
    "JournalEntry",
    "LedgerAwayError",
    "LedgerSchemaError",
    "LedgerServerError",
    "Moved",
    "NewDraft",
    "Pause",
    "RequestIdTakenError",
    "RunChangedError",
    "RunFileError",
    "RunHaltedError",
    "RunLockedError",
    "RunMovedError",
    "RunPausedError",
    "SupersededError",
    "json_text",
    "one_line",
    "quote",
    "states_of",
]

SHOWN = 10
"""Keys that the text of an error names."""


class RunFileError(InvoicingError):
    """A run file cannot be used: not ours, of another kind or version, or closed. It was not changed."""

    hint: str = "Name the run's own file: with another one every draft of the run would be sent again."


class DamagedRunError(RunFileError):
    """A run file is damaged, or its write-ahead log is gone. Nothing was sent and nothing was changed."""

    hint: str = (
        "Put the file and its log (FILE-wal) back as they were, from a copy if need be. A new run file would send "
        "again all that this one has sent; what it sent must be looked up at the service first."
    )


class RunChangedError(RunFileError):
    """Somebody else changed the run file while it was held: nothing more is done with it."""

    hint: str = "Find out what else works on the file; then go on with `runs resume`, which reads it anew."


class LedgerServerError(RunFileError):
    """The database that a run is kept in cannot be used: not found, not allowed, or not as it must be."""

    hint: str = "Mend what the message says of the database, or name another one; nothing was sent."


class LedgerSchemaError(LedgerServerError):
    """The tables of the database are not there, or not of a version that this program knows."""

    hint: str = "Bring the database up to date with `invoicing-async ledger migrate`, or install a newer version."


class LedgerAwayError(LedgerServerError):
    """The database that a run is kept in takes no work at this moment: lost, starting, full or read-only.

    It may come back by itself, and then everything goes on.
    """

    hint: str = "Wait until the database is back; what was recorded is there, and what was not is done again."


class RequestIdTakenError(InvoicingError, ValueError):
    """A request id that another item of the run has: one request makes one invoice. `key` is the other item's."""

    hint: str = "Look both up at the service; each invoice has a request id of its own."

    def __init__(self, message: str = "", *, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class RunLockedError(RunFileError):
    """Another process holds the run file. `pid`, `host` and `since` name it; None or empty if it has not said."""

    hint: str = "Wait until that process ends, or stop it; a run file has one writer at a time."

    def __init__(self, message: str = "", *, pid: int | None = None, host: str = "", since: str = "") -> None:
        super().__init__(message)
        self.pid = pid
        self.host = host
        self.since = since


class RunMovedError(RunFileError):
    """The run of a file was carried over to a server, and goes on there. `to` is its address."""

    hint: str = "Go on with the run where it is now: the file only says how it stood when it was carried over."

    def __init__(self, message: str = "", *, to: str = "") -> None:
        super().__init__(message)
        self.to = to


class SupersededError(InvoicingError):
    """An event came for an item that somebody else has moved on with; it was not applied, and nothing is wrong.

    That an attempt was accepted is kept all the same, as the item's `other_request_id`; then there may be two invoices.
    `key` is the item's, `seq` its number.
    """

    hint: str = "Read the item: it is as another worker, or a person, has left it."
    sent: Sent = "no"

    def __init__(self, message: str = "", *, key: str = "", seq: int = 0) -> None:
        super().__init__(message)
        self.key = key
        self.seq = seq


class RunPausedError(RunFileError):
    """The run is paused: nothing of it is sent until it goes on. What is not sent stays as it is."""

    hint: str = "Let it go on with `runs unpause`."
    sent: Sent = "no"


class RunHaltedError(RunFileError):
    """The run is halted: its database came back older than what was recorded in it, so nobody knows what was sent.

    Nothing of it is sent until a person has said since when everything is in doubt.
    """

    hint: str = "Find out since when records are missing; then `runs unhalt RUN --doubt-since TIME`."
    sent: Sent = "no"


class DraftConflictError(InvoicingError):
    """Drafts bear keys that this run knows with other content; nothing of the command was taken in.

    `keys` are all of them, in the order of the input. A key is submitted once per run file, ever.
    """

    hint: str = "Give a changed invoice a new key, or submit it to another run file."

    def __init__(self, keys: tuple[str, ...] = ()) -> None:
        named = ", ".join(repr(key) for key in keys[:SHOWN])
        more = f" and {len(keys) - SHOWN:,} more" if len(keys) > SHOWN else ""
        super().__init__(f"known in this run with other content: {named}{more}")
        self.keys = keys


@frozen
class Item:
    """One item of a run as last recorded.

    `seq` counts from 1 in the order of the input and pages through a run; `key` is the order id or the draft's key;
    `state` a value of `State` or `DocumentState`. `attempt` counts intents, or the tries of a download. `path`, `size`
    in bytes and `sha256` are of the file on disk (an invoice's: the exported one). `error` is one line, `code` the
    service's. `result` is the last answer as JSON text. `sent_at` is when the last intent was recorded (after a
    lost log: when that was found), `updated` the last change, in epoch seconds. `payload`, the draft's JSON text, is
    there only when it was asked for. `other_request_id` is that of another attempt which the service accepted after
    this item had moved on: there may be two invoices, and it is never sent again.
    """

    seq: int
    key: str
    state: str
    attempt: int = 0
    request_id: str | None = None
    invoice_id: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    code: str | None = None
    error: str | None = None
    result: str | None = None
    payload_sha256: str | None = None
    sent_at: float | None = None
    updated: float = 0.0
    payload: str | None = field(default=None, repr=False)
    other_request_id: str | None = None


@frozen(kw_only=True)
class NewDraft:
    """A draft to be taken in: its JSON text and the digest of it. With `error` it is taken in as invalid."""

    key: str
    payload: str = field(repr=False)
    payload_sha256: str
    error: str | None = None


@frozen(kw_only=True)
class Intake:
    """The counts of the input of one command: `given` = `added` + `known` + `duplicates`.

    `known` were in the run before; `duplicates` stood in this input more than once, the first not counted.
    """

    given: int
    added: int
    known: int
    duplicates: int


@frozen(kw_only=True)
class Change:
    """An event of one invoice item, with what is learned from it.

    `ref` is the item's `seq` or its key. `error` and `code` replace what stood there, None included; the others
    are kept when None. `path`, `size` and `sha256` come with `Event.EXPORTED`. `attempt` is the attempt that an answer
    is of, or that an intent follows (see `fence`); None if it is not known, and then the state alone decides.
    """

    ref: int | str
    event: Event
    request_id: str | None = None
    invoice_id: str | None = None
    result: str | None = None
    code: str | None = None
    error: str | None = None
    path: str | None = None
    size: int | None = None
    sha256: str | None = None
    attempt: int | None = None


@frozen
class JournalEntry:
    """One line of the journal: the event of an item (by its `seq`), when in epoch seconds, and what was learned."""

    seq: int
    item: int
    event: Event
    at: float
    detail: Mapping[str, object]


@frozen
class Pause:
    """A pause of the calls of one `operation`, in epoch seconds.

    `until` is its end if `is_over`, else when it was last known to go on: it was given up, or its process died. It is
    never before `begun`, whatever was done to the clock meanwhile.
    """

    operation: str
    begun: float
    until: float
    is_over: bool = False

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "until", max(self.until, self.begun))


@frozen
class Moved:
    """The address that the run of a file was carried over to; it may not have come there unless it `is_done`."""

    to: str
    is_done: bool


@frozen
class Holder:
    """The process that works on a run: as it said itself, None or empty where it has not."""

    pid: int | None
    host: str
    since: str

    def __str__(self) -> str:
        if self.pid is None:
            return "another process"
        since = self.since
        with suppress(ValueError, OverflowError):  # whatever stands in the note of another version is shown as it is
            since = moment_words(datetime.fromisoformat(since).timestamp())
        return f"process {self.pid} on {self.host} since {since}"


def states_of(kind: RunKind) -> tuple[State, ...] | tuple[DocumentState, ...]:
    return tuple(State) if kind is RunKind.INVOICES else tuple(DocumentState)


def one_line(text: str | None) -> str | None:
    return None if text is None else " ".join(text.split())[:1000]


quote = json.encoder.encode_basestring


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def json_text(value: Mapping[str, Any]) -> str:
    return _encode(dict(value))
