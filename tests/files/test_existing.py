"""What stands under a document's name: kept if it is whole, set aside if it is broken, never doubled, never a hang."""

from __future__ import annotations

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from forked import python

from invoicing_async._files import existing, folders, publish, tempfile
from invoicing_async._files.existing import Published, difference, set_aside, whole_document
from invoicing_async._files.names import child, is_temp
from invoicing_async._files.pdf import PdfValidator
from invoicing_async._files.publish import Destination, OnExisting
from invoicing_async._files.tempfile import prepare_folder, probe, sweep
from invoicing_async._files.writer import DiskWriter

BODY = b"%PDF-1.7\nsome text\nstartxref\n9\n%%EOF\n"
OTHER = BODY.replace(b"some", b"else")


@pytest.fixture(params=[True, False], ids=["unnamed", "named"], autouse=True)
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both kinds of temporary file."""
    monkeypatch.setattr(tempfile, "_UNNAMED_WORK", request.param and tempfile._UNNAMED_WORK)
    monkeypatch.setattr(publish, "_LINKLESS", set())
    monkeypatch.setattr(tempfile, "_NAMED_ONLY", set())


@pytest_asyncio.fixture
async def disk() -> AsyncIterator[DiskWriter]:
    writer = DiskWriter()
    yield writer
    await writer.close()


async def keep(disk: DiskWriter, target: Path, body: bytes = BODY, **named: Any) -> Published:
    return await disk.store(Destination(target=target, on_existing=OnExisting.KEEP, **named), body)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.asyncio
class TestKeeping:
    async def test_a_whole_document_stays_and_ours_goes(self, disk: DiskWriter, tmp_path: Path) -> None:
        """Another task, process or host was first: its document is the document, with its own proof."""
        (tmp_path / "a.pdf").write_bytes(OTHER)
        found = await keep(disk, tmp_path / "a.pdf")
        assert found == Published(tmp_path / "a.pdf", len(OTHER), sha256(OTHER).hexdigest(), kept=True)
        assert names(tmp_path) == ["a.pdf"]

    @pytest.mark.parametrize("there", [b"", b"<html>", BODY[:-8]])
    async def test_a_broken_one_is_set_aside_and_said(self, disk: DiskWriter, tmp_path: Path, there: bytes) -> None:
        (tmp_path / "a.pdf").write_bytes(there)
        found = await keep(disk, tmp_path / "a.pdf")
        assert found.path.read_bytes() == BODY
        assert found.set_aside is not None
        assert found.set_aside.read_bytes() == there
        assert (await keep(disk, tmp_path / "a.pdf")).kept
        assert len(names(tmp_path)) == 2

    async def test_any_number_at_once_leave_one_file(self, disk: DiskWriter, tmp_path: Path) -> None:
        other = DiskWriter()
        target = tmp_path / "new" / "a.pdf"
        done = await asyncio.gather(*(keep(writer, target) for writer in (disk, other) * 20))
        await other.close()
        assert [one.kept for one in done].count(False) == 1
        assert {one.sha256 for one in done} == {sha256(BODY).hexdigest()}
        assert names(target.parent) == ["a.pdf"]

    async def test_of_two_documents_with_one_served_name_both_stay(self, disk: DiskWriter, tmp_path: Path) -> None:
        """A name that the service gave may be another document's: only the very same content is kept."""
        for _ in range(2):
            for body in (BODY, OTHER):
                await keep(disk, tmp_path / "invoice.pdf", body, validator=None)
        assert names(tmp_path) == ["invoice (2).pdf", "invoice.pdf"]

    async def test_what_is_no_file_is_an_error_and_not_a_hang(self, disk: DiskWriter, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo.pdf")
        (tmp_path / "folder.pdf").mkdir()
        (tmp_path / "link.pdf").symlink_to("nowhere")
        (tmp_path / "loop.pdf").symlink_to("loop.pdf")
        before = names(tmp_path)
        for name in before:
            with pytest.raises(OSError, match=r"move it away|Too many"):
                await asyncio.wait_for(keep(disk, tmp_path / name), 5)
        assert names(tmp_path) == before

    async def test_a_cancelled_one_takes_nothing_of_another_away(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(BODY)
        task = asyncio.create_task(keep(disk, tmp_path / "a.pdf"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (tmp_path / "a.pdf").read_bytes() == BODY

    async def test_a_link_to_a_whole_document_is_one(self, disk: DiskWriter, tmp_path: Path) -> None:
        (tmp_path / "there").write_bytes(BODY)
        (tmp_path / "a.pdf").symlink_to("there")
        assert (await keep(disk, tmp_path / "a.pdf")).kept


KEEPER = """
import asyncio, sys
from pathlib import Path
from invoicing_async._files.writer import DiskWriter
from invoicing_async._files.publish import Destination, OnExisting

async def main():
    writer, made = DiskWriter(), 0
    for number in range(200):
        target = Path(sys.argv[1]) / f"{number}.pdf"
        body = b"%PDF-1.7\\nstartxref\\n9\\n%%EOF\\n" + sys.argv[2].encode()
        made += not (await writer.store(Destination(target=target, on_existing=OnExisting.KEEP), body)).kept
    await writer.close()
    print(made)

asyncio.run(main())
"""


@pytest.mark.process
def test_two_processes_leave_one_file_for_each_id(tmp_path: Path) -> None:
    """Whoever comes second keeps what the first one made; together they made each once."""
    (tmp_path / "7.pdf").write_bytes(b"broken")
    with python(KEEPER, tmp_path, "a") as one, python(KEEPER, tmp_path, "b") as other:
        made = [int(process.communicate(60)[0]) for process in (one, other)]
    assert sum(made) == 200
    kept = [name for name in names(tmp_path) if "broken" not in name]
    assert sorted(kept) == sorted(f"{number}.pdf" for number in range(200))


class TestSettingAside:
    def test_it_is_renamed_with_a_mark(self, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").write_bytes(b"x")
        aside = set_aside(tmp_path / "a.pdf", PdfValidator)
        assert aside is not None
        assert re.fullmatch(r"a \(broken [0-9a-z]{8}\)\.pdf", aside.name)

    def test_one_that_is_gone_or_whole_by_now_is_left(self, tmp_path: Path) -> None:
        """Another process may have repaired it between the look and the renaming."""
        assert set_aside(tmp_path / "a.pdf", PdfValidator) is None
        (tmp_path / "a.pdf").write_bytes(BODY)
        assert set_aside(tmp_path / "a.pdf", PdfValidator) is None
        assert names(tmp_path) == ["a.pdf"]


def refusing(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.asyncio
class TestWithoutHardLinks:
    @pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
    async def test_documents_are_saved_all_the_same_and_it_is_said_once(
        self,
        disk: DiskWriter,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        number: int,
    ) -> None:
        monkeypatch.setattr(os, "link", refusing(number))
        for name in "abc":
            await keep(disk, tmp_path / f"{name}.pdf")
        found = await keep(disk, tmp_path / "a.pdf", OTHER)
        assert (found.kept, (tmp_path / "a.pdf").read_bytes()) == (True, BODY)
        await disk.store(Destination(target=tmp_path / "a.pdf"), OTHER)
        assert names(tmp_path) == ["a (2).pdf", "a.pdf", "b.pdf", "c.pdf"]
        assert [record.message for record in caplog.records].count(
            f"{tmp_path} has no hard links: names are claimed there before they are filled"
        ) == 1

    async def test_a_name_that_was_claimed_and_not_filled_is_free_again(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", refusing(errno.EPERM))
        with monkeypatch.context() as context:
            context.setattr(os, "replace", refusing(errno.EIO))
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                await keep(disk, tmp_path / "a.pdf")
        assert names(tmp_path) == []
        assert (await keep(disk, tmp_path / "a.pdf")).path.read_bytes() == BODY


@pytest.mark.asyncio
class TestAnotherVolume:
    @pytest.mark.parametrize("on_existing", list(OnExisting))
    async def test_a_place_on_another_volume_is_reached_by_a_copy(
        self, disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_existing: OnExisting
    ) -> None:
        """A sub-folder of the layout may be a mount: the temporary file goes there too."""
        (tmp_path / "sub").mkdir()
        real = {name: getattr(os, name) for name in ("link", "replace")}

        def of_one_volume(name: str) -> Any:
            def step(source: Any, target: Any, **named: Any) -> Any:
                if Path(target).parent.name == "sub" and Path(source).parent.name != "sub":
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
                return real[name](source, target, **named)

            return step

        for name in real:
            monkeypatch.setattr(os, name, of_one_volume(name))
        body = BODY[:9] + b"%" * (3 * tempfile.COPIED) + BODY[9:]
        target = tmp_path / "sub" / "a.pdf"
        done = await disk.store(Destination(folder=tmp_path, target=target, on_existing=on_existing), body)
        assert done.path.read_bytes() == body
        assert done.sha256 == sha256(body).hexdigest()
        assert names(tmp_path / "sub") == ["a.pdf"]
        assert names(tmp_path) == ["sub"]


@pytest.mark.asyncio
class TestTroubleAtTheClose:
    @pytest.mark.parametrize("durable", [False, True])
    @pytest.mark.parametrize("on_existing", list(OnExisting))
    async def test_it_comes_before_there_is_a_name(
        self,
        disk: DiskWriter,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        durable: bool,
        on_existing: OnExisting,
    ) -> None:
        """NFS and quotas say only then that what was written is not there."""
        real = os.close

        def close(descriptor: int) -> None:
            real(descriptor)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        monkeypatch.setattr(tempfile, "os", _Closing(close))
        with pytest.raises(OSError, match=os.strerror(errno.EDQUOT)):
            await disk.store(Destination(target=tmp_path / "a.pdf", on_existing=on_existing, durable=durable), BODY)
        assert names(tmp_path) == []


class _Closing:
    """The module `os` with another `close`."""

    def __init__(self, close: Any) -> None:
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.mark.asyncio
async def test_a_sweep_finds_no_living_file_free(
    disk: DiskWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the moment in which a file that is to replace another has a temporary name."""
    real, swept = os.replace, []

    def replace(source: Any, target: Any) -> None:
        swept.append(sweep(tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    await disk.store(Destination(target=tmp_path / "a.pdf", on_existing=OnExisting.REPLACE), BODY)
    assert (swept, names(tmp_path)) == ([0], ["a.pdf"])


class TestProbing:
    def test_it_leaves_nothing(self, tmp_path: Path) -> None:
        probe(tmp_path)
        assert names(tmp_path) == []

    def test_it_meets_what_a_document_would(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "write", refusing(errno.ENOSPC))
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            probe(tmp_path)
        assert names(tmp_path) == []


def test_a_durable_folders_own_name_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(folders, "sync_folder", synced.append)
    prepare_folder(tmp_path / "a" / "b", durable=True)
    assert synced == [tmp_path / "a", tmp_path]


class TestWholeDocument:
    def test_a_whole_pdf_is_given_with_its_digest(self, tmp_path: Path) -> None:
        body = BODY[:9] + b"%" * (3 * existing.READ_SIZE) + BODY[9:]
        (tmp_path / "a.pdf").write_bytes(body)
        found = whole_document(tmp_path / "a.pdf")
        assert found == Published(tmp_path / "a.pdf", len(body), sha256(body).hexdigest(), kept=True)

    @pytest.mark.parametrize("body", [b"", BODY[:-16], b"<html>", BODY[1:]])
    def test_a_broken_one_is_as_if_it_were_not_there(self, tmp_path: Path, body: bytes) -> None:
        (tmp_path / "a.pdf").write_bytes(body)
        assert whole_document(tmp_path / "a.pdf") is None
        assert whole_document(tmp_path / "b.pdf") is None

    def test_junk_behind_its_end_was_kept_and_stays(self, tmp_path: Path) -> None:
        """What was saved with a proof of its length is not fetched again at every run."""
        (tmp_path / "a.pdf").write_bytes(BODY + b"1")
        assert whole_document(tmp_path / "a.pdf") is not None


class TestDifference:
    def test_a_file_is_compared_by_size_and_by_content(self, tmp_path: Path) -> None:
        path, digest = tmp_path / "a.pdf", sha256(BODY).hexdigest()
        path.write_bytes(BODY)
        assert difference(path, size=len(BODY), digest=digest) is None
        assert difference(path, size=1, digest=digest) == f"has {len(BODY)} bytes where 1 were saved"
        path.write_bytes(BODY[::-1])
        assert difference(path, size=len(BODY), digest=digest) == "has other content than was saved"

    def test_one_that_is_gone_says_why_it_cannot_be_read(self, tmp_path: Path) -> None:
        assert difference(tmp_path / "a.pdf", size=1, digest="") == f"cannot be read: {os.strerror(errno.ENOENT)}"

    def test_a_fifo_is_no_file(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.pdf")
        assert "no regular file" in str(difference(tmp_path / "a.pdf", size=1, digest=""))


def test_a_child_is_what_joining_gives(tmp_path: Path) -> None:
    """In every way that a path is used."""
    made, joined = child(tmp_path, "a.pdf"), tmp_path / "a.pdf"
    assert (str(made), made, hash(made), made.parent, made.name, made.suffix) == (
        str(joined),
        joined,
        hash(joined),
        tmp_path,
        "a.pdf",
        ".pdf",
    )
    assert not is_temp(made.name)
    assert made.with_name("b.pdf") == tmp_path / "b.pdf"
