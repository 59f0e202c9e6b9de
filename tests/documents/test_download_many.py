"""A batch of order documents: every id is accounted for once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from hashlib import sha256
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from examples import examples
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from order_documents import BROKEN, FINAL, client, gathered, kinds, made, names, own_tasks, refusal

from invoicing_async._files.hosts import host_id
from invoicing_async._files.names import temp_name
from invoicing_async._files.pdf import fault_of
from invoicing_async.documents._client import work_of
from invoicing_async.errors import (
    AuthenticationError,
    OrderStatusError,
    SessionError,
)
from invoicing_async.models import Deferred, Duplicate, NotStarted, Saved, Skipped
from invoicing_async.policies import Limits
from invoicing_async.sandbox import (
    Faults,
    Genuine,
    NotPdf,
    RateLimited,
    Reset,
    Scripted,
    Slow,
    Truncated,
    Unavailable,
    demo_orders,
)

pytestmark = pytest.mark.asyncio


class TestDownloadMany:
    async def test_an_async_iterable_is_taken_too(self, tmp_path: Path) -> None:
        async def cursor() -> AsyncIterator[str]:
            for order_id in demo_orders(20):
                await asyncio.sleep(0)
                yield order_id

        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(cursor(), tmp_path))
        assert (kinds(outcomes), error) == ({"Saved": 20}, None)
        assert names(tmp_path) == sorted(f"{order_id}.pdf" for order_id in demo_orders(20))

    async def test_a_second_run_asks_for_nothing_that_is_whole(self, tmp_path: Path) -> None:
        ids = demo_orders(12)
        sandbox = made()
        async with client(sandbox) as documents:
            await gathered(documents.download_many(ids, tmp_path))
            (tmp_path / f"{ids[3]}.pdf").write_bytes(b"%PDF-1.7 broken")
            (tmp_path / f"{ids[4]}.pdf").unlink()
            (tmp_path / temp_name("dead", 1, host=host_id())).write_bytes(b"half")
            outcomes, _ = await gathered(documents.download_many(ids, tmp_path))
        assert kinds(outcomes) == {"Skipped": 10, "Saved": 2}
        assert all(outcome.document.attempts == 0 for outcome in outcomes if isinstance(outcome, Skipped))
        assert sandbox.calls("document") == 14
        assert len(names(tmp_path)) == 13

    async def test_an_id_that_comes_again_is_a_duplicate(self, tmp_path: Path) -> None:
        sandbox = made()
        async with client(sandbox) as documents:
            outcomes, _ = await gathered(documents.download_many(["a", "b", "a", "a"], tmp_path))
        assert kinds(outcomes) == {"Saved": 2, "Duplicate": 2}
        assert {outcome.order_id for outcome in outcomes if isinstance(outcome, Duplicate)} == {"a"}
        assert sandbox.calls("document") == 2

    async def test_an_order_that_is_not_eligible_is_deferred(self, tmp_path: Path) -> None:
        sandbox = made(faults=Faults(not_eligible=["b"]))
        async with client(sandbox) as documents:
            outcomes, _ = await gathered(documents.download_many(["a", "b"], tmp_path))
        (deferred,) = [outcome for outcome in outcomes if isinstance(outcome, Deferred)]
        assert deferred.order_id == "b"
        assert isinstance(deferred.error, OrderStatusError)
        assert "confirmed" in deferred.error.allowed_substatuses

    async def test_one_documents_error_never_ends_the_batch(self, tmp_path: Path) -> None:
        sandbox = made()
        answers: list[Scripted] = [
            NotPdf(),
            refusal(403),
            refusal(404),
            Truncated(),
            Reset(),
            Unavailable(),
            refusal(302),
            RateLimited(),
        ]
        for order_id, answer in zip("abcdefgh", answers, strict=True):
            sandbox.script(order_id, [answer])
        async with client(sandbox, attempts=1) as documents:
            outcomes, error = await gathered(documents.download_many(list("abcdefghij"), tmp_path))
        assert error is None
        assert kinds(outcomes) == {"Failed": 8, "Saved": 2}
        assert names(tmp_path) == ["i.pdf", "j.pdf"]

    async def test_a_refused_credential_ends_it_at_once(self, tmp_path: Path) -> None:
        ids = demo_orders(200)
        sandbox = made(*[Genuine()] * 10, *[refusal(401)] * 300)
        async with client(sandbox) as documents:
            outcomes, error = await gathered(documents.download_many(ids, tmp_path, concurrency=4))
        assert isinstance(error, AuthenticationError)
        assert sorted(outcome.order_id for outcome in outcomes) == sorted(ids)
        assert kinds(outcomes)["Saved"] + kinds(outcomes)["NotStarted"] == 199
        assert kinds(outcomes)["Failed"] == 1
        assert 6 <= kinds(outcomes)["Saved"] <= 10
        left = [outcome.error for outcome in outcomes if isinstance(outcome, NotStarted)]
        assert all(isinstance(cause, AuthenticationError) for cause in left)
        assert left[-1] is error
        assert sandbox.calls("document") <= 18
        assert len(names(tmp_path)) == kinds(outcomes)["Saved"]

    async def test_an_error_of_the_input_is_raised_after_what_is_in_flight(self, tmp_path: Path) -> None:
        def cursor() -> Iterator[str]:
            yield from "abc"
            raise LookupError("the cursor died")

        async with client(made()) as documents:
            outcomes, error = await gathered(documents.download_many(cursor(), tmp_path))
        assert isinstance(error, LookupError)
        assert kinds(outcomes) == {"Saved": 3}

    async def test_a_session_that_is_closed_meanwhile_ends_it(self, tmp_path: Path) -> None:
        async with client(made()) as documents:
            outcomes = documents.download_many(demo_orders(50), tmp_path, concurrency=2)
            first = await anext(outcomes)
        more, error = await gathered(outcomes)
        assert isinstance(error, (SessionError, RuntimeError))
        assert len([first, *more]) == 50

    async def test_backing_off_holds_no_place(self, tmp_path: Path) -> None:
        """With one place for all, nine documents are saved while the first waits half a minute."""
        clock = FakeClock(auto=False)
        sandbox = made(Unavailable(), clock=clock)
        async with (
            client(sandbox, limits=Limits(concurrency=1), first=60.0) as documents,
            aclosing(documents.download_many(demo_orders(10), tmp_path)) as outcomes,
        ):
            found = [await anext(outcomes) for _ in range(9)]
            assert kinds(found) == {"Saved": 9}
            assert clock.slept == [15.0]
            clock.advance(15.0)
            last = await anext(outcomes)
        assert isinstance(last, Saved)
        assert (last.order_id, last.document.attempts) == (demo_orders(10)[0], 2)
        assert sandbox.peak == 1

    @pytest.mark.parametrize("concurrency", [1, 5])
    async def test_nothing_is_read_ahead_beyond_the_concurrency(self, tmp_path: Path, concurrency: int) -> None:
        """However slow the consumer is."""
        read = 0

        def ids() -> Iterator[str]:
            nonlocal read
            for number in count():
                read += 1
                yield f"o-{number}"

        sandbox = made()
        async with (
            client(sandbox) as documents,
            aclosing(documents.download_many(ids(), tmp_path, concurrency=concurrency)) as outcomes,
        ):
            for taken in range(1, 12):
                await anext(outcomes)
                for _ in range(20):
                    await asyncio.sleep(0.0005)
                assert read <= taken + concurrency
        assert sandbox.peak <= concurrency

    async def test_a_batch_may_take_less_than_the_session(self, tmp_path: Path) -> None:
        sandbox = made(*[Slow(0.0, size=300)] * 20)
        async with client(sandbox, limits=Limits(concurrency=8)) as documents:
            await gathered(documents.download_many(demo_orders(20), tmp_path, concurrency=3))
        assert sandbox.peak == 3

    @pytest.mark.parametrize(("calls", "documents"), [(1, 1), (32, 32), (33, 37), (64, 72)])
    async def test_a_wide_session_has_more_documents_than_calls_under_way(
        self, tmp_path: Path, calls: int, documents: int
    ) -> None:
        """While some are at the disk, others are awaited; the ids read ahead are no more than these."""
        read: list[str] = []

        def ids() -> Iterator[str]:
            for order_id in demo_orders(200):
                read.append(order_id)
                yield order_id

        async with client(made(), limits=Limits(concurrency=calls)) as found:
            assert work_of(found).concurrency == documents
            async with aclosing(found.download_many(ids(), tmp_path)) as outcomes:
                given = 0
                async for _ in outcomes:
                    given += 1
                    assert len(read) <= given + documents

    async def test_a_saver_does_one_id_after_the_other_and_mends_its_own_file(self, tmp_path: Path) -> None:
        """A batch's saver saves one id at a time, for a run that counts its items itself."""
        async with client(made()) as documents:
            saver = await work_of(documents).saver(
                tmp_path, on_existing="keep", durable=False, layout="{order_id}", served_name=False, day=None
            )
            first = await saver.outcome("a", work_of(documents).sleep)
            assert isinstance(first, Saved)
            first.document.path.write_bytes(b"%PDF-1.7 broken")
            second = await saver.outcome("a", work_of(documents).sleep, replace=first.document.path)
            assert second == first
            assert work_of(documents).concurrency == 32
        assert names(tmp_path) == ["a.pdf"]
        assert fault_of(first.document.path.read_bytes()) is None

    @given(
        ids=st.lists(st.sampled_from("abcdefgh"), max_size=24),
        faults=st.dictionaries(
            st.sampled_from("abcdefgh"), st.lists(st.sampled_from([*BROKEN, *FINAL[:2], *FINAL[3:]]))
        ),
        concurrency=st.integers(1, 6),
        durable=st.booleans(),
    )
    @examples(60)
    async def test_every_id_ends_in_exactly_one_outcome(
        self, ids: list[str], faults: dict[str, list[tuple[Scripted, Any]]], concurrency: int, *, durable: bool
    ) -> None:
        """And a document is there if and only if its outcome says so."""
        sandbox = made()
        for order_id, answers in faults.items():
            sandbox.script(order_id, [answer for answer, _ in answers])
        with TemporaryDirectory() as name:
            folder = Path(name)
            async with client(sandbox) as documents:
                batch = documents.download_many(ids, folder, concurrency=concurrency, durable=durable)
                outcomes, error = await gathered(batch)
            assert error is None
            assert Counter(outcome.order_id for outcome in outcomes) == Counter(ids)
            assert kinds(outcomes)["Duplicate"] == len(ids) - len(set(ids))
            saved = {outcome.order_id: outcome.document for outcome in outcomes if isinstance(outcome, Saved)}
            assert names(folder) == sorted(f"{order_id}.pdf" for order_id in saved)
            for document in saved.values():
                assert sha256(document.path.read_bytes()).hexdigest() == document.sha256
        assert own_tasks() == set()
