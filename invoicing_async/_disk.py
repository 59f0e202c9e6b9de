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
import errno
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import Enum
from hashlib import sha256
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from attrs import evolve

from ._clock import token
from ._existing import MakesProof, Published, difference, set_aside, whole_document
from ._naming import is_temp, numbered, temp_name
from ._pdf import Checker
from .errors import SessionError

if sys.platform != "win32":
    import fcntl

__all__ = ["DiskWriter", "OnExisting", "Published", "Spool"]

T = TypeVar("T")
_log = logging.getLogger("invoicing_async")

BATCH = 256
"""Jobs done at most before their callers hear of it."""

_UNNAMED_WORK = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
_UNNAMED_REFUSED = frozenset({errno.EINVAL, errno.EISDIR, errno.ENOTSUP, errno.EOPNOTSUPP})
"""How file systems say that they make no files without a name; the named kind then meets any other trouble."""


class OnExisting(Enum):
    """What to do when the name is taken: leave a whole document there, take a free name, or replace it."""

    KEEP = "keep"
    NEW_NAME = "new name"
    REPLACE = "replace"


class _Temp:
    """A locked temporary file with a name, that ends published or removed."""

    __slots__ = ("_digest", "_fd", "folder", "path", "size")

    _numbers = count()
    _token = (0, "")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digest = sha256()
        self.size = 0
        self.path, self._fd = self._created(folder)

    @classmethod
    def _created(cls, folder: Path) -> tuple[str, int]:
        pid = os.getpid()
        if cls._token[0] != pid:
            # A forked child must not go on with its parent's names.
            cls._token = (pid, token())
        while True:
            path = f"{folder}{os.sep}{temp_name(cls._token[1], next(cls._numbers))}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o644)
            if _locked(fd):
                return path, fd
            os.close(fd)

    def write(self, data: bytes) -> None:
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self.size += len(data)

    def sync(self) -> None:
        os.fsync(self._fd)

    def flush(self) -> None:
        """Hear what a file system says only when a file is closed (NFS, quotas), while there is no name yet."""
        os.close(os.dup(self._fd))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def published(self, path: Path, *, aside: Path | None = None) -> Published:
        """Say where it stands now, and let go of it."""
        self.close()
        return Published(path, self.size, self.sha256, set_aside=aside)

    def link(self, target: Path) -> None:
        """Give it its final name. Raises `FileExistsError` if that is taken, whatever stands there."""
        os.link(self.path, target, follow_symlinks=True)
        os.unlink(self.path)

    def claim(self, target: Path) -> None:
        """Do as `link` where there are no hard links: claim the name with an empty file, then rename over that."""
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        try:
            os.replace(self.path, target)
        except BaseException:
            os.unlink(target)
            raise

    def replace(self, target: Path) -> None:
        os.replace(self.path, target)

    def copied(self, folder: Path) -> _Temp:
        """Make a named copy elsewhere and remove this one."""
        copy = _Temp(folder)
        try:
            for begin in range(0, self.size, COPIED):
                copy.write(os.pread(self._fd, COPIED, begin))
        except BaseException:
            copy.discard()
            raise
        self.discard()
        return copy

    def discard(self) -> None:
        """Remove the file, whatever state it is in."""
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        """Let go of it. What a file system has to say at a close it said at `flush`."""
        fd, self._fd = self._fd, -1
        with suppress(OSError):
            os.close(fd)


class _Unnamed(_Temp):
    """A temporary file that has no name before it is published (Linux): a dead run leaves nothing to be swept.

    It takes half the system calls of a named one, each of which hands the interpreter lock to and fro.
    """

    __slots__ = ()

    @classmethod
    def _created(cls, folder: Path) -> tuple[str, int]:
        fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o644)
        return f"/proc/self/fd/{fd}", fd

    def link(self, target: Path) -> None:
        # With a folder's descriptor the call is linkat(2), which follows the link in /proc to the file.
        os.link(self.path, target, src_dir_fd=self._fd, follow_symlinks=True)

    def replace(self, target: Path) -> None:
        name = f"{self.folder}{os.sep}{temp_name(token(), 0)}"
        # Locked before it has a name: a sweep must never find a living file free.
        with suppress(OSError):
            _lock(self._fd, wait=True)
        os.link(self.path, name, src_dir_fd=self._fd, follow_symlinks=True)
        try:
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise

    def discard(self) -> None:
        if self._fd >= 0:
            self.close()


_NAMED_ONLY: set[Path] = set()
"""Folders whose file system makes no files without a name."""

_LINKLESS: set[Path] = set()
"""Folders whose file system has no hard links."""

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
COPIED = 2**20
"""Bytes copied at a time to another volume."""

TRIES = 100
"""How often a broken file is set aside before somebody else's bad files are an error."""

PROBED = 2**16
"""Bytes that a probe of a folder writes."""


def _lock(fd: int, *, wait: bool) -> None:
    # Windows has no flock and needs none: it refuses to unlink a file that is open.
    if sys.platform != "win32":
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def _locked(fd: int) -> bool:
    """Lock a new temporary file; false if a sweep took it for a dead one's just before."""
    # On a file system without locks this fails, and so does every sweep's try: nothing is swept there.
    with suppress(OSError):
        _lock(fd, wait=True)
    return os.fstat(fd).st_nlink > 0


class _Publisher:
    """Gives one temporary file its final name."""

    def __init__(self, temp: _Temp, target: Path, on_existing: OnExisting, proof: MakesProof | None) -> None:
        self.temp = temp
        self._target = target
        self._on_existing = on_existing
        self._proof = proof

    def publish(self) -> Published:
        """Publish it, or give what stands there and is kept instead."""
        self.temp.flush()
        if self._on_existing is OnExisting.REPLACE:
            self._step(self._replaced, self._target)
            return self.temp.published(self._target)
        if self._on_existing is OnExisting.KEEP:
            return self._in_its_place() if self._proof is not None else self._beside(self._same)
        return self._beside(lambda _: None)

    def _in_its_place(self) -> Published:
        """Take the one name this document may have; a broken file there is set aside, a whole one is kept."""
        assert self._proof is not None  # noqa: S101 - for the type checker
        aside: Path | None = None
        for _ in range(TRIES):
            if self._step(self._named, self._target):
                return self.temp.published(self._target, aside=aside)
            found = whole_document(self._target, self._proof())
            if found is not None:
                self.temp.discard()
                return evolve(found, set_aside=aside)
            if not os.path.lexists(self._target):
                continue  # it is gone again
            if os.path.islink(self._target) and not self._target.exists():
                raise OSError(errno.EEXIST, "a link to nowhere stands there; move it away", str(self._target))
            aside = set_aside(self._target, self._proof) or aside
        raise OSError(errno.EEXIST, "broken files keep appearing there", str(self._target))

    def _beside(self, keeps: Callable[[Path], Published | None]) -> Published:
        """Take the first name that is free, unless what stands under one before that is to be kept."""
        free = self._target
        for number in count(2):
            if self._step(self._named, free):
                return self.temp.published(free)
            kept = keeps(free)
            if kept is not None:
                self.temp.discard()
                return kept
            free = self._target.with_name(numbered(self._target.name, number))
        raise AssertionError  # pragma: no cover - count() does not end

    def _same(self, path: Path) -> Published | None:
        """Give a file there if it has the very same content."""
        same = difference(path, size=self.temp.size, digest=self.temp.sha256) is None
        return Published(path, self.temp.size, self.temp.sha256, kept=True) if same else None

    def _step(self, step: Callable[[Path], bool], path: Path) -> bool:
        """Do what needs the temporary file to be on the name's own volume; if it is on another, bring it there."""
        try:
            return step(path)
        except OSError as exc:
            if exc.errno != errno.EXDEV:
                raise
        self.temp = self.temp.copied(path.parent)
        self.temp.flush()
        return step(path)

    def _replaced(self, path: Path) -> bool:
        self.temp.replace(path)
        return True

    def _named(self, path: Path) -> bool:
        """Give the file this name; false if it is taken."""
        try:
            if path.parent in _LINKLESS:
                self._claimed(path)
            else:
                self._linked(path)
        except FileExistsError:
            return False
        return True

    def _linked(self, path: Path) -> None:
        try:
            self.temp.link(path)
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            self._claimed(path)
            _LINKLESS.add(path.parent)
            _log.warning("%s has no hard links: names are claimed there before they are filled", path.parent)

    def _claimed(self, path: Path) -> None:
        if isinstance(self.temp, _Unnamed):
            self.temp = self.temp.copied(path.parent)
            self.temp.flush()
        self.temp.claim(path)


def probe(folder: Path) -> None:
    """Do all that saving a document takes and leave nothing. Raises the `OSError` that the next one would meet too."""
    temp = _temp_in(folder)
    try:
        temp.write(bytes(PROBED))
        temp.flush()
    finally:
        temp.discard()


def sweep(folder: Path) -> int:
    """Remove the temporary files of dead runs in this folder and give their number."""
    with os.scandir(folder) as entries:
        return sum(_swept(entry.path) for entry in entries if is_temp(entry.name))


def _swept(path: str) -> bool:
    """Remove a temporary file if nobody holds it any more; a living writer's lock says somebody does."""
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _lock(fd, wait=False)
        # Unlinked under the lock: a writer that waits for it sees that its new file is gone and makes another.
        os.unlink(path)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)


def _published(publisher: _Publisher, folder: Path, *, durable: bool) -> Published:
    try:
        return publisher.publish()
    except FileNotFoundError:
        _make_folder(folder, durable=durable)
        return publisher.publish()


def _temp_in(folder: Path) -> _Temp:
    try:
        return _temp(folder)
    except FileNotFoundError:
        _make_folder(folder, durable=True)
        return _temp(folder)


def _temp(folder: Path) -> _Temp:
    if not _UNNAMED_WORK or folder in _NAMED_ONLY:
        return _Temp(folder)
    try:
        return _Unnamed(folder)
    except OSError as exc:
        if exc.errno not in _UNNAMED_REFUSED:
            raise
        _NAMED_ONLY.add(folder)
        return _Temp(folder)


def _make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder and those above it; a durable one's name is on the disk as its files are."""
    missing = [made for made in (folder, *folder.parents) if not made.is_dir()] if durable else []
    os.makedirs(folder, exist_ok=True)
    for made in missing:
        _sync_folder(made.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
        body: bytes | _Temp,
        on_existing: OnExisting,
        proof: MakesProof | None,
        durable: bool,  # noqa: FBT001 - private, called in one place
    ) -> None:
        super().__init__(future)
        self._proof = proof
        self.folder = folder
        self.target = target
        self.temp = body if isinstance(body, _Temp) else None
        self._body = body if isinstance(body, bytes) else b""
        self._on_existing = on_existing
        self.durable = durable

    def begin(self) -> None:
        try:
            if self.temp is None:
                self.temp = _temp_in(self.folder)
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
            publisher = _Publisher(self.temp, self.target, self._on_existing, self._proof)
            try:
                self.result = _published(publisher, self.target.parent, durable=self.durable)
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
        _sync_folder(folder)
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
        body: bytes | _Temp,
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
        temp = await self.run(lambda: _temp_in(folder), undo=lambda made: made.discard())
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

    def __init__(self, writer: DiskWriter, folder: Path, temp: _Temp) -> None:
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


def prepare_folder(folder: Path, *, durable: bool = False) -> bool:
    """Make the folder if need be, sweep it, and tell whether it holds nothing else."""
    _make_folder(folder, durable=durable)
    sweep(folder)
    with os.scandir(folder) as entries:
        return next(entries, None) is None
