"""The door to files: one writer thread that makes whole documents appear and nothing else.

A document is written to a temporary file beside its place, then published by a hard link, which never replaces
another's file, or by a rename where replacing is asked for. What to do about a name that is taken is decided there
and then, so that any number of tasks, processes and hosts leave one file for one document. A thread hop per file
costs more than the file: jobs queue to one thread, which takes whatever is queued and answers in one call to the loop.

A temporary file is locked while its writer lives (`flock`, gone with the process even after kill -9), so that a
sweep can tell a dead run's leavings from a living one's work. Trouble with the file system stays `OSError`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from ..errors import SessionError
from .existing import MakesProof, Published, difference
from .folders import sync_folder
from .pdf import Checker
from .publish import OnExisting, Publisher, published
from .tempfile import Temp, temp_in

__all__ = ["DiskWriter", "Spool"]

T = TypeVar("T")


BATCH = 256
"""Jobs done at most before their callers hear of it."""


class _Job(Generic[T]):
    """One piece of work for the thread; its future belongs to the loop."""

    __slots__ = ("abandoned", "error", "future", "result")

    durable = False

    def __init__(self, future: asyncio.Future[T]) -> None:
        self.future = future
        self.abandoned = False
        self.result: T | None = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Do the work, or for a durable job what comes before its fsync."""

    def undo(self) -> None:
        """Take back what was done for a waiter that was cancelled meanwhile."""

    def deliver(self) -> None:
        """Answer the waiter, in the loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type] # set whenever there is no error


class _Action(_Job[T]):
    """A function to run on the thread."""

    __slots__ = ("_function", "_undo")

    def __init__(
        self, future: asyncio.Future[T], function: Callable[[], T], undo: Callable[[T], None] | None = None
    ) -> None:
        super().__init__(future)
        self._function = function
        self._undo = undo

    def begin(self) -> None:
        self.result = self._function()

    def undo(self) -> None:
        if self._undo is not None and self.result is not None:
            self._undo(self.result)


class _Publication(_Job[Published]):
    """A body, or a temporary file that holds one already, to be published."""

    __slots__ = ("_body", "_on_existing", "_proof", "durable", "folder", "target", "temp")

    def __init__(
        self,
        future: asyncio.Future[Published],
        folder: Path,
        target: Path,
        body: bytes | Temp,
        on_existing: OnExisting,
        proof: MakesProof | None,
        durable: bool,  # noqa: FBT001 - private, called in one place
    ) -> None:
        super().__init__(future)
        self._proof = proof
        self.folder = folder
        self.target = target
        self.temp = body if isinstance(body, Temp) else None
        self._body = body if isinstance(body, bytes) else b""
        self._on_existing = on_existing
        self.durable = durable

    def begin(self) -> None:
        try:
            if self.temp is None:
                self.temp = temp_in(self.folder)
                self.temp.write(self._body)
                self._body = b""
            if not self.durable:
                self.finish()
        except BaseException:
            self.discard()
            raise

    def sync(self) -> None:
        if self.temp is not None:
            self.temp.sync()

    def finish(self) -> None:
        if self.temp is not None and not self.abandoned:
            publisher = Publisher(self.temp, self.target, self._on_existing, self._proof)
            try:
                self.result = published(publisher, self.target.parent, durable=self.durable)
            finally:
                self.temp = publisher.temp
        else:
            self.discard()

    def discard(self) -> None:
        if self.temp is not None:
            self.temp.discard()

    def undo(self) -> None:
        """Take back what was published for a waiter that was cancelled meanwhile, unless it replaced a file."""
        done = self.result
        if done is None or done.kept or self._on_existing is OnExisting.REPLACE:
            return
        with suppress(OSError):
            # Not what somebody else may have put there since.
            if difference(done.path, size=done.size, digest=done.sha256) is None:
                os.unlink(done.path)


def _guarded(job: _Job[Any], step: Callable[[], None]) -> None:
    if job.error is not None:
        return
    try:
        step()
    except BaseException as exc:  # noqa: BLE001 - the thread must live; the waiter gets the error
        job.error = exc


def _run(jobs: Iterable[_Job[Any]]) -> None:
    """Do a batch: everything at once but the durable ones, whose fsyncs are made together."""
    durable: list[_Publication] = []
    for job in jobs:
        _guarded(job, job.begin)
        if isinstance(job, _Publication) and job.durable:
            durable.append(job)
    if durable:
        _finish_durably(durable)


def _finish_durably(jobs: list[_Publication]) -> None:
    for job in jobs:
        _guarded(job, job.sync)
    for job in jobs:
        _guarded(job, job.finish)
        if job.error is not None:
            job.discard()
    for folder in {job.result.path.parent for job in jobs if job.result is not None}:
        _sync_for(folder, jobs)


def _sync_for(folder: Path, jobs: list[_Publication]) -> None:
    try:
        sync_folder(folder)
    except OSError as exc:
        for job in jobs:
            if job.result is not None and job.result.path.parent == folder:
                job.error = exc
                job.undo()


class DiskWriter:
    """Publishes whole files from one thread. Make it inside the event loop that uses it; it starts when needed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job[Any]] = deque()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._called = False
        self._finished: deque[_Job[Any]] = deque()
        self._told = False
        self._thread: Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    async def store(
        self,
        folder: Path,
        target: Path,
        body: bytes | Temp,
        *,
        on_existing: OnExisting = OnExisting.NEW_NAME,
        proof: MakesProof | None = Checker,
        durable: bool = False,
    ) -> Published:
        """Publish a body held in memory at `target`, by way of a temporary file in `folder`. Raises `OSError`.

        With `OnExisting.KEEP` a document that stands there and proves whole by `proof` is given instead; with no
        proof the name may be another document's, and only one of the very same content is. A spool hands its
        temporary file over in place of the body.

        `durable` returns only after file and folder are on the disk; such fsyncs are made together. Cancelling
        leaves no file, or where it replaced one, the whole new one.
        """
        job = _Publication(self._loop.create_future(), folder, target, body, on_existing, proof, durable)
        return await self._done(job)

    async def spool(self, folder: Path) -> Spool:
        """Begin a document that is too large for memory."""
        temp = await self.run(lambda: temp_in(folder), undo=lambda made: made.discard())
        return Spool(self, folder, temp)

    async def run(self, function: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
        """Run a function on the thread, behind what is queued. `undo` takes its result back after a cancel."""
        return await self._done(_Action(self._loop.create_future(), function, undo))

    async def _done(self, job: _Job[T]) -> T:
        self._put(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            job.abandoned = True
            await self._undone(job)
            raise

    async def _undone(self, job: _Job[Any]) -> None:
        """Take back, behind what is queued, what nobody waits for any more."""
        if self._ended is not None:
            await _uninterrupted(self._ended)
            job.undo()
            return
        undoing = _Action(self._loop.create_future(), job.undo)
        self._put(undoing)
        await _uninterrupted(undoing.future)

    def _put(self, job: _Job[Any]) -> None:
        if self._ended is not None:
            raise SessionError("the session is closed")
        if self._thread is None:
            self._thread = Thread(target=self._work, name="invoicing-disk", daemon=True)
            self._thread.start()
        self._jobs.append(job)
        # One call for all that is asked for while the thread is on its way: waking it costs more than its work. The
        # flag is looked at after the job is there, and cleared before the thread looks for jobs.
        if not self._called:
            self._called = True
            self._calls.put(True)

    def _work(self) -> None:
        alive = True
        while alive and self._calls.get():
            self._called = False
            while alive and (jobs := self._taken()):
                _run(jobs)
                alive = self._answer(jobs)
        self._tell(self._end)

    def _taken(self) -> list[_Job[Any]]:
        return [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH))]

    def _answer(self, jobs: list[_Job[Any]]) -> bool:
        """Let the loop deliver; false if it is closed and nobody waits any more."""
        self._finished.extend(jobs)
        if self._told:  # and has yet to come: it will find these as well
            return not self._loop.is_closed()
        self._told = True
        return self._tell(self._deliver)

    def _tell(self, callback: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _deliver(self) -> None:
        self._told = False
        while self._finished:
            self._finished.popleft().deliver()

    def _end(self) -> None:
        if self._ended is not None:
            self._ended.set_result(None)

    async def close(self) -> None:
        """Finish what is queued and end the thread."""
        if self._ended is not None:
            return
        self._ended = self._loop.create_future()
        if self._thread is not None:
            for more in (True, False):
                self._calls.put(more)
            await _uninterrupted(self._ended)
            self._thread.join()


async def _uninterrupted(future: asyncio.Future[Any]) -> None:
    """Wait for the thread, which ends soon, through any further cancellation."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])


class Spool:
    """A document on its way to the disk in pieces; ends with `publish` or `discard`."""

    def __init__(self, writer: DiskWriter, folder: Path, temp: Temp) -> None:
        self._writer = writer
        self._folder = folder
        self._temp = temp

    async def write(self, pieces: list[bytes]) -> None:
        """Append pieces in one hop. Raises `OSError`."""
        await self._writer.run(lambda: self._temp.write(b"".join(pieces)))

    async def publish(
        self, target: Path, *, on_existing: OnExisting, proof: MakesProof | None = Checker, durable: bool
    ) -> Published:
        """Publish what was written; see `DiskWriter.store`."""
        return await self._writer.store(
            self._folder, target, self._temp, on_existing=on_existing, proof=proof, durable=durable
        )

    async def discard(self) -> None:
        """Remove the temporary file, also when the writer is closed; nothing happens after a publish."""
        try:
            await self._writer.run(self._temp.discard)
        except SessionError:
            self._temp.discard()
