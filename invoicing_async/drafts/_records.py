"""What is read of a drafts file: a draft with its line, or what is wrong with it."""

from __future__ import annotations

from attrs import evolve, frozen

from .._einvoices import rules
from .._values.table import LineFault
from ..errors import DraftError
from ..models import InvoiceDraft

__all__ = ["NUL", "SHOWN", "DraftAt", "DraftsFileError", "Record", "canonical"]

NUL = "\x00"


SHOWN = 40
"""Characters of a bad value that its fault shows."""


class DraftsFileError(DraftError):
    """A file of drafts has faults. `faults` holds every one of the file, each a `LineFault`, in the order of lines."""

    hint: str = "Correct every listed line; nothing was sent."

    def __init__(self, faults: tuple[LineFault, ...] = ()) -> None:
        super().__init__(faults)
        self.faults: tuple[LineFault, ...] = tuple(faults)


@frozen
class DraftAt:
    """A draft without faults and the line of the file on which it begins."""

    line: int
    draft: InvoiceDraft


@frozen
class Record:
    """One draft of a file, or what keeps it from being one."""

    line: int
    draft: InvoiceDraft | None = None
    faults: tuple[LineFault, ...] = ()


def canonical(draft: InvoiceDraft) -> InvoiceDraft:
    """Return a draft its key in the form in which keys are compared."""
    key = rules.canonical_key(draft.key)
    return draft if key == draft.key else evolve(draft, key=key)
