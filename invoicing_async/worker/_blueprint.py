"""The engine's one task: to work on a chunk of a run."""

from __future__ import annotations

from typing import Protocol

from procrastinate import Blueprint, JobContext

__all__ = ["NAMESPACE", "TASK", "WORKER", "ChunkWorker", "blueprint"]

NAMESPACE = "invoicing"
TASK = f"{NAMESPACE}:chunk"
WORKER = "invoicing_async"
"""What the engine's context names the worker by."""


class ChunkWorker(Protocol):
    """Who does the jobs of a run."""

    async def work(self, job: int, run: int, lo: int, hi: int) -> None:
        """Work on the items of a run from `lo` to `hi`, and return when there is nothing more to do on them."""

    async def room(self) -> None:
        """Wait until there is room for another chunk."""

    def let_go(self, job: int) -> None:
        """Note a job that was done, or cut off, and may not have been ended in the queue."""


def blueprint() -> Blueprint:
    """Make the tasks of this library, to be mounted in an `App` under the namespace `invoicing`.

    Each call makes others, since mounting them binds them to that app. An error of a chunk is no failure of its job:
    the worker it runs in tells it.
    """
    made = Blueprint()

    @made.task(name="chunk", pass_context=True)
    async def chunk(context: JobContext, *, run: int, lo: int, hi: int) -> None:
        worker: ChunkWorker = context.additional_context[WORKER]
        await worker.work(context.job.id or 0, run, lo, hi)

    return made
