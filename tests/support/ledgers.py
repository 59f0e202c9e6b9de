"""What tests of a ledger share: drafts, names of files, and ledgers of either kind."""

from __future__ import annotations

import json
from pathlib import Path

from invoicing_async._durable import records
from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import (
    NewDraft,
)
from invoicing_async._durable.states import (
    RunKind,
)

DOCUMENTS, INVOICES = RunKind.DOCUMENTS, RunKind.INVOICES
Item = records.Item


def draft(key: str, text: str = "", error: str | None = None) -> NewDraft:
    payload = json.dumps({"key": key, "text": text})
    return NewDraft(key=key, payload=payload, payload_sha256=f"hash of {payload}", error=error)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def documents(ledger: Ledger, count: int) -> None:
    await ledger.add_ids(f"order-{number}" for number in range(1, count + 1))
