"""Several processes and hosts write into one folder: one file for one document, and nobody's work is swept away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from forked import python

from invoicing_async._files import tempfile
from invoicing_async._files.hosts import host_id
from invoicing_async._files.names import is_temp, temp_name, temp_owner
from invoicing_async._files.publish import Destination, OnExisting
from invoicing_async._files.tempfile import Temp, prepare_folder, sweep, temp_workers
from invoicing_async._files.writer import DiskWriter
from invoicing_async.stores import sweep_folder

pytestmark = pytest.mark.asyncio

BODY = b"%PDF-1.7\nsome text\nstartxref\n9\n%%EOF\n"
OTHER = BODY.replace(b"some", b"more")


@pytest_asyncio.fixture
async def disk() -> AsyncIterator[DiskWriter]:
    writer = DiskWriter()
    yield writer
    await writer.close()


class TestNameTaken:
    @pytest.mark.parametrize("on_existing", [OnExisting.KEEP, OnExisting.NEW_NAME])
    async def test_the_same_content_is_its_own_whoever_put_it(
        self, disk: DiskWriter, tmp_path: Path, on_existing: OnExisting
    ) -> None:
        (tmp_path / "a.pdf").write_bytes(BODY)
        published = await disk.store(Destination(target=tmp_path / "a.pdf", on_existing=on_existing), BODY)
        assert (published.path, published.kept, published.same) == (tmp_path / "a.pdf", True, True)
        assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]

    async def test_other_content_takes_the_next_name_and_is_told(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(OTHER)
        first = await disk.store(Destination(target=tmp_path / "a.pdf"), BODY)
        again = await disk.store(Destination(target=tmp_path / "a.pdf"), BODY)
        assert (first.path.name, first.name_taken, first.kept) == ("a (2).pdf", True, False)
        assert (again.path.name, again.name_taken, again.same) == ("a (2).pdf", True, True)
        assert len(list(tmp_path.iterdir())) == 2

    async def test_a_whole_document_of_other_content_is_kept_where_that_is_asked_for(
        self, disk: DiskWriter, tmp_path: Path
    ) -> None:
        """It was there before this library asked, or another one of the very same order: it is nobody's to replace."""
        (tmp_path / "a.pdf").write_bytes(OTHER)
        published = await disk.store(Destination(target=tmp_path / "a.pdf", on_existing=OnExisting.KEEP), BODY)
        assert (published.kept, published.same) == (True, False)
        assert (tmp_path / "a.pdf").read_bytes() == OTHER

    async def test_what_is_shared_is_not_taken_back_from_who_found_it(self, disk: DiskWriter, tmp_path: Path) -> None:
        for shared in (True, False):
            task = asyncio.ensure_future(disk.store(Destination(target=tmp_path / "a.pdf", shared=shared), BODY))
            while not (tmp_path / "a.pdf").exists():
                await asyncio.sleep(0)
                if task.done():
                    break
            task.cancel()
            await asyncio.wait([task])
            assert (tmp_path / "a.pdf").exists() or (task.cancelled() and not shared)
            (tmp_path / "a.pdf").unlink(missing_ok=True)


@pytest.mark.process
class TestTwoProcesses:
    async def test_two_who_write_the_same_documents_leave_one_file_each(self, tmp_path: Path) -> None:
        """300 documents, in every mode in which nothing is replaced."""
        code = SAVING
        for number, mode in enumerate(("keep", "new name")):
            folder = tmp_path / str(number)
            with python(code, folder, mode) as one, python(code, folder, mode) as other:
                for process in (one, other):
                    assert process.line() == "ready\n"
                (tmp_path / f"{number}.go").touch()
                for process in (one, other):
                    out, err = await asyncio.to_thread(process.communicate, 60)
                    assert out.decode().splitlines()[-1] == "300", err
            names = [path.name for path in folder.iterdir()]
            assert len(names) == 300
            assert [name for name in names if "(" in name or is_temp(name)] == []


SAVING = """
import asyncio, sys, time
from pathlib import Path
from invoicing_async._files.publish import Destination, OnExisting
from invoicing_async._files.tempfile import prepare_folder
from invoicing_async._files.writer import DiskWriter

folder, mode = Path(sys.argv[1]), OnExisting(sys.argv[2])
body = b"%PDF-1.7\\n" + bytes(3000) + b"{}\\nstartxref\\n9\\n%%EOF\\n"

async def main():
    disk = DiskWriter()
    prepare_folder(folder)
    print("ready", flush=True)
    while not folder.with_suffix(".go").exists():
        time.sleep(0.001)
    jobs = [
        disk.store(Destination(target=folder / f"{n}.pdf", on_existing=mode), body.replace(b"{}", b"%d" % n))
        for n in range(300)
    ]
    done = await asyncio.gather(*jobs)
    await disk.close()
    print(sum(one.same or not one.kept for one in done))

asyncio.run(main())
"""

HOLDING = """
import sys
from pathlib import Path
from invoicing_async._files import hosts, tempfile
tempfile.host_id = lambda: sys.argv[2]
held = [tempfile.Temp.create(Path(sys.argv[1]), sys.argv[3]) for _ in range(16)]
print("held", flush=True)
sys.stdin.read()
for number, temp in enumerate(held):
    temp.write(b"%d" % number)
    temp.link(Path(sys.argv[1]) / f"{number}.pdf")
"""


class TestSweep:
    async def test_a_host_that_sees_no_lock_of_another_removes_none_of_its_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where `flock` goes no further than its host: 0 of 16 living files are removed, and all are published."""
        with python(HOLDING, tmp_path, "otherhost", "w1") as other:
            assert other.line() == "held\n"
            monkeypatch.setattr(tempfile, "_lock", lambda fd, *, wait: None)
            assert sweep(tmp_path) == 0
            assert not prepare_folder(tmp_path)
            assert await sweep_folder(tmp_path) == 0
            assert len([path for path in tmp_path.iterdir() if is_temp(path.name)]) == 16
            out, err = await asyncio.to_thread(other.communicate, 30)
            assert other.returncode == 0, (out, err)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{number}.pdf" for number in range(16))

    async def test_files_of_workers_that_are_dead_for_an_hour_go_whatever_their_host(self, tmp_path: Path) -> None:
        dead, living, mine, nobodys = (
            tmp_path / temp_name("ab", 1, host="otherhost", worker="w1"),
            tmp_path / temp_name("ab", 2, host="otherhost", worker="w2"),
            tmp_path / temp_name("ab", 3, host=host_id(), worker="w3"),
            tmp_path / temp_name("ab", 4, host="otherhost"),
        )
        for path in (dead, living, mine, nobodys):
            path.write_bytes(b"half")
        asked: list[frozenset[str]] = []

        async def dead_of(workers: frozenset[str]) -> set[str]:
            asked.append(workers)
            return {"w1", "0", "w9"}  # what it was not asked for changes nothing

        assert temp_workers(tmp_path) == {"w1", "w2"}
        assert await sweep_folder(tmp_path, dead_of) == 2
        assert asked == [frozenset({"w1", "w2"})]
        assert sorted(tmp_path.iterdir()) == sorted([living, nobodys])

    async def test_a_file_that_is_locked_here_stays_though_its_worker_is_said_to_be_dead(self, tmp_path: Path) -> None:
        with python(HOLDING, tmp_path, "otherhost", "w1") as other:
            other.line()

            async def all_dead(workers: frozenset[str]) -> frozenset[str]:
                return workers

            assert await sweep_folder(tmp_path, all_dead) == 0
            other.kill()  # before it hears that nobody speaks to it any more, and publishes them
            other.wait()
        assert await sweep_folder(tmp_path, all_dead) == 16

    async def test_a_file_that_was_swept_from_under_its_writer_is_published_all_the_same(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was written is still to be had by its descriptor."""
        monkeypatch.setattr(tempfile, "_UNNAMED_WORK", False)
        for mode in OnExisting:
            spool = await disk.spool(tmp_path)
            await spool.write([BODY])
            for path in tmp_path.iterdir():
                path.unlink()
            published = await spool.publish(Destination(target=tmp_path / "a.pdf", on_existing=mode))
            assert published.path.read_bytes() == BODY
            assert [path.name for path in tmp_path.iterdir()] == ["a.pdf"]

    async def test_a_name_bears_the_worker_of_its_writer(self, disk: DiskWriter, tmp_path: Path) -> None:
        disk.worker = "w17"
        temp = Temp.create(tmp_path, disk.worker)
        owner = temp_owner(Path(temp.path).name)
        assert owner is not None
        assert (owner.host, owner.worker) == (host_id(), "w17")
        copy = temp.copied(tmp_path)
        assert temp_owner(Path(copy.path).name) == owner
        copy.discard()
        assert list(tmp_path.iterdir()) == []
