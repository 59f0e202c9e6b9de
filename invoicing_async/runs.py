"""Durable runs: what is left is computed from a run file, done, and recorded, so that a crash loses nothing."""

from __future__ import annotations

from ._durable.address import FileAddress, RunAddress, ServerAddress, run_address, server_address
from ._durable.answers import RecordedAnswer, authority_status, recorded_answer, recorded_request
from ._durable.checking import Checked, check_files
from ._durable.document_run import DocumentRun
from ._durable.doubts import UNKNOWN_LATE, Reconcile
from ._durable.figures import Durations, Reason, RunFigures
from ._durable.importing import ImportedRun, moved_to
from ._durable.invoice_run import InvoiceRun
from ._durable.ledger import SqliteReader
from ._durable.ledgers import (
    LedgerTables,
    import_run,
    ledger_tables,
    migrate_ledger,
    pause_run,
    read_run,
    run_file,
    standing_of,
    unhalt_run,
    unpause_run,
)
from ._durable.lock import holder_of
from ._durable.overview import Authority, Overview, apparent_state, count_without_file, follow, own_counts
from ._durable.protocol import Ledger, LedgerReader
from ._durable.records import (
    DamagedRunError,
    DraftConflictError,
    Holder,
    Intake,
    Item,
    JournalEntry,
    LedgerAwayError,
    LedgerSchemaError,
    LedgerServerError,
    Moved,
    Pause,
    RequestIdTakenError,
    RunChangedError,
    RunFileError,
    RunHaltedError,
    RunLockedError,
    RunMovedError,
    RunPausedError,
    SupersededError,
)
from ._durable.run_settings import ExportTo, RunPace, RunSettings, export_layout
from ._durable.standing import LaneStanding, Standing, TableStanding, WorkerStanding
from ._durable.states import DocumentState, RunKind, State
from ._durable.timeline import Stretch, Timeline
from .errors import ResolutionTooEarlyError

__all__ = [
    "UNKNOWN_LATE",
    "Authority",
    "Checked",
    "DamagedRunError",
    "DocumentRun",
    "DocumentState",
    "DraftConflictError",
    "Durations",
    "ExportTo",
    "FileAddress",
    "Holder",
    "ImportedRun",
    "Intake",
    "InvoiceRun",
    "Item",
    "JournalEntry",
    "LaneStanding",
    "Ledger",
    "LedgerAwayError",
    "LedgerReader",
    "LedgerSchemaError",
    "LedgerServerError",
    "LedgerTables",
    "Moved",
    "Overview",
    "Pause",
    "Reason",
    "Reconcile",
    "RecordedAnswer",
    "RequestIdTakenError",
    "ResolutionTooEarlyError",
    "RunAddress",
    "RunChangedError",
    "RunFigures",
    "RunFileError",
    "RunHaltedError",
    "RunKind",
    "RunLockedError",
    "RunMovedError",
    "RunPace",
    "RunPausedError",
    "RunSettings",
    "ServerAddress",
    "SqliteReader",
    "Standing",
    "State",
    "Stretch",
    "SupersededError",
    "TableStanding",
    "Timeline",
    "WorkerStanding",
    "apparent_state",
    "authority_status",
    "check_files",
    "count_without_file",
    "export_layout",
    "follow",
    "holder_of",
    "import_run",
    "ledger_tables",
    "migrate_ledger",
    "moved_to",
    "own_counts",
    "pause_run",
    "read_run",
    "recorded_answer",
    "recorded_request",
    "run_address",
    "run_file",
    "server_address",
    "standing_of",
    "unhalt_run",
    "unpause_run",
]
