"""When a run's calls waited because the service was down: kept in its file, and in the way of nothing."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import pytest
from fakes import FakeClock
from run_services import ORDERS, Service, counted, document_run, invoice_run, listed, sandbox, until_error

from invoicing_async._durable.pauses import PauseLog
from invoicing_async._durable.records import Pause
from invoicing_async._durable.schema import PAUSES
from invoicing_async.errors import ServiceDownError
from invoicing_async.events import Event, Observer, Paused, Resumed
from invoicing_async.policies import OutagePolicy
from invoicing_async.runs import InvoiceRun, SqliteReader
from invoicing_async.sandbox import Unavailable
from invoicing_async.session._feature import Feature

pytestmark = pytest.mark.asyncio

DRAFTS = [f"A-{number}" for number in range(1, 31)]
SHORT = OutagePolicy(after=8, patience=60.0)
LONG = OutagePolicy(after=8, patience=3_600.0)


async def pauses(file: Path) -> tuple[Pause, ...]:
    async with SqliteReader.read(file) as ledger:
        return await ledger.pauses()


async def test_an_outage_is_in_the_run_file_with_its_beginning_and_end(tmp_path: Path) -> None:
    """Times are the run's; a run without one has none."""
    service = Service({key: ["busy"] * 2 for key in DRAFTS[:12]})
    clock = FakeClock()
    async with invoice_run(tmp_path, service, DRAFTS[:12], outage=LONG, attempts=20, clock=clock) as (run, found):
        run.ledger.now = clock.now  # type: ignore[method-assign] # the session's clock and the run's are one
        begun = clock.now()
        await listed(run.submit(found))
    seen = await pauses(tmp_path / "run.db")
    assert seen
    assert {(pause.operation, pause.is_over) for pause in seen} == {("create_invoice", True)}
    assert all(begun <= pause.begun < pause.until <= clock.now() for pause in seen)


async def test_without_an_outage_there_is_no_pause(tmp_path: Path) -> None:
    async with invoice_run(tmp_path, Service()) as (run, found):
        await listed(run.run(found))
    assert await pauses(tmp_path / "run.db") == ()


async def test_a_pause_that_is_given_up_is_known_as_far_as_it_was_seen(tmp_path: Path) -> None:
    """Beyond its patience the run ends: nobody knows how long the service stays down."""
    service = sandbox()
    for order in ORDERS:
        service.script(order, [Unavailable()] * 90)
    async with document_run(tmp_path, service, outage=SHORT) as (run, found):
        await run.add(ORDERS)
        _, error = await until_error(run.download(found))
        assert isinstance(error, ServiceDownError)
    [pause] = await pauses(tmp_path / "run.db")
    assert not pause.is_over


class Client(Feature):
    """The inside of a client whose lanes say what a test has them say."""

    def __init__(self) -> None:
        """Without a session."""

    def lanes_heard_by(self, listener: Observer) -> AbstractContextManager[None]:
        self.say = listener
        return nullcontext()


DOWN: Event = Paused(operation="o", store="s", next_probe=1.0)
UP: Event = Resumed(operation="o", store="s", paused=3.0)


async def test_of_one_pause_there_is_one_line_however_often_it_is_told(tmp_path: Path) -> None:
    """Each probe that fails tells it again; an end that was not begun is none."""
    client = Client()
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        log = PauseLog(run.ledger)
        async with log.of(client):
            for event in (UP, DOWN, DOWN, DOWN, UP, UP):
                client.say(event)
    [pause] = await pauses(tmp_path / "run.db")
    assert pause.is_over


async def test_a_pause_is_there_while_it_lasts_also_for_another_process(tmp_path: Path) -> None:
    """What a kill -9 leaves of it is its beginning, and when it was last seen."""
    client, file = Client(), tmp_path / "run.db"
    async with InvoiceRun.open(file) as run, PauseLog(run.ledger).of(client):
        client.say(DOWN)
        for _ in range(200):
            if await pauses(file):
                break
        [pause] = await pauses(file)
        assert (pause.operation, pause.is_over) == ("o", False)


async def test_a_pause_that_cannot_be_recorded_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    async with InvoiceRun.open(tmp_path / "run.db") as run:
        await run.ledger.close()
        with caplog.at_level(logging.WARNING, "invoicing_async"):
            async with PauseLog(run.ledger).of(client):
                client.say(DOWN)
    assert "a pause of o could not be recorded" in caplog.text


async def test_a_file_of_before_is_read_and_goes_on(tmp_path: Path) -> None:
    """It gets its table when it is next opened for writing."""
    file = tmp_path / "run.db"
    async with invoice_run(tmp_path, Service(), DRAFTS[:3]) as (run, found):
        await listed(run.submit(found))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE pauses")
    assert await pauses(file) == ()
    async with invoice_run(tmp_path, Service(), []) as (run, found):
        assert await counted(run) == {"submitted": 3}
    with closing(sqlite3.connect(file)) as connection:
        [[made]] = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'pauses'").fetchall()
    assert made == PAUSES.replace("IF NOT EXISTS ", "").lstrip()
