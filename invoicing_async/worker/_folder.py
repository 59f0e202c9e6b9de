"""The folder that a worker saves into, beside others on other machines: whose half a file is, and who is dead."""

from __future__ import annotations

import logging

from .._durable.records import RunFileError
from .._files.names import worker_label
from .._files.writer import DiskWriter
from ..session._internals import Internals
from ..stores import sweep_folder
from ._shared import SharedLedger

__all__ = ["SharedFolder"]

_log = logging.getLogger("invoicing_async")

DEAD = """
SELECT worker FROM invoicing.workers WHERE run = %(run)s AND heartbeat < clock_timestamp() - interval '1 hour'
"""
"""Who has said nothing for an hour, whether it ended or not: what it left half done nobody completes."""


class SharedFolder:
    """A folder, or nothing for a store of objects, and the session that saves there for a worker of a run.

    `sign` lets temporary files bear the worker. `sweep` takes away what workers left that are dead for an hour, on
    whatever machine they were; those of this machine are also known by their locks.
    """

    def __init__(self, ledger: SharedLedger, session: Internals, place: str | None) -> None:
        self._ledger = ledger
        self._session = session
        self._folder = None if place is None or "://" in place else place

    def sign(self) -> None:
        """Let temporary files bear this worker from now on."""
        self._session.resource(DiskWriter).worker = worker_label(self._ledger.name, self._ledger.worker_id)

    async def sweep(self) -> None:
        """Remove what dead workers left unfinished; it is no trouble if that cannot be done."""
        if self._folder is None:
            return
        try:
            if removed := await sweep_folder(self._folder, self.dead):
                _log.info("%d unfinished files of dead workers were removed from %s", removed, self._folder)
        except FileNotFoundError:
            pass  # nothing was saved there so far
        except (OSError, RunFileError) as error:
            _log.info("unfinished files of dead workers were not looked for: %s", error)

    async def dead(self, labels: frozenset[str]) -> set[str]:
        """Return which of these labels are of workers of the run that are dead for an hour."""
        name = self._ledger.name
        return {
            label for (worker,) in await self._ledger.select(DEAD) if (label := worker_label(name, worker)) in labels
        }
