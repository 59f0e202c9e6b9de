"""What an error says in a line that names its item: in a table, a report, a run file."""

from __future__ import annotations

from ..errors import SubmissionInDoubtError

__all__ = ["words_of"]


def words_of(error: BaseException) -> str:
    """Return what an error says, without the name of its type and without the draft's key, which stands beside it.

    Of one that says nothing it is the name of its type, or that the call was interrupted.
    """
    said = str(error)
    if isinstance(error, SubmissionInDoubtError):
        said = said.removeprefix(f"invoice {error.key!r} ")
    return said or (type(error).__name__ if isinstance(error, Exception) else "interrupted")
