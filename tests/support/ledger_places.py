"""The kinds of ledgers that the tests in `tests/durable/contract` are run over.

Another implementation is one more line in `KINDS`.
"""

from __future__ import annotations

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
from typing import Protocol, TypeAlias

import pytest

from invoicing_async._core.clock import Clock
from invoicing_async._durable import intake, transaction, transitions
from invoicing_async._durable.ledger import SqliteLedger, SqliteReader
from invoicing_async._durable.protocol import Ledger, LedgerReader
from invoicing_async._durable.states import RunKind


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
            for module in (transaction, transitions, intake):
                patch.setattr(module, "TOGETHER", count)
            yield


KINDS: dict[str, Callable[[Path], Place]] = {
    "sqlite": SqlitePlace,
}
"""Each kind of ledger by its name: what makes a place for a run of it, in a folder that is the test's."""


@pytest.fixture(scope="session", params=KINDS)
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Make places for runs of one kind of ledger after the other."""
    make: Callable[[Path], Place] = KINDS[request.param]

    def place() -> Place:
        return make(tmp_path_factory.mktemp("run"))

    return place


@pytest.fixture
def place(places: Places) -> Place:
    """A place for a run."""
    return places()
