"""The task that owns the connection for writing and records in groups what was queued meanwhile.

An operation that was queued is done, whether its caller still waits or not: an answer of the service must not be lost
because somebody lost patience. While the database is away operations wait. Nothing is answered before it is durable.

A worker's counter of groups, written with each group, tells after a lost connection whether the last group was
recorded though its answer was lost, and whether the database came back older than what it had answered for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from attrs import define, evolve, field

from ..._core.clock import RealClock
from ..records import LedgerServerError, RunFileError
from .connection import Connection
from .errors import may_come_back, translate_error
from .groups import next_group
from .session import Answer, DatabaseClock, Group, Job, Session, TurnLostError, UndoneError, Worker
from .statements import END_WORKER, GROUPS, HALT, HEARTBEAT, REGISTER

__all__ = ["Connect", "Recorder", "register"]

_log = logging.getLogger("invoicing_async")

HEARTBEAT_SECONDS = 5.0
"""Seconds after which a worker says that it lives."""

LEAVING_SECONDS = 5.0
"""Seconds that a worker takes at most to say that it ends."""

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two attempts to reach a database that is away; each pause is twice the one before."""

SILENCE_SECONDS = 5.0
"""Seconds after which it is told that the database is silent, as while somebody holds a table: it is waited for."""

OLDER = "the database came back older than what was recorded in it"
"""Why a run is halted: what was sent since is not known to it."""

Connect: TypeAlias = Callable[[], Awaitable[Connection]]


@define(eq=False)
class Recorder:
    """The task. `name` is the run's address, `connect` opens another connection for writing."""

    name: str
    run: int
    worker: Worker
    clock: DatabaseClock
    _connect: Connect
    _connection: Connection | None
    _groups: int = field(default=0, init=False)
    """The number of the last group that was recorded and answered."""
    _is_unsure: bool = field(default=False, init=False)
    """Whether the counter of groups must be looked at first: the last group may have been recorded, or be forgotten."""
    _failures: int = field(default=0, init=False)
    """Attempts to record since the last one that succeeded."""
    _told: set[str] = field(factory=set, init=False)
    """What was said meanwhile of why: each thing once."""
    _jobs: deque[Job] = field(factory=deque, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _pace: RealClock = field(factory=RealClock, init=False)
    _beaten: float = field(default=0.0, init=False)
    _stopping: bool = field(default=False, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)
    _task: asyncio.Task[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._beaten = self._pace.monotonic()
        self._task = self._loop.create_task(self._main(), name="invoicing-recorder")

    async def do(self, operation: Any) -> Any:
        """Record an operation; return what it returns when that is durable."""
        if self._stopping:
            raise RunFileError(f"{self.name} is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise RunFileError(f"{self.name} belongs to another event loop")
        future = self._loop.create_future()
        self._jobs.append(Job(operation, future))
        self._wake.set()
        return await future

    async def stop(self) -> None:
        """Do what is queued, for as long as the database takes, and leave. A cancellation is raised after that."""
        self._stopping = True
        self._wake.set()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.shield(self._task)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    async def _main(self) -> None:
        beats = self._loop.call_later(HEARTBEAT_SECONDS, self._wake.set)
        while self._jobs or not self._stopping:
            if self._jobs:
                await self._record(next_group(self._jobs))
            else:
                self._wake.clear()
                await self._wake.wait()
            if self._pace.monotonic() >= self._beaten + HEARTBEAT_SECONDS:
                beats.cancel()
                await self._beat()
                beats = self._loop.call_later(HEARTBEAT_SECONDS, self._wake.set)
        beats.cancel()
        await self._leave()

    async def _record(self, group: Group) -> None:
        """Record a group. Only if something in it fails is it done again, each operation on its own."""
        try:
            answers = await self._until_recorded(group)
        except UndoneError as undone:
            answers = [Answer(job, error=undone.error) for job in group.jobs]
        except Exception as error:  # noqa: BLE001 - it is raised by every operation of the group
            if len(group.jobs) > 1:
                for part in group.apart():
                    await self._record(part)
                return
            said = translate_error(error, self.name) if isinstance(error, psycopg.Error) else error
            answers = [Answer(job, error=said) for job in group.jobs]
        _settle(answers)
        answered = {answer.job for answer in answers}
        for part in group.apart():
            if part.jobs[0] not in answered:  # it was refused in a group whose answer was lost
                await self._record(part)

    async def _until_recorded(self, group: Group) -> list[Answer]:
        """Record a group, however often the database goes away meanwhile."""
        is_begun = False
        while True:
            try:
                if self._is_unsure and await self._was_recorded():
                    if is_begun:
                        return self._counted(await group.recall(await self._session()))
                    self._groups += 1  # the group before failed after it was recorded
                is_begun = True
                silence = self._loop.call_later(SILENCE_SECONDS, self._tell_of_silence)
                try:
                    return self._counted(await group.record(await self._session()))
                finally:
                    silence.cancel()
            except TurnLostError:
                self._is_unsure = True
            except (psycopg.Error, LedgerServerError) as error:
                self._is_unsure = True
                if not self._passes(error):
                    raise
                await self._wait(error)

    def _counted(self, answers: list[Answer]) -> list[Answer]:
        self._groups += 1
        if self._failures:
            _log.warning("the database of %s is back: recording goes on", self.name)
            self._failures = 0
            self._told.clear()
        return answers

    def _tell_of_silence(self) -> None:
        text = "the database of %s has said nothing for %d s: what is to be recorded waits for it"
        _log.warning(text, self.name, SILENCE_SECONDS)

    async def _session(self) -> Session:
        """Return what the next group is recorded with, on another connection if the last one was lost."""
        if self._connection is None:
            self._connection = await self._connect()
        return Session(self._connection, self.run, self.worker.number, self._groups + 1, self.clock)

    async def _was_recorded(self) -> bool:
        """Tell whether the group after the last one that was answered was recorded; halt the run if that is gone."""
        session = await self._session()
        row = await session.row(GROUPS, self.worker.number, self.run, *self.worker.said())
        stands = None if row is None else row[0]
        if stands not in {self._groups, self._groups + 1}:
            await self._halt(session, stands)
            return False
        self._is_unsure = False
        return bool(stands > self._groups)

    async def _halt(self, session: Session, stands: int | None) -> None:
        """Let nothing of the run be sent until a person has said since when records are missing."""
        await session.rows(HALT, self.run, self.clock.parameter(), OLDER)
        if stands is None:
            self.worker = await register(session, self.worker)
        self._groups = stands or 0
        _log.error("%s is halted: %s; go on with `runs unhalt`", self.name, OLDER)

    def _passes(self, error: Exception) -> bool:
        """Tell whether waiting may help. What refuses another connection is mended by somebody, sooner or later."""
        if not isinstance(error, psycopg.Error) or self._connection is None or self._connection.closed:
            return True
        return may_come_back(error.sqlstate, type(error))

    async def _wait(self, error: Exception) -> None:
        """Wait before the next attempt, twice as long as before the last one.

        That one has another connection: this one stays read-only, or with the server that is no primary any more.
        """
        if self._connection is not None:
            await self._connection.close()
        await self._drop_lost_connection()
        said = str(translate_error(error, self.name) if isinstance(error, psycopg.Error) else error)
        if said not in self._told:
            self._told.add(said)
            _log.warning("%s; what is to be recorded waits until it is back", said)
        pause = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        self._failures += 1
        await self._pace.sleep(pause * (0.5 + self._pace.random() / 2))

    async def _drop_lost_connection(self) -> None:
        connection = self._connection
        if connection is not None and connection.closed:
            self._connection = None
            await connection.close()

    async def _beat(self) -> None:
        """Say that this worker lives; a lost connection is noticed by it, and whether the database came back older."""
        self._beaten = self._pace.monotonic()
        try:
            if self._is_unsure and await self._was_recorded():
                self._groups += 1  # of a group that failed after it was recorded
            session = await self._session()
            await session.rows(HEARTBEAT, self.worker.number, self.clock.parameter())
            if session.connection.prepare_threshold is not None:
                # A plan that was made when the tables were small would read all of what they hold by now.
                # Not DEALLOCATE ALL: psycopg overlooks one that it knows, and then asks for statements that are gone.
                await session.rows(b"DISCARD PLANS")
        except (psycopg.Error, LedgerServerError):
            self._is_unsure = True
            await self._drop_lost_connection()

    async def _leave(self) -> None:
        """Say that this worker has ended, if the database hears it at once."""
        if self._connection is None:
            return
        with suppress(psycopg.Error, TimeoutError):
            async with self._pace.timeout(LEAVING_SECONDS):
                await (await self._session()).rows(END_WORKER, self.worker.number, self.clock.parameter())
        await self._connection.close()


async def register(session: Session, worker: Worker) -> Worker:
    """Register a worker of the run anew, and return it as it is then known."""
    row = await session.row(REGISTER, session.run, worker.host, worker.pid, worker.version, session.clock.parameter())
    assert row is not None  # noqa: S101 - it returns one row; for the type checker
    return evolve(worker, number=row[0], started=row[1])


def _settle(answers: list[Answer]) -> None:
    for answer in answers:
        future = answer.job.future
        if future.done():
            continue
        if answer.error is None:
            future.set_result(answer.result)
        else:
            future.set_exception(answer.error)
