"""Workers as processes, a service that remembers, and what must hold of a run whatever befell them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kill_work
import worker_chaos_work
from attrs import define, field, frozen
from postgres_server import Database, PostgresServer
from worker_chaos_work import LATE, server_address

from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.states import RunKind, State
from invoicing_async.errors import ResolutionTooEarlyError
from invoicing_async.runs import InvoiceRun
from invoicing_async.worker import migrate_queue


@frozen
class Made:
    """An invoice that the service made, and for which host."""

    key: str
    request_id: str
    at: float
    host: str


@define(eq=False)
class Host:
    """Where workers are started. `lives` are those that were not killed and have not ended."""

    address: str
    url: str
    forks: subprocess.Popen[str]
    lives: list[int] = field(factory=list)

    def start(self, **options: Any) -> int:
        pid = int(self._ordered(start=[self.address, self.url, options]))
        self.lives.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.lives.remove(pid)
        code, why = self._ordered(wait=pid)
        assert code in {0, -signal.SIGKILL}, why  # it may have ended just before, if the run rests

    def wait(self, pid: int) -> None:
        """Wait for the end of a worker, which must be that the run rests."""
        code, why = self.ended(pid)
        assert code == 0, why

    def ended(self, pid: int) -> tuple[int, str]:
        """Wait for the end of a worker, and return its exit code, and why it ended if an error ended it."""
        code, why = self._ordered(wait=pid)
        self.lives.remove(pid)
        return code, why

    def rest(self) -> None:
        """Wait for the end of each."""
        for pid in [*self.lives]:
            self.wait(pid)

    def _ordered(self, **words: object) -> Any:
        assert self.forks.stdin is not None
        assert self.forks.stdout is not None
        self.forks.stdin.write(json.dumps(words) + "\n")
        self.forks.stdin.flush()
        return json.loads(self.forks.stdout.readline())


@contextmanager
def _process(*words: str, stdin: int | None = None, namespace: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, worker_chaos_work.__file__, *words]
    if namespace:
        command = ["ip", "netns", "exec", namespace, *command]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def host(folder: Path, address: str, url: str, *, namespace: str = "") -> Iterator[Host]:
    """Start what starts workers, there; those that are left at the end are killed."""
    with _process("lives", str(folder), stdin=subprocess.PIPE, namespace=namespace) as forks:
        made = Host(address, url, forks)
        try:
            yield made
        finally:
            for pid in made.lives:
                os.kill(pid, signal.SIGKILL)


@define(eq=False)
class Workers(Host):
    """Workers of one run on this host, and the service behind them."""

    database: Database = field(kw_only=True)
    log: Path = field(kw_only=True)

    def made(self) -> list[Made]:
        """What the service made so far, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        words = [line.split() for line in lines if len(line.split()) == 5]
        return [Made(key, request_id, float(at), where) for _, key, request_id, at, where in words]

    def made_between(self, begun: float, ended: float, *, host: str = "") -> list[Made]:
        """What was made in that time, of one host if it is given."""
        return [one for one in self.made() if begun < one.at < ended and host in {"", one.host}]

    def until_made(self, count: int, *, seconds: float) -> bool:
        """Wait until so many were made, for so many seconds at most; tell whether they were."""
        with suppress(TimeoutError):
            eventually(lambda: len(self.made()) >= count, seconds=seconds)
            return True
        return False

    def in_states(self) -> Counter[str]:
        rows = self.database.psql("SELECT state, count(*) FROM invoicing.items GROUP BY state")
        return Counter({str(state): int(count) for state, count in rows})


@contextmanager
def workers(
    database: Database, folder: Path, *, drafts: int, seconds: float, at: str = "127.0.0.1"
) -> Iterator[Workers]:
    """Take drafts in, and start the service at an address, which answers within so many seconds."""
    log = folder / "service.log"
    address = database.address()
    asyncio.run(_take_in(address, drafts))
    with _process("service", str(log), at, str(seconds)) as service:
        assert service.stdout is not None
        url = f"http://{at}:{int(service.stdout.readline())}"
        with host(folder, address, url) as here:
            yield Workers(address, url, here.forks, here.lives, database=database, log=log)


async def _take_in(address: str, drafts: int) -> None:
    async with PostgresLedger.open(server_address(address), kind=RunKind.INVOICES) as ledger:
        await InvoiceRun(ledger).add(map(kill_work.draft, range(drafts)))


def queued_database(server: PostgresServer) -> Database:
    """A database of its own with the tables of runs and of their queue."""
    database = server.database()
    asyncio.run(migrate_queue(database.address()))
    return database


def eventually(holds: Callable[[], object], *, seconds: float) -> None:
    """Wait until something holds. Raises `TimeoutError`."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"it did not come within {seconds} s")
        time.sleep(0.02)


# -- what a person does, and what must hold --------------------------------------------------------------------------


def settle_doubts(workers: Workers, *, at_once: bool = False) -> Counter[str]:
    """Settle each doubt by what the service made, as a person does who looks; count how many were made.

    With `at_once` one of which it is too early to say that it was never made is left; a person leaves a service that
    is starved of time some seconds more to read what has come to it.
    """
    return asyncio.run(_settle(workers, at_once=at_once))


SLOWNESS = 2.0
"""Seconds by which a service on a busy machine may read a request later than it came."""


async def _settle(workers: Workers, *, at_once: bool) -> Counter[str]:
    counted: Counter[str] = Counter()
    async with PostgresLedger.open(server_address(workers.database.address())) as ledger:
        doubts = await ledger.rows((State.IN_DOUBT,), limit=100_000)
        made = {one.key: one.request_id for one in workers.made()}
        for item in doubts:
            if at_once and item.key not in made and ledger.now() - (item.sent_at or 0.0) < LATE + SLOWNESS:
                continue
            try:
                await InvoiceRun(ledger).resolve(item.key, created=item.key in made, request_id=made.get(item.key))
            except (ResolutionTooEarlyError, ValueError):
                if not at_once:
                    raise  # nobody else is there who could have settled it
            else:
                counted["made" if item.key in made else "not made"] += 1
    return counted


NOT_MADE = {State.PLANNED, State.NOT_SENT, State.SENDING, State.IN_DOUBT}
"""Where an invoice that was never made may stand."""


def look(workers: Workers) -> None:
    """Nothing was made twice, and of what was made nothing is lost: it is known, or in doubt."""
    made = workers.made()
    twice = [key for key, count in Counter(one.key for one in made).items() if count > 1]
    assert not twice, f"made twice: {twice}"
    items = {
        key: (state, ids)
        for key, state, *ids in workers.database.psql(
            "SELECT key, state, request_id, other_request_id FROM invoicing.items"
        )
    }
    for one in made:
        state, ids = items[one.key]
        is_known = one.request_id in ids or state in {State.SENDING, State.IN_DOUBT}
        assert is_known, f"{one} is lost: {state} {ids}, {journal_of(workers, one.key)}"
    known = {one.key for one in workers.made()}  # with what was made while they were read
    for key, (state, _) in items.items():
        assert key in known or state in NOT_MADE, f"{key} was never made and is {state}"


def journal_of(workers: Workers, key: str) -> list[tuple[Any, ...]]:
    """Return what befell an item: event, attempt, when, by which worker, and what was said."""
    rows: list[tuple[Any, ...]] = workers.database.psql(
        "SELECT event, journal.attempt, extract(epoch FROM at)::float8, worker, detail FROM invoicing.journal"
        " JOIN invoicing.items ON items.run = journal.run AND seq = item WHERE key = %s ORDER BY id",
        key,
    )
    return rows


def crashed_of_owners(workers: Workers) -> dict[int, int]:
    """Return how many attempts of each worker were put in doubt, whatever became of them."""
    rows = workers.database.psql(
        "SELECT sent.worker, count(*) FROM invoicing.journal crashed JOIN invoicing.journal sent"
        " USING (run, item, attempt) WHERE crashed.event = 'crashed' AND sent.event = 'intent' GROUP BY sent.worker"
    )
    return {int(owner): int(count) for owner, count in rows}
