"""Which failures have the same cause, so that a batch can stop after the first few of them."""

from __future__ import annotations

from ..errors import ApiError, DraftError, InvoicingError, SubmissionInDoubtError
from .outcomes import Fate, fate
from .ramp import Cause, Verdict

__all__ = ["of_document", "of_submission"]


def of_submission(error: Exception) -> Cause | Verdict:
    """Return the cause of a failed submission: type, status, code and what it means for the invoice.

    A draft with faults was not asked for, so it says nothing.
    """
    if isinstance(error, DraftError):
        return Verdict.SILENT
    kind: BaseException = error
    meaning = fate(error) if isinstance(error, InvoicingError) else Fate.IN_DOUBT
    if isinstance(error, SubmissionInDoubtError):
        kind, meaning = error.__cause__ or error, Fate.IN_DOUBT
    return Cause(_key(kind, error, meaning), error, of_item=meaning is Fate.REJECTED)


def of_document(error: Exception) -> Cause | Verdict:
    """Return the cause of a document that could not be had.

    A 4xx with a code of the service, but 401, 403, 405 and 429, is about that order. An id that is none and a file
    that cannot be written (a full disk ends a batch by itself) say nothing of the service.
    """
    if not isinstance(error, InvoicingError):
        return Verdict.SILENT
    about_it = isinstance(error, ApiError) and 400 <= error.status < 500 and error.status not in {401, 403, 405, 429}  # noqa: PLR2004 - HTTP's own numbers
    if about_it and getattr(error, "code", None) is not None:
        return Verdict.ANSWERED
    return Cause(_key(error, error, None), error, of_item=about_it)


def _key(kind: BaseException, error: Exception, meaning: Fate | None) -> tuple[object, ...]:
    return type(kind), getattr(error, "status", None), getattr(error, "code", None), meaning
