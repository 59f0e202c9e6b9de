"""Any number of processes that work on one run on a server: `Worker`.

    async with InvoiceRun.open("postgresql://db.internal/invoicing?run=march") as run:
        async with Worker(run, AsyncInvoices(session)) as worker:
            async for item in worker.items(): ...

The ledger is the truth about what was sent; the queue, kept by procrastinate in the same database, is a hint that may
be lost, doubled or late. `migrate_queue` brings its tables; `blueprint` makes its task for an `App` of your own. Needs
the extra `postgres`, which is imported when a worker begins, not before.

procrastinate was chosen (3.10 looked at): a queue in the database that there is anyway, asyncio and psycopg like the
ledger, with heartbeats of its workers, locks while a job waits, and NOTIFY.

- `_worker`: A worker, as its users see it.
- `_crew`: All that goes on in a worker: its shifts, its heartbeat, its planner and the lives of its engine.
- `_shifts`: The shifts of a worker, one after the other, and the chunks that it has in hand meanwhile.
- `_shift`: What a worker does from when it may work until it must not: the chunks that it takes on, in one stream.
- `_feed`: A run's ledger whose open items come chunk by chunk, as they are given out.
- `_folder`: The folder that a worker saves into, beside others on other machines: whose half a file is, and who is
  dead.
- `_chunks`: The pieces of a run's work as they stand in its queue.
- `_planner`: Gives a job to what is open and has none, and takes away what the dead had.
- `_lives`: The lives of the engine, one after the other.
- `_engine`: One life of the engine: an app with its connections and a worker.
- `_blueprint`: The engine's one task.
- `_queue`: The queue of one run.
- `_outlook`: What there is to do of a run.
- `_statements`: What is asked of the database about the work of a run.
- `_migrations`: The tables of the queue.
- `_watchdog`: A watch over the process from outside its event loop.
- `_status`: What a worker is doing, as one line of JSON.
- `_outlet`: Where the results of a worker wait to be taken.
- `_options`: How a worker works, checked.
- `_shared`: What a worker needs of the ledger of a run that others work on too.
- `_extra`: The optional packages of this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._durable.ledgers import server_parameters
from ._chunks import ChunkStanding, chunk_standing
from ._extra import of_extra
from ._status import WorkerStatus, write_status
from ._worker import Worker

if TYPE_CHECKING:
    from procrastinate import Blueprint

__all__ = [
    "ChunkStanding",
    "Worker",
    "WorkerStatus",
    "blueprint",
    "check_queue",
    "chunk_standing",
    "migrate_queue",
    "write_status",
]


def blueprint() -> Blueprint:
    """Make the task of a worker, to be mounted in an `App` of your own under the namespace `invoicing`.

    Each call makes another, since mounting binds it to that app. Raises `ImportError`, which names the extra.
    """
    with of_extra():
        from ._blueprint import blueprint as made
    return made()


async def check_queue(where: str) -> tuple[str, ...]:
    """Return the names of the steps that `migrate_queue` would do on a server now, none if its queue is up to date.

    Nothing is changed. Raises as `migrate_queue` does.
    """
    with of_extra():
        from ._migrations import missing_steps
    return await missing_steps(server_parameters(where))


async def migrate_queue(where: str) -> tuple[str, ...]:
    """Bring the tables of the queue on a server up to date, and return the names of the steps that were done.

    The address may name a run or none. Two at once are safe. A step that takes away what workers of an earlier version
    still use is left until none of them lives; then migrate again. Raises `LedgerServerError`, `ValueError` for an
    address that is of no server, `ImportError`, which names the extra.
    """
    with of_extra():
        from ._migrations import migrate_schema
    return await migrate_schema(server_parameters(where))
