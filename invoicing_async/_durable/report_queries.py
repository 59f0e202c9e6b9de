"""What a report says of a run file, read at one moment, also while another process works on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..models import AuthorityStatus
from .answers import authority_status
from .figures import Durations, Reason, RunFigures
from .queries import count_states, read_items
from .records import Item, Pause
from .report_parts import (
    DOCUMENT_NUMBERED,
    EVENT_NUMBERED,
    LISTED,
    ROWS,
    STATES_AMISS,
    WORDINGS,
    Latencies,
    frequent_reasons,
    joined_pauses,
    timeline_of,
)
from .schema import BARE
from .states import DocumentState, RunKind, State
from .timeline import Moments, Timeline
from .transaction import Transaction

__all__ = ["read_figures", "read_oldest", "read_pauses", "read_timeline"]

_JOURNAL = f"SELECT item, {EVENT_NUMBERED}, at FROM journal WHERE item BETWEEN 1 AND ? ORDER BY seq"  # noqa: S608 - made of constants
_RECORDED = f"SELECT seq, {DOCUMENT_NUMBERED}, updated FROM items WHERE state <> '{DocumentState.PLANNED.value}'"  # noqa: S608 - made of constants


def read_figures(transaction: Transaction, kind: RunKind) -> RunFigures:
    """Read everything at one moment."""
    pauses = read_pauses(transaction)
    latencies = Latencies(_last(transaction))
    timeline = _timeline(transaction, kind, pauses, latencies)
    authority = Counter(_authority(transaction)) if kind is RunKind.INVOICES else Counter[str]()
    done, lost = State.SUCCESS.value, "i.state = ? AND i.path IS NULL AND i.error IS NOT NULL"
    return RunFigures(
        kind=kind,
        counts=count_states(transaction, kind),
        timeline=timeline,
        pauses=pauses,
        answered=Durations.of(latencies.answered),
        settled=Durations.of(latencies.settled),
        reasons=_reasons(transaction, kind),
        authority=authority,
        listed={
            state.value: tuple(read_items(transaction, (state.value,), 0, LISTED, payload=False))
            for state in STATES_AMISS[kind]
        },
        refused=tuple(_refused(transaction)) if any(map(AuthorityStatus.refuses, authority)) else (),
        not_exported=tuple(
            Item(*row) for row in transaction.execute(f"{BARE} WHERE {lost} ORDER BY i.seq LIMIT {LISTED}", (done,))
        ),
        lost_exports=int(transaction.one(f"SELECT count(*) FROM items AS i WHERE {lost}", done)),  # noqa: S608 - constant
        without_file=int(transaction.one("SELECT count(*) FROM items WHERE state = ? AND path IS NULL", done)),
        size=int(transaction.one("SELECT sum(size) FROM items WHERE path IS NOT NULL") or 0),
        oldest=read_oldest(transaction),
    )


def read_timeline(transaction: Transaction, kind: RunKind) -> Timeline:
    """Read what happened when."""
    return _timeline(transaction, kind, read_pauses(transaction), None)


def read_oldest(transaction: Transaction) -> Item | None:
    """Read what has been on its way, or with the service, for the longest time; of what is on its way first."""
    for state in (State.SENDING, State.SUBMITTED):
        row = transaction.execute(f"{BARE} WHERE i.state = ? ORDER BY i.sent_at, i.seq LIMIT 1", (state.value,))
        if found := row.fetchone():
            return Item(*found)
    return None


def _timeline(
    transaction: Transaction, kind: RunKind, pauses: tuple[Pause, ...], latencies: Latencies | None
) -> Timeline:
    moments = Moments()
    is_journal = kind is RunKind.INVOICES
    cursor = transaction.execute(_JOURNAL, (_last(transaction),)) if is_journal else transaction.execute(_RECORDED)
    while rows := cursor.fetchmany(ROWS):
        moments.take(rows)
        if latencies is not None and is_journal:
            latencies.take(rows)
    return timeline_of(moments, kind, pauses)


def _last(transaction: Transaction) -> int:
    return int(transaction.one("SELECT max(seq) FROM items") or 0)


def read_pauses(transaction: Transaction) -> tuple[Pause, ...]:
    if transaction.one("SELECT 1 FROM sqlite_master WHERE name = 'pauses'") is None:
        return ()  # a run of before, that was not opened for writing since
    rows = transaction.execute("SELECT operation, begun, until, is_over FROM pauses")
    return joined_pauses(Pause(operation, begun, until, bool(is_over)) for operation, begun, until, is_over in rows)


def _authority(transaction: Transaction) -> Iterator[str]:
    """Yield how each finished invoice stands with the tax authority, as far as the service said."""
    rows = transaction.execute(
        "SELECT seq, state, request_id, result FROM items WHERE state = ?", (State.SUCCESS.value,)
    )
    for seq, state, request_id, result in rows:
        status = authority_status(Item(seq, "", state, request_id=request_id, result=result))
        if status is not None:
            yield status


def _refused(transaction: Transaction) -> Iterator[Item]:
    found = 0
    for row in transaction.execute(f"{BARE} WHERE i.state = ? ORDER BY i.seq", (State.SUCCESS.value,)):
        item = Item(*row)
        if AuthorityStatus.refuses(authority_status(item)):
            yield item
            found += 1
            if found == LISTED:
                return


def _reasons(transaction: Transaction, kind: RunKind) -> tuple[Reason, ...]:
    """Return the most frequent reasons of what is amiss, state by state; what is beyond them is not looked through."""
    states = [state.value for state in STATES_AMISS[kind]]
    marks = ",".join("?" * len(states))
    sql = (
        f"SELECT state, code, replace(error, char(39) || key || char(39), '…') AS said, count(*) AS number FROM items "  # noqa: S608 - marks
        f"WHERE state IN ({marks}) GROUP BY state, code, said ORDER BY number DESC, said LIMIT {WORDINGS}"
    )
    return frequent_reasons(transaction.execute(sql, states))
