"""What there is to do of a run, as the queue and the ledger have it together."""

from __future__ import annotations

from typing import TypeAlias

from attrs import frozen

__all__ = ["Chunk", "Outlook", "queue_of"]

Chunk: TypeAlias = tuple[int, int]
"""The items of a run from one number to another, both included."""


def queue_of(run: int) -> str:
    """Return the name of the queue that has the jobs of a run, by the run's number."""
    return f"invoicing-run-{run}"


@frozen
class Outlook:
    """What is to do at one moment: chunks that are due a job, how many have one, whether anything is on its way."""

    due: tuple[Chunk, ...]
    live: int
    sending: bool

    @property
    def rests(self) -> bool:
        """Whether nobody has anything to do, nor will have by itself."""
        return not (self.due or self.live or self.sending)
