"""Groups of operations that are recorded in one transaction: by one statement, or a transaction of its own for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from attrs import define, field, frozen
from psycopg import pq
from psycopg.errors import UniqueViolation

from ..records import Change, SupersededError
from ..states import Event, State, replay
from .arrays import array
from .session import Answer, Group, Job, Session, TurnLostError, UndoneError
from .statements import EVENTS_UNTIL, OWNED, RECORD_DOCUMENTS, TAKE_TURN, WRITTEN
from .transitions import TOGETHER, Refusal, change_items, find_seq, refused, refused_by_owner

__all__ = ["DocumentOutcome", "Transition", "next_group"]


@frozen
class Transition:
    """One change of one item, as an operation."""

    change: Change

    @property
    def ref(self) -> int | str:
        return self.change.ref


@frozen
class DocumentOutcome:
    """The outcome of one order document, as an operation: its values in the order of `RECORD_DOCUMENTS`."""

    ref: int | str
    values: tuple[str | int | None, ...]
    attempt: int
    begun: int | None = None


def next_group(jobs: deque[Job]) -> Group:
    """Take from the front what one statement records: operations of one kind on distinct items, by number.

    Anything else, and what names an item by its key, is a group of its own.
    """
    first = jobs.popleft()
    kind = type(first.operation)
    make = _KINDS.get(kind)
    if make is None:
        return Alone(first)
    taken, seqs = [first], {first.operation.ref}
    if isinstance(first.operation.ref, int):
        while jobs and len(taken) < TOGETHER and type(jobs[0].operation) is kind:
            ref = jobs[0].operation.ref
            if not isinstance(ref, int) or ref in seqs:
                break
            seqs.add(ref)
            taken.append(jobs.popleft())
    return make(taken)


@define(eq=False)
class TransitionGroup:
    """Changes of distinct items, by one statement that is its own transaction."""

    jobs: Sequence[Job]

    async def record(self, session: Session) -> list[Answer]:
        """Record them. Raises `UndoneError` for one whose request id another item has."""
        try:
            seqs = [await find_seq(session, job.operation.ref) for job in self.jobs]
        except ValueError as error:
            raise UndoneError(error) from error
        changes = [job.operation.change for job in self.jobs]
        try:
            told = await change_items(session, seqs, changes)
        except UniqueViolation:
            if len(seqs) == 1 and (taken := await refused_by_owner(session, seqs[0], changes[0])) is not None:
                raise UndoneError(taken) from taken
            raise
        return [await _answer(session, *each) for each in zip(self.jobs, seqs, changes, told, strict=True)]

    async def recall(self, session: Session) -> list[Answer]:
        """Return what was recorded, by the journal; what was refused is not in it, and is judged again."""
        jobs = {await find_seq(session, job.operation.ref): job for job in self.jobs}
        written = await session.rows(WRITTEN, session.run, array([*jobs]), session.worker, session.number)
        return [Answer(jobs[seq], [await _state_after(session, seq, entry)]) for seq, entry in written]

    def apart(self) -> list[Group]:
        return [TransitionGroup([job]) for job in self.jobs]


async def _answer(session: Session, job: Job, seq: int, change: Change, told: State | Refusal) -> Answer:
    if isinstance(told, Refusal):
        return Answer(job, error=await refused(session, seq, change, told))
    return Answer(job, [told])


async def _state_after(session: Session, seq: int, entry: int) -> State:
    """Return the state of an item after an entry of the journal, whatever has happened to it since."""
    events = await session.rows(EVENTS_UNTIL, session.run, seq, entry)
    return replay(Event(event) for (event,) in events)


@define(eq=False)
class DocumentGroup:
    """The outcomes of distinct order documents, by one statement that is its own transaction."""

    jobs: Sequence[Job]

    async def record(self, session: Session) -> list[Answer]:
        try:
            seqs = [await find_seq(session, job.operation.ref) for job in self.jobs]
        except ValueError as error:
            raise UndoneError(error) from error
        clock = session.clock
        outcomes = ((*job.operation.values, job.operation.begun) for job in self.jobs)
        columns = map(array, zip(*outcomes, strict=True))
        asked = clock.host.now()
        where = (session.run, session.worker, session.number, clock.parameter(), len(seqs))
        row = await session.row(RECORD_DOCUMENTS, *where, array(seqs), *columns)
        if row is None or not row[0]:
            raise TurnLostError
        if row[1] is not None:
            clock.learn(row[1], asked=asked)
        return [_recorded(job, told) for job, told in zip(self.jobs, row[2].split(","), strict=True)]

    async def recall(self, session: Session) -> list[Answer]:
        """Return what was recorded: all but documents that the run does not have, and those of another's attempt.

        One that somebody has moved on with since is told as if it had been refused: it is read again either way.
        """
        seqs = [await find_seq(session, job.operation.ref) for job in self.jobs]
        known = {seq: (attempt, owner) for seq, attempt, owner in await session.rows(OWNED, session.run, array(seqs))}
        answers = []
        for job, seq in zip(self.jobs, seqs, strict=True):
            outcome: DocumentOutcome = job.operation
            is_ours = outcome.begun is None or known.get(seq) == (outcome.attempt, session.worker)
            answers.append(_recorded(job, "unknown" if seq not in known else "saved" if is_ours else "superseded"))
        return answers

    def apart(self) -> list[Group]:
        return [DocumentGroup([job]) for job in self.jobs]


def _recorded(job: Job, told: str) -> Answer:
    ref = job.operation.ref
    if told == "unknown":
        return Answer(job, error=ValueError(f"this run has no item {ref!r}"))
    if told == "superseded":
        return Answer(job, error=SupersededError(f"{ref!r} stands in another attempt by now, as others have left it"))
    return Answer(job)


_KINDS: dict[type, Callable[[Sequence[Job]], Group]] = {Transition: TransitionGroup, DocumentOutcome: DocumentGroup}


@define(eq=False)
class Alone:
    """Any other operation, in a transaction of its own."""

    _job: Job
    _result: Any = field(default=None, init=False)
    """What it returned before its commit was asked for."""

    @property
    def jobs(self) -> Sequence[Job]:
        return [self._job]

    async def record(self, session: Session) -> list[Answer]:
        try:
            return await self._record(session)
        except UniqueViolation:
            session.verifies = True
        try:
            return await self._record(session)
        finally:
            session.verifies = False

    async def _record(self, session: Session) -> list[Answer]:
        await session.rows(b"BEGIN")
        try:
            await _take_turn(session)
            self._result = await self._job.operation(session)
        except Exception as error:
            if session.connection.info.transaction_status is not pq.TransactionStatus.UNKNOWN:
                await session.rows(b"ROLLBACK")
            if isinstance(error, psycopg.Error | TurnLostError):
                raise
            raise UndoneError(error) from error
        await session.rows(b"COMMIT")
        return [Answer(self._job, self._result)]

    async def recall(self, session: Session) -> list[Answer]:
        return [Answer(self._job, self._result)]

    def apart(self) -> list[Group]:
        return [self]


async def _take_turn(session: Session) -> None:
    if await session.row(TAKE_TURN, session.worker, session.number) is None:
        raise TurnLostError
