"""A batch of drafts, submitted."""

from __future__ import annotations

from typing import TypeAlias

from .._core.causes import of_submission
from .._core.error_words import words_of
from .._core.outcomes import Fate, fate
from .._core.ramp import Cause, Verdict
from .._einvoices.rules import canonical_key
from .._values.digest_set import DigestSet
from ..errors import ApiError, DraftError, InvoicingError, SessionError, SubmissionInDoubtError
from ..models import Duplicate, InDoubt, Invalid, InvoiceDraft, InvoiceRequest, NotSent, Rejected, Submitted
from ..session import Sleep
from ._calls import Calls

__all__ = ["Submissions", "SubmitOutcome", "judge_outcome"]

SubmitOutcome: TypeAlias = Submitted | Rejected | InDoubt | Invalid | NotSent | Duplicate[InvoiceDraft]


class Submissions:
    """The submissions of one batch: which keys it had, and of which drafts the first byte may have left."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._keys = DigestSet()
        self._left: dict[int, InvoiceDraft] = {}

    async def submitted(self, draft: InvoiceDraft, sleep: Sleep) -> SubmitOutcome:
        """Submit a draft once and return its outcome; raise only what ends the batch."""
        try:
            body = self._calls.encode(draft)
            if not self._keys.add(canonical_key(draft.key)):
                return Duplicate(draft.key, draft)
            return Submitted(draft, await self._sent(draft, body, sleep))
        except DraftError as error:
            return Invalid(draft, error)
        except SubmissionInDoubtError as error:
            return InDoubt(draft, error)
        except InvoicingError as error:
            if self._calls.session.ends_batch(error):
                self._left.pop(id(draft), None)
                raise
            if isinstance(error, ApiError) and fate(error) is Fate.REJECTED:
                return Rejected(draft, error)
            return NotSent(draft, error)
        except Exception as error:  # noqa: BLE001 - it may have come after the first byte
            return self.abandoned(draft, error)

    async def _sent(self, draft: InvoiceDraft, body: bytes, sleep: Sleep) -> InvoiceRequest:
        async def back_off(seconds: float) -> None:
            # Only what provably made no invoice is tried again.
            self._left.pop(id(draft), None)
            await sleep(seconds)

        def leaves() -> None:
            self._left[id(draft)] = draft

        request = await self._calls.submit(body, draft.key, back_off, None, leaves)
        self._left.pop(id(draft), None)
        return request

    def abandoned(self, draft: InvoiceDraft, error: BaseException) -> SubmitOutcome:
        """Return the outcome of a draft whose submission was cut off, or never begun: what left is in doubt."""
        if self._left.pop(id(draft), None) is not None:
            text = f"invoice {draft.key!r} may or may not have been created: {words_of(error)}"
            doubt = SubmissionInDoubtError(text, key=draft.key)
            doubt.__cause__ = error
            return InDoubt(draft, doubt)
        left = SessionError(f"the batch was left: {words_of(error)}")
        return NotSent(draft, error if isinstance(error, Exception) else left)


def judge_outcome(outcome: SubmitOutcome) -> Cause | Verdict:
    match outcome:
        case Submitted():
            return Verdict.WELL
        case Rejected(_, error) | InDoubt(_, error) | NotSent(_, error):
            return of_submission(error)
        case _:
            return Verdict.SILENT
