"""The one thread that owns the connection and commits in groups what was queued meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from .._core.clock import Clock
from .database import translate_error
from .integrity import Log
from .records import RunFileError
from .transaction import Answer, Job, Transaction
from .transitions import commit_transitions, do_together, records_intent

__all__ = ["Writer"]

T = TypeVar("T")


GROUP = 4096
"""The most operations of one commit."""


class Writer:
    """The thread that owns the connection. `enter` opens it and closes it again; both happen in the thread.

    If `enter` fails, every operation raises its error. An operation that was queued is done, whether its caller
    still waits or not: an answer of the service must not be lost because somebody lost patience.
    """

    def __init__(
        self,
        path: Path,
        enter: Callable[[], AbstractContextManager[sqlite3.Connection]],
        begin: str,
        clock: Clock,
        log: Log | None = None,
    ) -> None:
        self._path = path
        self._log = log or Log()
        self._enter = enter
        self._begin = begin
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._waiting: list[Job] = []
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        # A daemon: a program that never closes its run must still be able to end.
        self._thread = threading.Thread(target=self._main, name="invoicing-run-file", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """Do an operation in the thread; return what it returns when that is on disk."""
        if self._stopping:
            raise RunFileError(f"{self._path} is closed")
        if asyncio.get_running_loop() is not self._loop:
            raise RunFileError(f"{self._path} belongs to another event loop")
        future: asyncio.Future[T] = self._loop.create_future()
        # One hand-over for all that this turn of the loop asks for: waking the thread costs more than a row.
        if not self._waiting:
            self._loop.call_soon(self._hand_over)
        self._waiting.append((future, operation))
        return await future

    def _hand_over(self) -> None:
        if self._waiting:
            jobs, self._waiting = self._waiting, []
            for at in range(0, len(jobs), GROUP):
                self._jobs.put(jobs[at : at + GROUP])

    async def stop(self) -> None:
        """Do what is queued and leave. A cancellation is raised after that: leaving takes no longer than the disk."""
        if not self._stopping:
            self._stopping = True
            self._hand_over()
            self._jobs.put(None)
        cancelled: asyncio.CancelledError | None = None
        while not self._stopped.done():
            try:
                await asyncio.shield(self._stopped)
            except asyncio.CancelledError as error:
                cancelled = error
        self._thread.join()
        if cancelled is not None:
            raise cancelled

    def _main(self) -> None:
        more = True
        try:
            with self._enter() as connection:
                transaction = Transaction(connection, self._clock, self._log)
                while more:
                    jobs, more = self._take()
                    self._tell(_settle, self._commit(transaction, jobs))
        except Exception as error:  # noqa: BLE001 - it is raised by every operation that waits
            while more:
                jobs, more = self._take()
                self._tell(_settle, self._all_failed(jobs, error))
        self._tell(self._stopped.set_result, None)

    def _take(self) -> tuple[list[Job], bool]:
        """Return everything that is queued, at least one job; and whether more may follow."""
        jobs: list[Job] = []
        entry = self._jobs.get()
        with suppress(Empty):
            while entry is not None:
                jobs += entry
                if len(jobs) >= GROUP:
                    break
                entry = self._jobs.get_nowait()
        return jobs, entry is not None

    def _commit(self, transaction: Transaction, jobs: list[Job]) -> list[Answer]:
        """Do a group in one transaction. Only if something in it fails is it done again, each on its own."""
        if not self._log.is_marked and any(map(records_intent, jobs)):
            try:
                self._log.expect(transaction.connection)
            except sqlite3.Error as error:
                return self._all_failed(jobs, error)
        with suppress(Exception):  # the second round finds out whose error it is
            return commit_transitions(transaction, jobs) or self._transact(transaction, jobs, do_together)
        try:
            return self._transact(transaction, jobs, self._do_apart)
        except Exception as error:  # noqa: BLE001 - it is raised by every operation of the group
            return self._all_failed(jobs, error)

    def _transact(
        self, transaction: Transaction, jobs: list[Job], do: Callable[[Transaction, list[Job]], list[Answer]]
    ) -> list[Answer]:
        transaction.begin()
        try:
            transaction.execute(self._begin)
            answers = do(transaction, jobs)
            transaction.flush()
            transaction.execute("COMMIT")
            transaction.remember(transaction.changed)
        except BaseException:
            if transaction.connection.in_transaction:
                transaction.execute("ROLLBACK")
            raise
        return answers

    def _do_apart(self, transaction: Transaction, jobs: list[Job]) -> list[Answer]:
        """Do each operation whole or not at all. Raises only if the database gave the whole transaction up."""
        answers: list[Answer] = []
        for future, operation in jobs:
            before = transaction.counts.copy(), transaction.changed.copy()
            transaction.execute("SAVEPOINT apart")
            try:
                answers.append((future, operation(transaction), None))
            except Exception as error:
                if not transaction.connection.in_transaction:
                    raise
                transaction.execute("ROLLBACK TO apart")
                transaction.counts, transaction.changed = before
                transaction.current.clear()  # what it believed may be what was wrong
                answers.append((future, None, translate_error(error, self._path)))
            transaction.execute("RELEASE apart")
        return answers

    def _all_failed(self, jobs: list[Job], error: Exception) -> list[Answer]:
        return [(future, None, translate_error(error, self._path)) for future, _ in jobs]

    def _tell(self, call: Callable[[T], object], value: T) -> None:
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(call, value)


def _settle(answers: list[Answer]) -> None:
    for future, result, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
