"""Transitions of items: judged by the database, many in one statement, and what is told of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen
from psycopg.errors import UniqueViolation

from ..fence import fenced
from ..records import Change, RequestIdTakenError, RunHaltedError, RunPausedError, SupersededError, one_line, quote
from ..states import NEEDS_REQUEST_ID, Event, State, next_state
from .arrays import array
from .session import Session, TurnLostError
from .statements import CHANGE, CHANGE_WITHIN, KEY_OF_SEQ, OWNER_OF_REQUEST, SEQ_OF_KEY

__all__ = ["TOGETHER", "Refusal", "change_in_turn", "change_items", "find_seq", "refused", "refused_by_owner"]

TOGETHER = 1000
"""The most items of one statement."""

_TEXT = {event: event.value for event in Event}
_STATES = {state.value: state for state in State}
_NOT_DONE = frozenset({Event.INTENT, Event.POLL_NEW})
"""Events that bring an item no nearer to its end, and so do not count for a worker's rate."""


@frozen
class Refusal:
    """Why a change was not made, and where its item stood: no state if there is none."""

    why: str
    state: State | None
    attempt: int

    @classmethod
    def read(cls, told: str) -> Refusal:
        """Read it as `CHANGE` tells it."""
        why, state, attempt = told.split(" ")
        return cls(why, _STATES.get(state), int(attempt))


async def find_seq(session: Session, ref: int | str) -> int:
    """Return the number of an item. Raises `ValueError` if the run has none with this key."""
    if isinstance(ref, int):
        return ref
    row = await session.row(SEQ_OF_KEY, session.run, ref)
    if row is None:
        raise ValueError(f"this run has no item {ref!r}")
    return int(row[0])


async def change_items(
    session: Session, seqs: Sequence[int], changes: Sequence[Change], *, within: bool = False
) -> list[State | Refusal]:
    """Make changes of distinct items: as a transaction of its own, or `within` one. Return what came of each."""
    done = sum(change.event not in _NOT_DONE for change in changes)
    clock = session.clock
    asked = clock.host.now()
    row = await session.row(
        CHANGE_WITHIN if within else CHANGE,
        session.run,
        session.worker,
        session.number,
        clock.parameter(),
        done,
        *_columns(seqs, changes),
    )
    if row is None or row[2] is None or not row[0]:
        raise TurnLostError
    clock.learn(row[1], asked=asked)
    return [_STATES.get(told) or Refusal.read(told) for told in row[2].split(",")]


def _columns(seqs: Sequence[int], changes: Sequence[Change]) -> list[str]:
    """Return the arrays of `CHANGE`."""
    return [
        array(seqs),
        # An event that lacks its request id is sent as none, which no rule allows.
        array(["" if _lacks_request_id(change) else _TEXT[change.event] for change in changes]),
        array([change.attempt for change in changes]),
        array([change.request_id for change in changes]),
        array([change.invoice_id for change in changes]),
        array([change.result for change in changes]),
        array([change.code for change in changes]),
        array([one_line(change.error) for change in changes]),
        array([change.path for change in changes]),
        array([change.size for change in changes]),
        array([change.sha256 for change in changes]),
        array([_detail(change) for change in changes]),
    ]


def _lacks_request_id(change: Change) -> bool:
    return not change.request_id and change.event in NEEDS_REQUEST_ID


def _detail(change: Change) -> str | None:
    learned = (
        ("request_id", change.request_id),
        ("code", change.code),
        ("error", one_line(change.error)),
        ("path", change.path),
    )
    said = [f'"{name}":{quote(text)}' for name, text in learned if text is not None]
    return f"{{{','.join(said)}}}" if said else None


async def refused(session: Session, seq: int, change: Change, refusal: Refusal) -> Exception:
    """Return the error of a change that was not made."""
    state = refusal.state
    if state is None:
        return ValueError(f"this run has no item {change.ref!r}")
    if refusal.why == "halted":
        return RunHaltedError("the run is halted: its database came back older than what was recorded in it")
    if refusal.why == "paused":
        return RunPausedError("the run is paused")
    if refusal.why == "known" or fenced(change.event, change.attempt, state=state, attempt=refusal.attempt) is None:
        said = f"{change.event.value!r} of attempt {change.attempt} comes too late"
        return await _superseded(session, seq, f"{said}: it is {state.value!r} by now, in attempt {refusal.attempt}")
    if refusal.why == "twice":
        return await _superseded(session, seq, "it was accepted twice, perhaps, and is never sent again")
    if change.event is not Event.LATE_ACCEPT and (taken := await refused_by_owner(session, seq, change)):
        return taken
    if _lacks_request_id(change):
        return ValueError(f"request_id must be given with {change.event.value!r}")
    try:
        next_state(state, change.event)
    except ValueError as error:
        return error
    return ValueError(f"{change.event.value!r} was refused for an item that was {state.value!r}")


async def _superseded(session: Session, seq: int, why: str) -> SupersededError:
    row = await session.row(KEY_OF_SEQ, session.run, seq)
    key = "" if row is None else row[0]
    return SupersededError(f"somebody else has moved on with {key!r}: {why}", key=key, seq=seq)


async def refused_by_owner(session: Session, seq: int, change: Change) -> RequestIdTakenError | None:
    """Return the error of a change whose request id another item has."""
    if change.request_id is None:
        return None
    row = await session.row(OWNER_OF_REQUEST, session.run, change.request_id, seq)
    if row is None:
        return None
    return RequestIdTakenError(f"request {change.request_id} is another item's of this run: {row[1]}", key=row[1])


async def change_in_turn(session: Session, changes: Sequence[Change]) -> list[State]:
    """Make changes in turn within a transaction, in one statement as many as are of distinct items.

    Raises the error of the first that is refused. A session that verifies makes each by itself: of many, nobody knows
    which of them an index has refused.
    """
    states: list[State] = []
    for seqs, part in _in_parts([(await find_seq(session, change.ref), change) for change in changes], session):
        made = await (_change_one if session.verifies else _change_part)(session, seqs, part)
        for seq, change, told in zip(seqs, part, made, strict=True):
            if isinstance(told, Refusal):
                raise await refused(session, seq, change, told)
            states.append(told)
    return states


async def _change_part(session: Session, seqs: Sequence[int], changes: Sequence[Change]) -> list[State | Refusal]:
    return await change_items(session, seqs, changes, within=True)


async def _change_one(session: Session, seqs: Sequence[int], changes: Sequence[Change]) -> list[State | Refusal]:
    """Make one change. Raises `RequestIdTakenError` if another item has its request id."""
    await session.rows(b"SAVEPOINT one")
    try:
        made = await _change_part(session, seqs, changes)
    except UniqueViolation:
        await session.rows(b"ROLLBACK TO one")
        if (taken := await refused_by_owner(session, seqs[0], changes[0])) is not None:
            raise taken from None
        raise
    await session.rows(b"RELEASE one")
    return made


def _in_parts(changes: Sequence[tuple[int, Change]], session: Session) -> Iterator[tuple[list[int], list[Change]]]:
    most = 1 if session.verifies else TOGETHER
    seqs: dict[int, Change] = {}
    for seq, change in changes:
        if seq in seqs or len(seqs) == most:
            yield [*seqs], [*seqs.values()]
            seqs = {}
        seqs[seq] = change
    if seqs:
        yield [*seqs], [*seqs.values()]
