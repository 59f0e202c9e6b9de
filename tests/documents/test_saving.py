"""A document on a disk that fails, or cancelled at every step, is saved whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import pytest
from order_documents import LARGE, ORDER, client, gathered, kinds, made, names, own_tasks, pdf, settled, whole

from invoicing_async._files.existing import Published
from invoicing_async._files.names import is_temp
from invoicing_async._files.pdf import fault_of
from invoicing_async._files.publish import OnExisting
from invoicing_async._files.tempfile import probe
from invoicing_async._files.writer import DiskWriter
from invoicing_async._transport.server import serve
from invoicing_async.documents._client import work_of
from invoicing_async.models import NotStarted, Saved
from invoicing_async.sandbox import (
    Sandbox,
    Truncated,
    Unavailable,
    demo_orders,
)

pytestmark = pytest.mark.asyncio


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """Take the right to write in the folder away, from root by acting as nobody for a moment."""
    folder.chmod(0o500)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


class BrokenDisk:
    """A disk writer whose every job, or every one from the n-th on, ends in one error; so does a probe then."""

    def __init__(self, number: int, *, after: int = 0) -> None:
        self._error = OSError(number, os.strerror(number))
        self._left = after
        self._real = DiskWriter()

    async def run(self, function: Any, **named: Any) -> Any:
        if getattr(function, "func", None) is probe and self._left <= 0:
            raise self._error
        return await self._real.run(function, **named)

    async def store(self, *args: Any, **named: Any) -> Published:
        if self._left <= 0:
            raise self._error
        self._left -= 1
        return await self._real.store(*args, **named)

    async def close(self) -> None:
        await self._real.close()


class TestTheDisk:
    async def test_a_folder_that_is_a_file_is_an_oserror(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        async with client(made()) as documents:
            for on_existing in OnExisting:
                with pytest.raises(NotADirectoryError):
                    await documents.download(ORDER, tmp_path / "file", on_existing=on_existing)
            outcomes, error = await gathered(documents.download_many([ORDER], tmp_path / "file"))
        assert (outcomes, type(error)) == ([], FileExistsError)

    async def test_an_unwritable_folder_is_an_oserror_and_ends_a_batch(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            # The sandbox imports what draws its pages at the first one, which a user without rights could not.
            await documents.download(ORDER, tmp_path.with_name("drawn"))
            with unwritable(tmp_path):
                with pytest.raises(PermissionError):
                    await documents.download(ORDER, tmp_path, on_existing="new name")
                _, error = await gathered(documents.download_many(demo_orders(5), tmp_path))
            assert isinstance(error, PermissionError)
            assert names(tmp_path) == []

    @pytest.mark.parametrize(
        "number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENOTSUP]
    )
    async def test_what_the_next_document_would_meet_too_ends_the_batch(self, tmp_path: Path, number: int) -> None:
        ids = demo_orders(40)
        sandbox = made()
        async with client(sandbox) as documents:
            work_of(documents).session._resources[DiskWriter] = BrokenDisk(number, after=7)
            outcomes, error = await gathered(documents.download_many(ids, tmp_path, concurrency=4))
        assert isinstance(error, OSError)
        assert error.errno == number
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
        assert kinds(outcomes)["Saved"] + kinds(outcomes)["NotStarted"] == 40
        assert 3 <= kinds(outcomes)["Saved"] <= 7
        assert {outcome.error for outcome in outcomes if isinstance(outcome, NotStarted)} == {error}
        assert len(names(tmp_path)) == kinds(outcomes)["Saved"]
        assert sandbox.calls("document") <= 7 + 2 * 4

    async def test_what_only_one_document_meets_is_its_own_outcome(self, tmp_path: Path) -> None:
        (tmp_path / "a.pdf").mkdir()
        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(["a", "b"], tmp_path, on_existing="replace"))
        assert error is None
        assert kinds(outcomes) == {"Saved": 1, "Failed": 1}

    async def test_a_folder_that_vanishes_is_made_again(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            await documents.download("a", tmp_path / "in")
            (tmp_path / "in" / "a.pdf").unlink()
            (tmp_path / "in").rmdir()
            await documents.download("b", tmp_path / "in")
        assert names(tmp_path) == ["in/b.pdf"]

    @pytest.mark.slow
    async def test_a_disk_that_fills_up_ends_the_batch_and_the_rest_comes_after_space_is_made(
        self, small_disk: Path
    ) -> None:
        ids = demo_orders(60)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 900_000)
        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(ids, small_disk / "in", concurrency=8))
            assert isinstance(error, OSError)
            assert error.errno == errno.ENOSPC
            assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
            saved = [outcome for outcome in outcomes if isinstance(outcome, Saved)]
            assert 0 < len(saved) < 60
            assert names(small_disk / "in") == sorted(f"{outcome.order_id}.pdf" for outcome in saved)
            assert all(fault_of(outcome.document.path.read_bytes()) is None for outcome in saved)
            filler.unlink()
            outcomes, error = await gathered(documents.download_many(ids, small_disk / "in", concurrency=8))
            assert error is None
        assert kinds(outcomes) == {"Skipped": len(saved), "Saved": 60 - len(saved)}


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 1 MB; where none may be mounted, a folder whose files may have no more together."""
    size = 1_000_000
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        yield tmp_path
        subprocess.run(["umount", str(tmp_path)], check=True)
        return
    real = os.write

    def write(fd: int, data: Any) -> int:
        if sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) + len(data) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    yield tmp_path


async def cancelled_at_every_step(work: Any, check: Any) -> asyncio.Task[Any]:
    """Run `work` and cancel it after 0, 1, 2 … steps of the loop until it ends by itself.

    Far out the steps grow by a two-hundredth: there the loop only spins while the disk's thread is at work.
    """
    for step in accumulate(repeat(0), lambda step, _: step + 1 + step // 200):
        task = asyncio.create_task(work())
        for _ in range(step):
            await asyncio.sleep(0)
            if task.done():
                break
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            return task
        check()
    raise AssertionError


@pytest.mark.usefixtures("collected")
class TestCancelling:
    """Over a real socket, at every step of the loop."""

    @pytest.mark.parametrize(
        ("body", "durable"),
        [(pdf(42_000), False), (pdf(42_000), True), (LARGE, False)],
        ids=["small", "durable", "large"],
    )
    async def test_a_download_leaves_nothing_or_the_whole(self, tmp_path: Path, body: bytes, *, durable: bool) -> None:
        sandbox = Sandbox()

        async with serve(sandbox) as url, client(sandbox, url=url) as documents:
            connector = work_of(documents).session.transport._client.connector  # type: ignore[attr-defined]

            async def work() -> Any:
                sandbox.script("a", [whole(body)])
                return await documents.download("a", tmp_path, durable=durable)

            def check() -> None:
                sandbox._scripts.clear()
                assert names(tmp_path) == []
                assert not connector._acquired
                assert own_tasks() == set()

            task = await cancelled_at_every_step(work, check)
            assert task.result().path.read_bytes() == body
            assert names(tmp_path) == ["a.pdf"]
            await settled(sandbox)
            assert work_of(documents).session.admission.places.free == 32

    async def test_a_batch_leaves_whole_documents_only(self, tmp_path: Path) -> None:
        sandbox = Sandbox()
        async with serve(sandbox) as url, client(sandbox, url=url, first=0.0) as documents:
            connector = work_of(documents).session.transport._client.connector  # type: ignore[attr-defined]

            async def work() -> None:
                sandbox.script("b", [Unavailable(), Truncated()])
                async for _ in documents.download_many("abcd", tmp_path, concurrency=2, on_existing="replace"):
                    pass

            def check() -> None:
                sandbox._scripts.clear()
                assert not any(is_temp(name) for name in names(tmp_path))
                assert all(fault_of(path.read_bytes()) is None for path in tmp_path.iterdir())
                assert not connector._acquired
                assert own_tasks() == set()

            await cancelled_at_every_step(lambda: _listed(work), check)
            await settled(sandbox)

    @pytest.mark.parametrize("closing", [True, False])
    async def test_leaving_a_batch_early_stops_it(self, tmp_path: Path, *, closing: bool) -> None:
        sandbox = Sandbox()
        read = iter(demo_orders(500))
        async with serve(sandbox) as url, client(sandbox, url=url) as documents:
            if closing:
                async with aclosing(documents.download_many(read, tmp_path, concurrency=4)) as outcomes:
                    await anext(outcomes)
            else:
                async for _ in documents.download_many(read, tmp_path, concurrency=4):
                    break
                gc.collect()
            await until_alone()
            await settled(sandbox)
            assert len(list(read)) >= 500 - 10
        assert not any(is_temp(name) for name in names(tmp_path))


async def _listed(work: Any) -> None:
    await work()


async def until_alone() -> None:
    """Wait until no task of the library is left: what the disk's thread has in hand is waited for by its task."""
    for _ in range(5000):
        if not own_tasks():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"left behind: {own_tasks()}")
