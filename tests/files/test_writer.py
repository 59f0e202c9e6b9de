"""Files appear whole or not at all, never in another's place, and nothing temporary stays."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio
from forked import Forked, python

from invoicing_async._files import folders, tempfile, writer
from invoicing_async._files.existing import Published
from invoicing_async._files.hosts import host_id
from invoicing_async._files.names import is_temp, temp_name
from invoicing_async._files.publish import Destination, OnExisting
from invoicing_async._files.tempfile import prepare_folder, sweep
from invoicing_async._files.writer import DiskWriter

pytestmark = pytest.mark.asyncio

BODY = b"%PDF-1.7\nsome text\nstartxref\n9\n%%EOF\n"


@pytest.fixture(params=[True, False], ids=["unnamed", "named"], autouse=True)
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of temporary file: without a name, where the system makes such, and with one."""
    works: bool = request.param and tempfile._UNNAMED_WORK
    monkeypatch.setattr(tempfile, "_UNNAMED_WORK", works)
    return works


def temporaries(folder: Path) -> list[str]:
    """The temporary files that are open in a folder, those without a name included."""
    without = {target for target in open_descriptors() if target.startswith(f"{folder}/#")}
    return [name for name in names(folder) if is_temp(Path(name).name)] + sorted(without)


@pytest_asyncio.fixture
async def disk() -> AsyncIterator[DiskWriter]:
    writer = DiskWriter()
    yield writer
    await writer.close()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Nothing may stay open."""
    before = open_descriptors()
    yield
    assert open_descriptors() == before


def open_descriptors() -> set[str]:
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists the folder is gone already
            found.add(str(descriptor.readlink()))
    return {target for target in found if target.startswith("/")}


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


class Held:
    """Keeps the writer's thread busy until it is let go, so that jobs gather behind it."""

    def __init__(self, disk: DiskWriter) -> None:
        self._begun, self._gate = threading.Event(), threading.Event()
        self._busy = asyncio.ensure_future(disk.run(self._hold))

    def _hold(self) -> bool:
        self._begun.set()
        return self._gate.wait()

    async def __aenter__(self) -> Self:
        assert await asyncio.to_thread(self._begun.wait, 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gate.set()
        await self._busy


async def store(disk: DiskWriter, target: Path, body: bytes = BODY, **named: Any) -> Published:
    return await disk.store(Destination(target=target, **named), body)


@pytest.mark.usefixtures("descriptors")
class TestStore:
    @pytest.mark.parametrize("durable", [False, True])
    async def test_a_whole_body_gets_its_name_and_its_digest(
        self, disk: DiskWriter, tmp_path: Path, *, durable: bool
    ) -> None:
        published = await store(disk, tmp_path / "a.pdf", durable=durable)
        assert published.path == tmp_path / "a.pdf"
        assert published.path.read_bytes() == BODY
        assert (published.size, published.sha256) == (len(BODY), sha256(BODY).hexdigest())
        assert names(tmp_path) == ["a.pdf"]

    async def test_a_file_is_readable_by_others_as_the_umask_says(self, disk: DiskWriter, tmp_path: Path) -> None:
        published = await store(disk, tmp_path / "a.pdf")
        umask = os.umask(0)
        os.umask(umask)
        assert published.path.stat().st_mode & 0o777 == 0o644 & ~umask

    @pytest.mark.parametrize("durable", [False, True])
    async def test_missing_folders_are_made(self, disk: DiskWriter, tmp_path: Path, *, durable: bool) -> None:
        base = tmp_path / "new"
        await store(disk, base / "2025" / "09" / "a.pdf", folder=base, durable=durable)
        await store(disk, base / "2025" / "09" / "b.pdf", folder=base, durable=durable)
        assert names(base) == ["2025/09/a.pdf", "2025/09/b.pdf"]

    async def test_a_taken_name_gets_the_next_free_one(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(b"another's")
        (tmp_path / "a (2).pdf").mkdir()
        assert (await store(disk, tmp_path / "a.pdf")).path.name == "a (3).pdf"
        assert (tmp_path / "a.pdf").read_bytes() == b"another's"

    async def test_replacing_is_done_only_when_asked_for(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(b"another's")
        published = await store(disk, tmp_path / "a.pdf", on_existing=OnExisting.REPLACE)
        assert published.path.read_bytes() == BODY
        assert names(tmp_path) == ["a.pdf"]

    async def test_a_folder_in_the_place_is_not_replaced(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").mkdir()
        with pytest.raises(IsADirectoryError):
            await store(disk, tmp_path / "a.pdf", on_existing=OnExisting.REPLACE)
        assert names(tmp_path) == []

    async def test_a_link_to_elsewhere_is_neither_followed_nor_replaced(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").symlink_to(tmp_path / "elsewhere")
        assert (await store(disk, tmp_path / "a.pdf")).path.name == "a (2).pdf"
        assert not (tmp_path / "elsewhere").exists()

    async def test_two_writers_of_one_name_make_two_whole_files(self, tmp_path: Path) -> None:
        writers = [DiskWriter() for _ in range(4)]
        bodies = [b"%d" % number for number in range(80)]
        jobs = [store(writer, tmp_path / "a.pdf", body) for writer, body in zip(writers * 20, bodies, strict=True)]
        published = await asyncio.gather(*jobs)
        for each in writers:
            await each.close()
        assert len({one.path for one in published}) == 80
        assert [one.path.read_bytes() for one in published] == bodies
        assert len(names(tmp_path)) == 80

    @pytest.mark.parametrize("durable", [False, True])
    async def test_one_jobs_trouble_does_not_touch_the_others(
        self, disk: DiskWriter, tmp_path: Path, *, durable: bool
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        targets = [tmp_path / "a.pdf", tmp_path / "file" / "b.pdf", tmp_path / ("x" * 300), tmp_path / "c.pdf"]
        async with Held(disk):
            jobs = [asyncio.ensure_future(store(disk, target, folder=tmp_path, durable=durable)) for target in targets]
            await asyncio.sleep(0)
        done = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(one) for one in done] == [Published, NotADirectoryError, OSError, Published]
        assert names(tmp_path) == ["a.pdf", "c.pdf", "file"]

    async def test_a_folder_that_is_a_file_is_an_oserror(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(NotADirectoryError):
            await store(disk, tmp_path / "file" / "a.pdf")

    @pytest.mark.parametrize("durable", [False, True])
    async def test_a_disk_that_fills_up_within_a_file_leaves_nothing(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, durable: bool
    ) -> None:
        monkeypatch.setattr(os, "write", short_then_full())
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await store(disk, tmp_path / "a.pdf", durable=durable)
        assert names(tmp_path) == []

    async def test_short_writes_are_gone_on_with(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data[:3])))
        assert (await store(disk, tmp_path / "a.pdf")).path.read_bytes() == BODY


def failing(number: int) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def short_then_full() -> Any:
    real, calls = os.write, count()

    def write(fd: int, data: Any) -> int:
        if next(calls):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, bytes(data[:5]))

    return write


@pytest.mark.usefixtures("descriptors")
class TestDurable:
    async def test_fsyncs_of_a_batch_are_made_together_and_each_folder_once(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[str] = []
        real = os.fsync

        def fsync(fd: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        async with Held(disk):
            jobs = [asyncio.ensure_future(store(disk, tmp_path / f"{n}.pdf", durable=True)) for n in range(20)]
            await asyncio.sleep(0)
        await asyncio.gather(*jobs)
        assert len(synced) == 21
        assert all(is_temp(name := Path(one).name) or name.startswith("#") for one in synced[:20])
        assert synced[20] == str(tmp_path)

    async def test_a_folder_that_had_to_be_made_is_synced_into_its_own(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        for module in (folders, writer):
            monkeypatch.setattr(module, "sync_folder", synced.append)
        await store(disk, tmp_path / "2025" / "09" / "a.pdf", folder=tmp_path, durable=True)
        assert set(synced) == {tmp_path, tmp_path / "2025", tmp_path / "2025" / "09"}

    async def test_a_file_whose_fsync_fails_is_not_published(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await store(disk, tmp_path / "a.pdf", durable=True)
        assert names(tmp_path) == []

    async def test_a_folder_whose_fsync_fails_takes_its_files_back_and_no_others(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = folders.sync_folder
        monkeypatch.setattr(writer, "sync_folder", lambda at: failing(errno.EIO)() if at.name == "bad" else real(at))
        targets = [tmp_path / "bad" / "a.pdf", tmp_path / "good" / "b.pdf"]
        (tmp_path / "bad").mkdir()
        async with Held(disk):
            jobs = [asyncio.ensure_future(store(disk, one, folder=tmp_path, durable=True)) for one in targets]
            await asyncio.sleep(0)
        done = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(one) for one in done] == [OSError, Published]
        assert names(tmp_path) == ["good/b.pdf"]


@pytest.mark.usefixtures("descriptors")
class TestSpool:
    async def test_pieces_become_one_file_at_the_end_only(self, disk: DiskWriter, tmp_path: Path) -> None:
        spool = await disk.spool(tmp_path / "new")
        await spool.write([b"%PDF", b"-1.7"])
        await spool.write([b" more"])
        assert len(temporaries(tmp_path / "new")) == 1
        published = await spool.publish(Destination(target=tmp_path / "new" / "a.pdf", durable=True))
        assert published.path.read_bytes() == b"%PDF-1.7 more"
        assert published.sha256 == sha256(b"%PDF-1.7 more").hexdigest()
        await spool.discard()
        assert names(tmp_path) == ["new/a.pdf"]

    async def test_discarding_leaves_nothing(self, disk: DiskWriter, tmp_path: Path) -> None:
        spool = await disk.spool(tmp_path)
        await spool.write([b"%PDF"])
        await spool.discard()
        await spool.discard()
        assert names(tmp_path) == []


@pytest.mark.usefixtures("descriptors", "collected")
class TestCancelling:
    @pytest.mark.parametrize("durable", [False, True])
    @pytest.mark.parametrize("taken", [False, True])
    async def test_at_any_step_it_leaves_no_file_or_a_whole_one_that_was_answered(
        self, disk: DiskWriter, tmp_path: Path, *, durable: bool, taken: bool
    ) -> None:
        if taken:
            (tmp_path / "a.pdf").write_bytes(b"another's")
        before = names(tmp_path)
        for step in count():
            task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf", durable=durable))
            for _ in range(step):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                break
            assert names(tmp_path) == before
        assert task.result().path.read_bytes() == BODY

    async def test_a_job_still_queued_is_never_published(self, disk: DiskWriter, tmp_path: Path) -> None:
        for durable in (False, True):
            async with Held(disk):
                task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf", durable=durable))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([task])
            assert task.cancelled()
            assert names(tmp_path) == []

    async def test_what_was_published_meanwhile_is_taken_back(self, disk: DiskWriter, tmp_path: Path) -> None:
        """The thread is done, the loop has not heard of it yet: the caller never gets an answer."""
        task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf"))
        await handed_over()
        await_thread(lambda: names(tmp_path) == ["a.pdf"])
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert names(tmp_path) == []

    async def test_what_replaced_a_file_stays_whole(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(b"old")
        task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf", on_existing=OnExisting.REPLACE))
        await handed_over()
        await_thread(lambda: (tmp_path / "a.pdf").read_bytes() == BODY)
        task.cancel()
        await asyncio.wait([task])
        assert names(tmp_path) == ["a.pdf"]

    async def test_another_file_that_took_the_name_since_is_not_removed(self, disk: DiskWriter, tmp_path: Path) -> None:
        task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf"))
        await handed_over()
        await_thread(lambda: names(tmp_path) == ["a.pdf"])
        (tmp_path / "a.pdf").rename(tmp_path / "moved")
        (tmp_path / "a.pdf").write_bytes(b"another's")
        task.cancel()
        await asyncio.wait([task])
        assert names(tmp_path) == ["a.pdf", "moved"]

    async def test_a_spools_beginning_is_taken_back(self, disk: DiskWriter, tmp_path: Path) -> None:
        task = asyncio.ensure_future(disk.spool(tmp_path))
        await handed_over()
        await_thread(lambda: len(temporaries(tmp_path)) == 1)
        task.cancel()
        await asyncio.wait([task])
        assert temporaries(tmp_path) == names(tmp_path) == []

    async def test_a_second_cancel_does_not_hurry_the_clearing_up(self, disk: DiskWriter, tmp_path: Path) -> None:
        async with Held(disk):
            task = asyncio.ensure_future(store(disk, tmp_path / "a.pdf"))
            for _ in range(5):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        await asyncio.wait([task])
        assert task.cancelled()
        assert names(tmp_path) == []

    async def test_a_function_without_an_undo_is_left_alone(self, disk: DiskWriter) -> None:
        task = asyncio.ensure_future(disk.run(lambda: 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def handed_over() -> None:
    """Give the loop the turns after which the thread has its job, and no more."""
    for _ in range(2):
        await asyncio.sleep(0)


def await_thread(condition: Any) -> None:
    """Wait for the writer's thread without giving the loop a turn."""
    waited = threading.Event()
    for _ in range(5000):
        if condition():
            return
        waited.wait(0.001)
    raise AssertionError("the writer's thread did not get there")


class CountingLoop:
    """A loop that counts how often the thread wakes it."""

    def __init__(self) -> None:
        self.woken = 0
        self._loop = asyncio.get_running_loop()

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def call_soon(self, *call: Any) -> Any:
        return self._loop.call_soon(*call)

    def call_soon_threadsafe(self, *call: Any) -> Any:
        self.woken += 1
        return self._loop.call_soon_threadsafe(*call)


class TestTheWriter:
    async def test_queued_jobs_share_one_answer_to_the_loop(self, disk: DiskWriter, tmp_path: Path) -> None:
        loop = CountingLoop()
        disk._loop = loop  # type: ignore[assignment] # the methods the writer calls
        async with Held(disk):
            jobs = [asyncio.ensure_future(store(disk, tmp_path / f"{number}.pdf")) for number in range(200)]
            await asyncio.sleep(0)
        await asyncio.gather(*jobs)
        assert loop.woken <= 3
        assert len(names(tmp_path)) == 200

    async def test_a_batch_has_an_end(self, disk: DiskWriter) -> None:
        """So that the first of very many jobs do not wait for the last."""
        heard = threading.Event()
        async with Held(disk):
            jobs = [asyncio.ensure_future(disk.run(lambda: True)) for _ in range(writer.BATCH)]
            last = asyncio.ensure_future(disk.run(lambda: heard.wait(10)))
            await asyncio.sleep(0)
        await asyncio.gather(*jobs[:-1])  # the last of them may share a batch with what blocks
        heard.set()
        assert await last
        assert await jobs[-1]

    async def test_no_thread_starts_before_it_is_needed(self) -> None:
        writer = DiskWriter()
        assert writer._thread is None
        await writer.close()
        await writer.close()

    async def test_closing_finishes_what_is_queued(self, tmp_path: Path) -> None:
        writer = DiskWriter()
        jobs = [asyncio.ensure_future(store(writer, tmp_path / f"{number}.pdf")) for number in range(300)]
        await asyncio.sleep(0)
        await writer.close()
        assert len(await asyncio.gather(*jobs)) == 300
        assert len(names(tmp_path)) == 300
        assert writer._thread is not None
        assert not writer._thread.is_alive()

    async def test_a_closed_writer_says_so(self, tmp_path: Path) -> None:
        writer = DiskWriter()
        await store(writer, tmp_path / "a.pdf")
        await writer.close()
        with pytest.raises(RuntimeError, match="closed"):
            await store(writer, tmp_path / "b.pdf")

    async def test_closing_can_be_cancelled_and_still_ends_the_thread(self) -> None:
        writer = DiskWriter()
        async with Held(writer):
            task = asyncio.ensure_future(writer.close())
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        assert writer._thread is not None
        assert not writer._thread.is_alive()

    async def test_a_loop_that_is_gone_ends_the_thread(self) -> None:
        """It has nobody to answer any more."""
        release = threading.Event()

        async def left() -> DiskWriter:
            writer = DiskWriter()
            begun = asyncio.ensure_future(writer.run(release.wait))
            await handed_over()
            begun.add_done_callback(lambda _: None)
            return writer

        def closed() -> DiskWriter:
            loop = asyncio.new_event_loop()
            writer = loop.run_until_complete(left())
            loop.close()
            return writer

        writer = await asyncio.to_thread(closed)
        release.set()
        assert writer._thread is not None
        writer._thread.join(5)
        assert not writer._thread.is_alive()


HOLDER = """
import sys
from pathlib import Path
from invoicing_async._files.tempfile import Temp
temp = Temp.create(Path(sys.argv[1]))
temp.write(b"half a document")
print(temp.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Forked]:
    """A process that holds a temporary file in the folder."""
    with python(HOLDER, tmp_path) as process:
        process.line()
        yield process


class TestSweep:
    async def test_a_living_processs_file_stays_and_a_killed_ones_goes(self, tmp_path: Path, holder: Forked) -> None:
        assert sweep(tmp_path) == 0
        assert len(names(tmp_path)) == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert len(names(tmp_path)) == 1
        assert sweep(tmp_path) == 1
        assert names(tmp_path) == []

    async def test_this_processs_own_files_in_work_stay(self, disk: DiskWriter, tmp_path: Path) -> None:
        spool = await disk.spool(tmp_path)
        assert sweep(tmp_path) == 0
        await spool.discard()

    async def test_nothing_else_is_touched(self, tmp_path: Path) -> None:
        others = ["a.pdf", ".hidden", ".invoicing-notes", "invoicing-0-0.part", ".invoicing-abc-0.part.bak"]
        for name in others:
            (tmp_path / name).write_bytes(b"")
        (tmp_path / temp_name("abc", 1, host=host_id())).mkdir()
        (tmp_path / temp_name("abc", 2, host=host_id())).write_bytes(b"dead")
        assert sweep(tmp_path) == 1
        assert names(tmp_path) == sorted(others)

    async def test_a_writer_whose_new_file_was_swept_makes_another(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the making of a file and its lock a sweep may take it for a dead one's."""
        monkeypatch.setattr(tempfile, "_UNNAMED_WORK", False)
        real = tempfile._lock
        swept: list[int] = []

        def lock(fd: int, *, wait: bool) -> None:
            if wait and not swept:
                swept.append(sweep(tmp_path))
            real(fd, wait=wait)

        monkeypatch.setattr(tempfile, "_lock", lock)
        published = await store(disk, tmp_path / "a.pdf")
        assert swept == [1]
        assert published.path.read_bytes() == BODY
        assert names(tmp_path) == ["a.pdf"]

    async def test_without_locks_nothing_is_swept_and_documents_are_still_saved(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tempfile, "_lock", failing(errno.ENOLCK))
        (tmp_path / temp_name("abc", 2, host=host_id())).write_bytes(b"dead or alive")
        assert sweep(tmp_path) == 0
        assert (await store(disk, tmp_path / "a.pdf")).path.read_bytes() == BODY

    async def test_writers_and_sweepers_at_once_lose_nothing(self, disk: DiskWriter, tmp_path: Path) -> None:
        async def sweeping() -> None:
            while True:
                await asyncio.to_thread(sweep, tmp_path)

        sweepers = [asyncio.create_task(sweeping()) for _ in range(2)]
        published = await asyncio.gather(*(store(disk, tmp_path / f"{number}.pdf") for number in range(300)))
        for sweeper in sweepers:
            sweeper.cancel()
        await asyncio.wait(sweepers)
        assert all(one.path.read_bytes() == BODY for one in published)
        assert len(names(tmp_path)) == 300

    async def test_a_forked_child_takes_names_of_its_own(self, tmp_path: Path) -> None:
        mine = tempfile.Temp.create(tmp_path)
        pid = os.getpid()
        assert tempfile.Temp._token[0] == pid
        tempfile.Temp._token = (pid + 1, "ab12")
        other = tempfile.Temp.create(tmp_path)
        assert Path(other.path).name.split("-")[3] not in {"ab12", Path(mine.path).name.split("-")[3]}
        mine.discard()
        other.discard()


class TestPreparing:
    async def test_a_missing_folder_is_made_and_empty(self, tmp_path: Path) -> None:
        assert prepare_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()

    async def test_files_of_a_dead_run_do_not_count(self, tmp_path: Path) -> None:
        (tmp_path / temp_name("abc", 2, host=host_id())).write_bytes(b"dead")
        assert prepare_folder(tmp_path)
        assert names(tmp_path) == []
        (tmp_path / "a.pdf").write_bytes(BODY)
        assert not prepare_folder(tmp_path)

    async def test_a_file_in_its_place_is_an_oserror(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"")
        with pytest.raises(FileExistsError):
            prepare_folder(tmp_path / "a")


class TestWithoutAName:
    async def test_a_file_system_that_makes_none_gets_a_named_one(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, unnamed: bool
    ) -> None:
        """It is asked once for each folder."""
        asked: list[object] = []
        real = os.open

        def refusing(path: Any, flags: int, *mode: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                asked.append(path)
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(path, flags, *mode)

        monkeypatch.setattr(os, "open", refusing)
        for name in ("a.pdf", "b.pdf"):
            assert (await store(disk, tmp_path / name)).path.read_bytes() == BODY
        assert len(asked) == int(unnamed)
        assert names(tmp_path) == ["a.pdf", "b.pdf"]

    async def test_other_trouble_is_raised(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "open", failing(errno.EMFILE))
        with pytest.raises(OSError, match="Too many open files"):
            await store(disk, tmp_path / "a.pdf")

    async def test_a_kill_leaves_nothing_behind(self, tmp_path: Path, *, unnamed: bool) -> None:
        """A process killed in the middle of a document leaves nothing, or only what the next sweep takes."""
        code = HOLDER.replace("temp = Temp.create", "temp = tempfile.temp_in").replace(
            "import Temp", "import Temp\nfrom invoicing_async._files import tempfile"
        )
        if not unnamed:
            code = code.replace("temp =", "tempfile._UNNAMED_WORK = False\ntemp =")
        with python(code, tmp_path) as dying:
            dying.line()
            dying.kill()
        assert len(names(tmp_path)) == int(not unnamed)
        sweep(tmp_path)
        assert names(tmp_path) == []
