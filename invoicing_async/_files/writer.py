"""The adapter to the file system: one writer thread that publishes whole documents.

A document is written to a temporary file beside its place, then published by a hard link, which never replaces
another's file, or by a rename where replacing is asked for. What to do about a name that is taken is decided there
and then, so that any number of tasks, processes and hosts leave one file for one document. A hand-over
per file costs more than the file: jobs queue to one thread, which takes whatever is queued and answers in one call to
the loop.

A temporary file is locked while its writer lives (`flock`, gone with the process even after kill -9), so that a
sweep can tell the files of a dead process from those of a living one. Trouble with the file system stays `OSError`.
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

from attrs import define, field

from ..errors import SessionError
from .existing import Published, difference
from .folders import sync_folder
from .names import NOBODY
from .publish import Destination, OnExisting, Publisher
from .tempfile import Temp, temp_in

__all__ = ["DiskWriter", "Spool"]

T = TypeVar("T")


BATCH = 256
"""Jobs done at most before their callers are answered."""


@define(eq=False)
class _Job(Generic[T]):
    """One piece of work for the thread; its future belongs to the loop."""

    future: asyncio.Future[T]
    abandoned: bool = field(default=False, init=False)
    result: T | None = field(default=None, init=False)
    error: BaseException | None = field(default=None, init=False)

    def begin(self) -> None:
        """Do the work, or for a durable job what comes before its fsync."""

    def undo(self) -> None:
        """Take back what was done for a waiter that was cancelled meanwhile."""


@define(eq=False)
class _Action(_Job[T]):
    """A function to run on the thread."""

    _function: Callable[[], T]
    _undo: Callable[[T], None] | None = None

    def begin(self) -> None:
        self.result = self._function()

    def undo(self) -> None:
        if self._undo is not None and self.result is not None:
            self._undo(self.result)


@define(eq=False)
class _Publication(_Job[Published]):
    """A body, or a temporary file that holds one already, to be published."""

    destination: Destination
    _content: bytes | Temp
    _worker: str

    def begin(self) -> None:
        try:
            if isinstance(self._content, bytes):
                body, self._content = self._content, temp_in(self.destination.folder, self._worker)
                self._content.write(body)
            if not self.destination.durable:
                self.finish()
        except BaseException:
            self.discard()
            raise

    def sync(self) -> None:
        if isinstance(self._content, Temp):
            self._content.sync()

    def finish(self) -> None:
        if isinstance(self._content, Temp) and not self.abandoned:
            publisher = Publisher(self._content, self.destination)
            try:
                self.result = publisher.publish()
            finally:
                self._content = publisher.temp
        else:
            self.discard()

    def discard(self) -> None:
        if isinstance(self._content, Temp):
            self._content.discard()

    def undo(self) -> None:
        """Take back what was published for a waiter that was cancelled meanwhile, unless it replaced a file.

        What is shared stays: another process may have found it, and recorded it as its own.
        """
        done, to = self.result, self.destination
        if done is None or done.kept or to.shared or to.on_existing is OnExisting.REPLACE:
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
        if isinstance(job, _Publication) and job.destination.durable:
            durable.append(job)
    for job in durable:
        _guarded(job, job.sync)
    for job in durable:
        _guarded(job, job.finish)
        if job.error is not None:
            job.discard()
    for folder in {job.result.path.parent for job in durable if job.result is not None}:
        try:
            sync_folder(folder)
        except OSError as exc:
            for job in durable:
                if job.result is not None and job.result.path.parent == folder:
                    job.error = exc
                    job.undo()


class DiskWriter:
    """Publishes whole files from one thread. Make it inside the event loop that uses it; it starts when needed.

    `worker` is the run's worker that it writes for, as its temporary files bear it: up to 32 lowercase letters and
    digits, unlike those of all other workers that may write there. `prepared` are the folders that were swept.
    """

    def __init__(self) -> None:
        self.worker = NOBODY
        self.prepared: set[Path] = set()
        self._loop = asyncio.get_running_loop()
        self._jobs: deque[_Job[Any]] = deque()
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._is_woken = False
        self._finished: deque[_Job[Any]] = deque()
        self._will_deliver = False
        self._thread: Thread | None = None
        self._ended: asyncio.Future[None] | None = None

    async def store(self, destination: Destination, body: bytes | Temp) -> Published:
        """Publish a body held in memory, by way of a temporary file in the destination's folder. Raises `OSError`.

        With `OnExisting.KEEP` a whole document of that name is returned instead; without a validator, and with
        `OnExisting.NEW_NAME`, the name may be another document's, and only one of the very same content is. A spool
        hands its temporary file over in place of the body.

        What is `durable` is on the disk when this returns, file and folder; such fsyncs are made together. Cancelling
        leaves no file, or where it replaced one or is shared, the whole new one.
        """
        return await self._result_of(_Publication(self._loop.create_future(), destination, body, self.worker))

    async def spool(self, folder: Path) -> Spool:
        """Begin a document that is too large for memory."""
        temp = await self.run(lambda: temp_in(folder, self.worker), undo=lambda made: made.discard())
        return Spool(self, temp)

    async def run(self, function: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
        """Run a function on the thread, behind what is queued. `undo` takes its result back after a cancel."""
        return await self._result_of(_Action(self._loop.create_future(), function, undo))

    async def _result_of(self, job: _Job[T]) -> T:
        self._enqueue(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            job.abandoned = True
            await self._undo(job)
            raise

    async def _undo(self, job: _Job[Any]) -> None:
        """Take back, behind what is queued, what nobody waits for any more."""
        if self._ended is not None:
            await _uninterrupted(self._ended)
            job.undo()
            return
        undoing = _Action(self._loop.create_future(), job.undo)
        self._enqueue(undoing)
        await _uninterrupted(undoing.future)

    def _enqueue(self, job: _Job[Any]) -> None:
        if self._ended is not None:
            raise SessionError("the session is closed")
        if self._thread is None:
            self._thread = Thread(target=self._work, name="invoicing-disk", daemon=True)
            self._thread.start()
        self._jobs.append(job)
        # One call for all that is asked for while the thread is on its way: waking it costs more than its work. The
        # flag is looked at after the job is there, and cleared before the thread looks for jobs.
        if not self._is_woken:
            self._is_woken = True
            self._wakes.put(True)

    def _work(self) -> None:
        """Run what is queued until told to end, or until the loop is closed and nobody waits any more."""
        alive = True
        while alive and self._wakes.get():
            self._is_woken = False
            while alive and self._jobs:
                jobs = [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH))]
                _run(jobs)
                self._finished.extend(jobs)
                if self._will_deliver:  # the loop has yet to come: it will find these as well
                    alive = not self._loop.is_closed()
                else:
                    self._will_deliver = True
                    alive = self._call_loop(self._deliver)
        self._call_loop(self._end)

    def _call_loop(self, callback: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def _deliver(self) -> None:
        """Answer those who wait, in the loop."""
        self._will_deliver = False
        while self._finished:
            job = self._finished.popleft()
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

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
                self._wakes.put(more)
            await _uninterrupted(self._ended)
            self._thread.join()


async def _uninterrupted(future: asyncio.Future[Any]) -> None:
    """Wait for the thread, which ends soon, through any further cancellation."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])


class Spool:
    """A document on its way to the disk in pieces; ends with `publish` or `discard`."""

    def __init__(self, writer: DiskWriter, temp: Temp) -> None:
        self._writer = writer
        self._temp = temp

    @property
    def size(self) -> int:
        """How many bytes were written."""
        return self._temp.size

    @property
    def sha256(self) -> str:
        """The digest of what was written, in hex."""
        return self._temp.sha256

    async def content(self) -> bytes:
        """Return all that was written, into memory."""
        return await self._writer.run(self._temp.content)

    async def write(self, pieces: list[bytes]) -> None:
        """Append pieces in one hand-over. Raises `OSError`."""
        await self._writer.run(lambda: self._temp.write(b"".join(pieces)))

    async def publish(self, destination: Destination) -> Published:
        """Publish what was written; see `DiskWriter.store`."""
        return await self._writer.store(destination, self._temp)

    async def discard(self) -> None:
        """Remove the temporary file, also when the writer is closed; nothing happens after a publish."""
        try:
            await self._writer.run(self._temp.discard)
        except SessionError:
            self._temp.discard()
