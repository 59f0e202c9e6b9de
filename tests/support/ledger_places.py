"""The kinds of ledgers that the tests in `tests/durable/contract` are run over.

Another implementation is one more name in `KINDS`, and a place of its own.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pytest

from invoicing_async._core.clock import Clock
from invoicing_async._durable import intake as sqlite_intake
from invoicing_async._durable import transaction as sqlite_transaction
from invoicing_async._durable import transitions as sqlite_transitions
from invoicing_async._durable.address import ServerAddress, run_address
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.postgres import groups, intake, sweep, transitions
from invoicing_async._durable.postgres.connection import connect
from invoicing_async._durable.postgres.ledger import PostgresLedger
from invoicing_async._durable.postgres.reader import PostgresReader
from invoicing_async._durable.protocol import Ledger, LedgerReader
from invoicing_async._durable.states import RunKind

if TYPE_CHECKING:
    from postgres_server import Database


class Place(Protocol):
    """Where one run is kept; nothing is there before it is opened first."""

    def open(
        self, kind: RunKind | None = None, *, settings: Mapping[str, object] | None = None, clock: Clock | None = None
    ) -> AbstractAsyncContextManager[Ledger]:
        """Open the run to work on it; with `kind`, make it if it is not there."""

    def beside(self, ledger: Ledger) -> AbstractAsyncContextManager[Ledger]:
        """Open the run for another who works on it while `ledger` is open, with the same clock if it has one.

        Where only one can have it open, the other works on it through the same ledger.
        """

    def read(self) -> AbstractAsyncContextManager[LedgerReader]:
        """Open the run to look at it, also while it is worked on."""

    def crashed(self) -> AbstractAsyncContextManager[Ledger]:
        """Open the run as the next process finds it if this one died now, once it may take over.

        Whoever works on the run here is not disturbed.
        """

    def in_groups_of(self, count: int) -> AbstractContextManager[None]:
        """Let one statement write at most so many rows, if the ledger writes many by one."""


Places: TypeAlias = Callable[[], Place]


class SqlitePlace:
    """A run file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "run.db"

    def open(
        self, kind: RunKind | None = None, *, settings: Mapping[str, object] | None = None, clock: Clock | None = None
    ) -> AbstractAsyncContextManager[Ledger]:
        return SqliteLedger.open(self.file, kind=kind, settings=settings, clock=clock)

    def beside(self, ledger: Ledger) -> AbstractAsyncContextManager[Ledger]:
        return nullcontext(ledger)

    def read(self) -> AbstractAsyncContextManager[LedgerReader]:
        return SqliteReader.read(self.file)

    @asynccontextmanager
    async def crashed(self) -> AsyncIterator[Ledger]:
        """The files as they lie on disk, opened elsewhere."""
        with TemporaryDirectory(dir=self.file.parent) as image:
            for file in (self.file, self.file.with_name("run.db-wal")):
                shutil.copy(file, image)
            async with SqliteLedger.open(Path(image, "run.db")) as ledger:
                yield ledger

    @contextmanager
    def in_groups_of(self, count: int) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (sqlite_transaction, sqlite_transitions, sqlite_intake):
                patch.setattr(module, "TOGETHER", count)
            yield


_COPY = """
WITH made AS (
    INSERT INTO invoicing.runs (name, kind, settings, created, late, last_seq, last_command)
    SELECT %s, kind, settings, created, late, last_seq, last_command FROM invoicing.runs WHERE name = %s
    RETURNING run
), origin AS (
    SELECT run, late FROM invoicing.runs WHERE name = %s
), items AS (
    INSERT INTO invoicing.items (run, seq, key, state, attempt, request_id, other_request_id, invoice_id, path, size,
        sha256, code, error, result, payload_sha256, sent_at, updated)
    SELECT made.run, seq, key, state, attempt, request_id, other_request_id, invoice_id, path, size,
        sha256, code, error, result, payload_sha256,
        least(sent_at, clock_timestamp()) - make_interval(secs => late), updated
    FROM invoicing.items JOIN origin USING (run) CROSS JOIN made
), drafts AS (
    INSERT INTO invoicing.drafts (run, seq, payload)
    SELECT made.run, seq, payload FROM invoicing.drafts JOIN origin USING (run) CROSS JOIN made
), journal AS (
    INSERT INTO invoicing.journal (run, item, event, attempt, at, worker, grp, detail)
    SELECT made.run, item, event, attempt, at, worker, grp, detail
    FROM invoicing.journal JOIN origin USING (run) CROSS JOIN made ORDER BY id
)
INSERT INTO invoicing.tally (run, state, worker, count)
SELECT made.run, state, worker, count FROM invoicing.tally JOIN origin USING (run) CROSS JOIN made
"""
"""A run beside itself under another name, whose intents are so old that nothing of them may still arrive."""


class PostgresPlace:
    """A run of a name of its own in a database of the tests."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._run = secrets.token_hex(8)
        self._clock: Clock | None = None

    @property
    def address(self) -> ServerAddress:
        return self._address(self._run)

    def _address(self, run: str) -> ServerAddress:
        address = run_address(self._database.address(run))
        assert isinstance(address, ServerAddress)
        return address

    def open(
        self, kind: RunKind | None = None, *, settings: Mapping[str, object] | None = None, clock: Clock | None = None
    ) -> AbstractAsyncContextManager[Ledger]:
        self._clock = clock
        return PostgresLedger.open(self.address, kind=kind, settings=settings, clock=clock, environ=WAIVED)

    def beside(self, ledger: Ledger) -> AbstractAsyncContextManager[Ledger]:
        """Another process as the database sees it: with connections of its own, known by another number."""
        return PostgresLedger.open(self.address, kind=ledger.kind, clock=self._clock, environ=WAIVED)

    def read(self) -> AbstractAsyncContextManager[LedgerReader]:
        return PostgresReader.read(self.address, environ=WAIVED)

    @asynccontextmanager
    async def crashed(self) -> AsyncIterator[Ledger]:
        """A copy of the run in the same database, whose sender nobody hears of any more."""
        copy = secrets.token_hex(8)
        async with await connect(self.address, environ=WAIVED) as connection:
            await connection.execute(_COPY, (copy, self._run, self._run))
        async with PostgresLedger.open(self._address(copy), environ=WAIVED) as ledger:
            yield ledger

    @contextmanager
    def in_groups_of(self, count: int) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (groups, transitions, sweep, intake):
                patch.setattr(module, "TOGETHER", count)
            yield


WAIVED = {"INVOICING_LEDGER_WAIVE": "fsync"}
"""Lets runs be kept by a server that is not asked to survive the loss of power."""

KINDS = ("sqlite", "postgres")
"""Each kind of ledger by its name."""


@pytest.fixture(scope="session", params=KINDS)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """Make places for runs of one kind of ledger after the other."""
    if request.param == "sqlite":
        yield lambda: SqlitePlace(tmp_path_factory.mktemp("run"))
        return
    database = request.getfixturevalue("postgres_server").database()
    yield lambda: PostgresPlace(database)
    database.drop()


@pytest.fixture
def place(places: Places) -> Place:
    """A place for a run."""
    return places()
