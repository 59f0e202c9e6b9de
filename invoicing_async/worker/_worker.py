"""A worker of a run on a server: `Worker`."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from .._core.clock import RealClock
from .._durable.document_run import DocumentRun
from .._durable.invoice_run import InvoiceRun
from .._durable.records import Item
from .._einvoices.poll_scheduler import Schedule
from ..documents import DownloadOutcome, OrderDocuments
from ..documents._client import work_of as documents_work
from ..events import Event
from ..invoices import AsyncInvoices
from ..invoices._client import work_of as invoices_work
from ._extra import of_extra
from ._folder import SharedFolder
from ._options import Options, OptionValues
from ._shared import SharedLedger
from ._shift import DocumentShift, InvoiceShift, InvoiceWay, Shift
from ._status import WorkerStatus

if TYPE_CHECKING:
    from ._crew import Crew

__all__ = ["Worker"]

T = TypeVar("T")


class Worker(Generic[T]):
    """Works on its part of a run on a server, beside any number of others: on the chunks that it gets of the queue.

    `client` is `AsyncInvoices` for an `InvoiceRun`, `OrderDocuments` for a `DocumentRun`, of a session with the run's
    pace. `concurrency` and `poller` are as for `InvoiceRun.run`; with `export` finished invoices are exported if the
    run is to. `slots` (8) is of how many chunks something is to be sent at once, while more are
    only awaited, `chunk` (200) how many keys one has at most; a short
    run has smaller ones, so that each slot has several. `heartbeat` (5) is in seconds.

    With `until_done`, the default, it ends when the run rests: when nothing is open that anybody could do now. What was
    tried in vain since the last worker began is left, as a command on a file leaves it, and what others have in hand is
    waited for. Without it the worker stays.

    `listen` off asks for new jobs every second, and holds no connection for that. `is_pooled` is for PgBouncer in
    transaction mode: no listening, no prepared statements, and the role's own `search_path` must lead to
    `invoicing_queue`. `watchdog`, in seconds, ends the PROCESS with exit code 70 when its event loop or its heartbeat
    stands still for so long, at least 30, although the database can be reached; off by default. `app` is an `App` of
    your own in which `blueprint()` is mounted as `invoicing`; without it the worker makes one.

    What is under way is not cut off by the loss of the database or of the engine: what came back of the service is
    recorded, for as long as the database takes.
    """

    @overload
    def __init__(
        self: Worker[Item],
        run: InvoiceRun,
        client: AsyncInvoices,
        *,
        poller: Schedule | None = ...,
        export: bool = ...,
        **options: Unpack[OptionValues],
    ) -> None: ...

    @overload
    def __init__(
        self: Worker[DownloadOutcome], run: DocumentRun, client: OrderDocuments, **options: Unpack[OptionValues]
    ) -> None: ...

    def __init__(
        self,
        run: InvoiceRun | DocumentRun,
        client: AsyncInvoices | OrderDocuments,
        *,
        poller: Schedule | None = None,
        export: bool = True,
        **options: Unpack[OptionValues],
    ) -> None:
        ledger = run.ledger
        if not isinstance(ledger, SharedLedger):
            raise ValueError(f"a worker is for a run on a server, and {ledger.name} is a file: use its run itself")
        self._ledger = ledger
        self._options = Options(**options)
        self._begin: Callable[[], Shift[Any]]
        self._tell: Callable[[Event], None]
        place: str | None
        self._exports = False
        if isinstance(run, InvoiceRun) and isinstance(client, AsyncInvoices):
            way = InvoiceWay(
                concurrency=self._options.concurrency,
                poller=poller,
                export=run.settings.export if export else None,
                goes_on=self._options.until_done,
            )
            self._exports = way.export is not None
            session, place = invoices_work(client).session, None if way.export is None else str(way.export.folder)
            tell = self._tell = session.tell
            self._begin = lambda: InvoiceShift(ledger, tell, client, way)
        elif isinstance(run, DocumentRun) and isinstance(client, OrderDocuments):
            session, place = documents_work(client).session, run.place
            tell = self._tell = session.tell
            self._begin = lambda: DocumentShift(ledger, tell, client, concurrency=self._options.concurrency)
        else:
            raise ValueError("client must be AsyncInvoices for an InvoiceRun, OrderDocuments for a DocumentRun")
        self._folder = SharedFolder(ledger, session, place)
        self._crew: Crew[T] | None = None
        self._items = 0
        self._is_stopping = False

    async def __aenter__(self) -> Self:
        """Go to work. Raises `ImportError`, which names the extra, without procrastinate."""
        with of_extra():
            from ._crew import Crew
        self._crew = Crew(self._ledger, self._begin, self._options, self._tell, self._folder)
        self._crew.shifts.exports = self._exports  # a run of which all is made, and not all is saved, is not at rest
        await self._crew.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let what is in flight finish and be recorded. Cancelled, it is recorded as in doubt."""
        crew = self._entered()
        crew.outlet.leave()
        await crew.end()

    async def items(self) -> AsyncGenerator[T]:
        """Yield each item of this worker's part when it has come to rest, or cannot be gone on with now.

        Of invoices the `Item` as it is recorded, of documents what `DocumentRun.download` yields. It ends when the run
        rests, or when the worker was stopped and what was in flight has finished. Raises what ends a command on a run:
        `AuthenticationError`, `BatchStoppedError`, `RunHaltedError`; `LedgerSchemaError` if the database has no queue,
        and `LedgerServerError` when for a minute its engine met what waiting does not mend. To be taken to its end,
        since what is not taken slows the work down.
        """
        async with aclosing(self._entered().outlet.taken()) as results:
            async for result in results:
                self._items += 1
                yield result

    def stop(self) -> None:
        """Let what is in flight finish and begin nothing more; the second time, let it be recorded as in doubt.

        `Session.stop_waiting` ends what waits for a service that is down.
        """
        crew = self._entered()
        crew.stop(at_once=self._is_stopping)
        self._is_stopping = True

    async def plan(self) -> None:
        """See that everything open has a job, at once and not within seconds: for after more was taken in."""
        await self._entered().plan()

    def status(self) -> WorkerStatus:
        """Return what this worker is doing."""
        crew = self._entered()
        return WorkerStatus(
            at=RealClock().now(),
            run=self._ledger.address.run,
            worker=self._ledger.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("invoicing-async"),
            doing=crew.doing,
            slots=self._options.slots,
            chunks=len(crew.parts),
            items=self._items,
            heartbeat=crew.heartbeat,
            rebuilt=max(0, crew.lives.count - 1),
        )

    def _entered(self) -> Crew[T]:
        if self._crew is None:
            raise ValueError("a worker works inside its `async with` block")
        return self._crew
