"""An object store that answers badly: nothing is replaced, doubled or taken for saved that is not there."""

from __future__ import annotations

import asyncio
import errno
import traceback
from contextlib import suppress
from pathlib import Path

import pytest
from fakes import FakeClock
from object_servers import digest, moto_bucket, objects_in, peer

from invoicing_async._files.addresses import ObjectAddress
from invoicing_async._objects import PAUSES, ByteBudget, ObjectStore, open_objects
from invoicing_async.stores import Published

pytestmark = pytest.mark.asyncio

BODY = b"%PDF-1.7\nsome text\nstartxref\n9\n%%EOF\n"
KEY = "/bucket/pre/a.pdf"


async def put(store: ObjectStore, body: bytes = BODY) -> Published:
    return await store.put("a.pdf", body, sha256=digest(body), size=len(body))


async def test_one_request_creates_it_with_its_hash_twice() -> None:
    """A condition that refuses a second one, the hash as a checksum that the service proves, and as metadata."""
    async with peer() as (found, store):
        assert not (await put(store)).kept
    [headers] = found.seen
    assert headers["if-none-match"] == "*"
    assert "x-amz-checksum-sha256" in headers
    assert headers["x-amz-meta-sha256"] == digest(BODY)
    assert headers["content-type"] == "application/pdf"
    assert found.heads == 0


async def test_a_large_body_is_one_request_too() -> None:
    async with peer() as (found, store):
        spool = await store.spool()
        for _ in range(7):
            await spool.write([bytes(2**20)])
        await store.put("a.pdf", spool, sha256=spool.sha256, size=spool.size)
        await store.discard(spool)
    assert found.puts == 1
    assert len(found.held[KEY][0]) == 7 * 2**20


@pytest.mark.parametrize("step", [503, 500, "cut", "lost"])
async def test_an_answer_that_is_no_answer_is_asked_for_again(step: str | int) -> None:
    """Where the first try was taken and its answer lost, the second is refused: what it finds is its own."""
    async with peer([step]) as (found, store):
        published = await put(store)
    assert (published.kept, published.same) == (step == "lost",) * 2
    assert found.puts == 2
    assert found.held[KEY][0] == BODY


async def test_a_conflict_with_nothing_there_is_tried_again() -> None:
    """S3 answers 409 while somebody else creates the name, and that may come to nothing."""
    clock = FakeClock()
    async with peer(["ghost", "ghost"], clock=clock) as (found, store):
        published = await put(store)
    assert not published.kept
    assert (found.puts, found.heads) == (3, 2)
    assert clock.slept == list(PAUSES[:2])


async def test_a_conflict_that_never_ends_is_an_error_and_never_a_document() -> None:
    async with peer(["ghost"] * 20, clock=FakeClock()) as (found, store):
        with pytest.raises(OSError, match="the name is taken, and has nothing there") as caught:
            await put(store)
    assert caught.value.errno == errno.EIO
    assert found.puts == len(PAUSES) + 1
    assert found.held == {}


@pytest.mark.parametrize("kept", [digest(BODY), None], ids=["with its hash", "without"])
async def test_what_bears_no_hash_is_read(kept: str | None) -> None:
    """An object that another program put there is compared by its content."""
    async with peer() as (found, store):
        found.held[KEY] = BODY, kept
        assert (await put(store)).same
        assert await store.compare("a.pdf", size=len(BODY), sha256=digest(BODY)) is None
        found.held[KEY] = BODY.replace(b"some", b"more"), None
        with pytest.raises(FileExistsError, match="another object has that name: it has other content"):
            await put(store)


@pytest.mark.parametrize(("status", "number"), [(403, errno.EACCES), (401, errno.EACCES), (404, errno.ENODEV)])
async def test_a_refusal_is_an_oserror_and_holds_no_secret(status: int, number: int) -> None:
    async with peer([status]) as (_, store):
        with pytest.raises(OSError, match="the store: ") as caught:
            await put(store)
    assert caught.value.errno == number
    assert caught.value.filename == "s3://bucket/pre/a.pdf"
    told = "".join(traceback.format_exception(caught.value)) + repr(store)
    assert "planted-secret" not in told
    assert "Debug source" not in told


@pytest.mark.process
async def test_a_body_whose_put_was_cancelled_is_there_whole_or_not_at_all() -> None:
    with moto_bucket() as bucket:
        store = open_objects(ObjectAddress("s3", bucket))
        for steps in range(0, 400, 50):
            name, body = f"{steps}.pdf", BODY * 1000
            task = asyncio.ensure_future(store.put(name, body, sha256=digest(body), size=len(body)))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await store.close()
        assert set(objects_in(bucket).values()) <= {BODY * 1000}


async def test_settings_that_cannot_be_used_are_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "perhaps")
    with pytest.raises(OSError, match="failed to parse"):
        open_objects(ObjectAddress("s3", "bucket"))


async def test_no_spool_is_left_where_the_system_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = open_objects(ObjectAddress("memory", "spools"))
    spool = await store.spool()
    await spool.write([BODY])
    await store.put("a.pdf", spool, sha256=spool.sha256, size=spool.size)
    await store.discard(spool)
    await store.close()
    assert list(tmp_path.iterdir()) == []


class TestTheBudget:
    async def test_no_more_than_so_many_bytes_are_held_at_once(self) -> None:
        budget, held, most = ByteBudget(100), 0, 0

        async def holding(size: int) -> None:
            nonlocal held, most
            async with budget.held(size):
                held += size
                most = max(most, held)
                await asyncio.sleep(0)
                held -= size

        await asyncio.gather(*(holding(size) for size in (60, 60, 40, 100, 1, 30, 99)))
        assert 90 <= most <= 100

    async def test_one_that_is_larger_than_all_goes_alone(self) -> None:
        budget = ByteBudget(100)
        async with budget.held(1000):
            waiting = asyncio.ensure_future(_entered(budget, 1))
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting

    async def test_who_comes_first_is_let_in_first(self) -> None:
        """A large one is not kept out by small ones that go on coming."""
        budget, order = ByteBudget(100), list[int]()

        async def holding(size: int) -> None:
            async with budget.held(size):
                order.append(size)

        async with budget.held(50):
            tasks = [asyncio.ensure_future(holding(size)) for size in (90, 1, 2)]
            await asyncio.sleep(0)
            assert order == []
        await asyncio.gather(*tasks)
        assert order == [90, 1, 2]

    @pytest.mark.parametrize("is_its_turn", [True, False])
    async def test_who_leaves_while_waiting_holds_nothing(self, *, is_its_turn: bool) -> None:
        budget = ByteBudget(100)
        async with budget.held(50):
            leaving = asyncio.ensure_future(_entered(budget, 90))
            after = asyncio.ensure_future(_entered(budget, 50))
            await asyncio.sleep(0)
            if not is_its_turn:
                leaving.cancel()
                await after
        if is_its_turn:
            leaving.cancel()
        await asyncio.wait([leaving, after])
        assert leaving.cancelled()
        async with budget.held(100):
            pass


async def _entered(budget: ByteBudget, size: int) -> None:
    async with budget.held(size):
        pass
