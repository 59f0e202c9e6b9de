"""What became of an order document, recorded only while nobody else has moved on with the item.

An outcome bears the attempt that the item stood in when its work was begun. Attempts add up over the commands of a run,
so that a late one never passes for one of now.
"""

from __future__ import annotations

import logging
from functools import partial

from attrs import frozen

from .._core.error_words import words_of
from ..documents import DownloadOutcome
from ..models import Deferred, Failed, Saved, Skipped
from .items import current_item, saved_document
from .protocol import Ledger
from .records import Item, SupersededError
from .states import ON_DISK, DocumentState

__all__ = ["DocumentRecords"]

_log = logging.getLogger("invoicing_async")

TRIES = 3
"""How often a file that is there is recorded again over what other workers say of an item without one."""


@frozen
class DocumentRecords:
    """The outcomes of a run's documents in its ledger."""

    _ledger: Ledger

    async def plan_again(self, item: Item, fault: str) -> bool:
        """Plan what is missing or broken; false if another worker has moved on with it meanwhile."""
        # A file that was there before this library asked is not ours to replace.
        path, number = item.path if item.state == DocumentState.SAVED else None, item.attempt
        try:
            await self._ledger.record_document(
                item.seq, DocumentState.PLANNED, path=path, error=fault, attempt=number, begun=number
            )
        except SupersededError:
            return False
        return True

    async def record(self, item: Item, outcome: DownloadOutcome) -> DownloadOutcome:
        """Record an outcome and return it; what another worker has recorded meanwhile stays, unless it has no file."""
        has_file = isinstance(outcome, (Saved, Skipped))
        for _ in range(TRIES):
            try:
                await self._write(item, outcome)
            except SupersededError:
                item = await current_item(self._ledger, item.seq)
            else:
                return outcome
            if item.state in ON_DISK:
                _log.info("%r was recorded by another worker meanwhile", item.key)
                return Skipped(item.key, saved_document(item))
            if not has_file:
                break
        return outcome

    async def _write(self, item: Item, outcome: DownloadOutcome) -> None:
        record = partial(self._ledger.record_document, item.seq, begun=item.attempt)
        match outcome:
            case Saved(_, document) | Skipped(_, document):
                await record(
                    DocumentState.SAVED if isinstance(outcome, Saved) else DocumentState.SKIPPED,
                    path=document.address,
                    size=document.size,
                    sha256=document.sha256,
                    request_id=document.request_id,
                    attempt=item.attempt + max(document.attempts, 1),
                )
            case Deferred(_, error) | Failed(_, error):
                await record(
                    DocumentState.DEFERRED if isinstance(outcome, Deferred) else DocumentState.FAILED,
                    path=item.path,
                    request_id=getattr(error, "request_id", None),
                    code=getattr(error, "code", None),
                    error=words_of(error),
                    attempt=item.attempt + max(len(getattr(error, "attempts", ())), 1),
                )
