"""The run file: nothing acknowledged is lost, nothing is half-written, one writer at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from attrs import astuple
from examples import examples
from fakes import START, FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledgers import DOCUMENTS, INVOICES, Item, documents, draft

from invoicing_async._durable import intake, transaction, transitions
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import (
    DraftConflictError,
    Intake,
    NewDraft,
)
from invoicing_async._durable.states import (
    DocumentState,
    Event,
)


@pytest.mark.asyncio
async def test_ids_are_taken_in_in_order_and_paged_by_seq(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS, clock=FakeClock()) as ledger:
        assert await ledger.add_ids(["c", "a", "b"]) == Intake(given=3, added=3, known=0, duplicates=0)
        first = await ledger.pending(limit=2)
        rest = await ledger.pending(after=first[-1].seq, limit=2)
        assert [(item.seq, item.key, item.state) for item in first + rest] == [
            (1, "c", "planned"),
            (2, "a", "planned"),
            (3, "b", "planned"),
        ]
        assert first[0].updated == START
        assert await ledger.pending(after=3) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("count", "staged"), [(7, [0, 0, 0, 3, 3, 3, 6]), (6, [0, 0, 0, 3, 3, 3])])
async def test_an_async_input_is_read_one_batch_at_a_time(tmp_path: Path, count: int, staged: list[int]) -> None:
    """The next id is read only when the batch before it is on disk."""
    staged_when_read: list[int] = []
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:

        async def ids() -> AsyncIterator[str]:
            for number in range(count):
                staged_when_read.append(
                    await ledger._worker.run(lambda transaction: transaction.one("SELECT count(*) FROM staged"))
                )
                yield f"order-{number}"

        assert (await ledger.add_ids(ids(), batch=3)).added == count
        assert staged_when_read == staged
        assert (await ledger.counts())["planned"] == count
        assert await ledger._worker.run(lambda transaction: transaction.one("SELECT count(*) FROM staged")) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_duplicates_are_counted_listed_and_the_first_one_wins(tmp_path: Path, batch: int) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        intake = await ledger.add_ids(["b", "a", "b", "c", "a", "b"], batch=batch)
        assert intake == Intake(given=6, added=3, known=0, duplicates=3)
        assert [item.key for item in await ledger.rows()] == ["b", "a", "c"]
        assert await ledger.duplicates() == [("a", 1), ("b", 2)]
        assert await ledger.duplicates(after="a", limit=1) == [("b", 2)]


@pytest.mark.asyncio
async def test_a_later_command_adds_what_is_new_and_knows_the_rest(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await ledger.add_ids(["a", "b", "b"])
        await ledger.record_document("a", DocumentState.SAVED, path="a.pdf", size=1, sha256="x")
        assert await ledger.add_ids(["c", "b", "c", "a"]) == Intake(given=4, added=1, known=2, duplicates=1)
        assert await ledger.duplicates() == [("c", 1)]
        assert [(item.key, item.state) for item in await ledger.rows()] == [
            ("a", "saved"),
            ("b", "planned"),
            ("c", "planned"),
        ]
        assert await ledger.add_ids([]) == Intake(given=0, added=0, known=0, duplicates=0)


@pytest.mark.asyncio
async def test_an_input_that_fails_takes_nothing_in(tmp_path: Path) -> None:
    def ids() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise LookupError("the cursor broke")

    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        with pytest.raises(LookupError, match="the cursor broke"):
            await ledger.add_ids(ids(), batch=1)
        assert await ledger.rows() == []
        assert (await ledger.add_ids(["c"])).added == 1


@pytest.mark.asyncio
async def test_two_commands_at_once_do_not_mix(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        ids = [f"order-{number}" for number in range(20)]
        first, second = await asyncio.gather(ledger.add_ids(ids, batch=2), ledger.add_ids(ids, batch=3))
        assert first == Intake(given=20, added=20, known=0, duplicates=0)
        assert second == Intake(given=20, added=0, known=20, duplicates=0)


@pytest.mark.asyncio
async def test_an_outcome_replaces_the_one_before(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS, clock=clock) as ledger:
        await ledger.add_ids(["a"])
        clock.advance(5)
        await ledger.record_document(1, DocumentState.FAILED, code="X", error="two\nlines", request_id="r-1", attempt=3)
        failed = await ledger.get("a")
        assert failed == Item(
            1, "a", "failed", attempt=3, code="X", error="two lines", request_id="r-1", updated=START + 5
        )
        await ledger.record_document("a", DocumentState.SAVED, path="a.pdf", size=42137, sha256="ff", attempt=1)
        saved = await ledger.get(1)
        assert saved == Item(1, "a", "saved", attempt=1, path="a.pdf", size=42137, sha256="ff", updated=START + 5)
        assert await ledger.get(2) is None
        assert await ledger.get("b") is None


@pytest.mark.asyncio
async def test_pending_are_those_to_fetch_and_on_request_those_to_verify(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 10)
        for seq, state in enumerate([*DocumentState, *DocumentState], start=1):
            await ledger.record_document(seq, state)
        assert [item.seq for item in await ledger.pending()] == [1, 4, 5, 6, 9, 10]
        assert [item.seq for item in await ledger.pending(after=4, limit=2)] == [5, 6]
        assert [item.seq for item in await ledger.pending(verify=True)] == list(range(1, 11))
        assert [item.seq for item in await ledger.rows([DocumentState.SAVED, "saved"])] == [2, 7]
        assert await ledger.counts() == dict.fromkeys(map(str, DocumentState), 2)


@pytest.mark.asyncio
async def test_the_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    chance = Random(7)
    async with SqliteLedger.open(tmp_path / "run.db", kind=DOCUMENTS) as ledger:
        await documents(ledger, 50)
        changes = [(chance.randint(1, 50), chance.choice(list(DocumentState))) for _ in range(300)]
        await asyncio.gather(*(ledger.record_document(seq, state) for seq, state in changes))
        counted = Counter(item.state for item in await ledger.rows())
        assert {state: count for state, count in (await ledger.counts()).items() if count} == counted


@pytest.mark.asyncio
async def test_drafts_are_taken_in_with_their_payload(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        assert await ledger.add_drafts([draft("a"), draft("b"), draft("a")]) == Intake(
            given=3, added=2, known=0, duplicates=1
        )
        pending = await ledger.pending()
        assert [(item.key, item.payload) for item in pending] == [("a", draft("a").payload), ("b", draft("b").payload)]
        assert "'{" not in repr(pending)
        assert [item.payload for item in await ledger.rows()] == [None, None]
        assert (await ledger.counts())["planned"] == 2


@pytest.mark.asyncio
async def test_the_same_drafts_again_are_known_and_change_nothing(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a"), draft("b")])
        await ledger.transition("a", Event.INTENT)
        before = await ledger.rows()
        assert await ledger.add_drafts([draft("a"), draft("c"), draft("b"), draft("c")]) == Intake(
            given=4, added=1, known=2, duplicates=1
        )
        assert (await ledger.rows())[:2] == before


@pytest.mark.asyncio
async def test_a_key_with_other_content_is_a_conflict_and_nothing_is_taken_in(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        with pytest.raises(DraftConflictError, match="other content: 'a', 'c'") as caught:
            await ledger.add_drafts([draft("b"), draft("a", "new"), draft("c"), draft("c", "new"), draft("a", "new")])
        assert caught.value.keys == ("a", "c")
        assert [item.key for item in await ledger.rows()] == ["a"]
        assert (await ledger.counts())["planned"] == 1
        assert (await ledger.add_drafts([draft("b")])).added == 1


def test_a_long_list_of_conflicts_is_cut_in_the_text_only() -> None:
    error = DraftConflictError(tuple(f"k{number}" for number in range(1012)))
    assert error.message.endswith("'k9' and 1,002 more")
    assert len(error.keys) == 1012


@pytest.mark.asyncio
async def test_an_invalid_draft_is_kept_apart_and_may_be_corrected(tmp_path: Path) -> None:
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await ledger.add_drafts([draft("a", error="lines[0].price: missing")])
        item = await ledger.get("a")
        assert item is not None
        assert (item.state, item.error) == ("invalid", "lines[0].price: missing")
        assert await ledger.pending() == []
        same = draft("a", error="lines[0].price: missing")
        assert await ledger.add_drafts([same]) == Intake(given=1, added=0, known=1, duplicates=0)
        await ledger.add_drafts([draft("a", "second", error="lines[0].unit: missing")])
        assert [entry.event for entry in await ledger.history("a")] == [
            Event.FOUND_INVALID,
            Event.CORRECTED,
            Event.FOUND_INVALID,
        ]
        await ledger.add_drafts([draft("a", "third")])
        (ready,) = await ledger.pending()
        good = draft("a", "third")
        assert (ready.state, ready.error, ready.payload) == ("planned", None, good.payload)
        assert ready.payload_sha256 == good.payload_sha256
        with pytest.raises(DraftConflictError):
            await ledger.add_drafts([draft("a", "fourth")])


def taken_in(rows: dict[str, tuple[str, str]], drafts: list[NewDraft]) -> tuple[dict[str, tuple[str, str]], object]:
    """What a run (key: state and payload) holds after these drafts, taken in one by one, and what is answered."""
    after, met, conflicts = dict(rows), set[str](), dict[str, None]()
    told = Counter[str]()
    for new in drafts:
        state, payload = after.get(new.key, ("", ""))
        invalid = state == "invalid" and new.key not in met
        if not state or (invalid and (new.error is None or payload != new.payload)):
            after[new.key] = ("planned" if new.error is None else "invalid"), new.payload
            told["known" if state else "added"] += 1
        elif payload != new.payload:
            conflicts[new.key] = None
        else:
            told["duplicates" if new.key in met else "known"] += 1
        met.add(new.key)
    if conflicts:
        return rows, tuple(conflicts)
    return after, (len(drafts), told["added"], told["known"], told["duplicates"])


DRAFTS = st.lists(
    st.builds(draft, st.sampled_from(["a", "b,c 1", "ü'", "d"]), st.sampled_from("xy"), st.sampled_from([None, "bad"])),
    max_size=8,
)


@given(st.lists(DRAFTS, max_size=4), st.sampled_from([2, 3, 256]))
@examples(60)
def test_drafts_taken_in_together_are_what_they_are_one_by_one(commands: list[list[NewDraft]], together: int) -> None:
    """However many are written by one statement."""

    async def check(folder: Path) -> None:
        rows: dict[str, tuple[str, str]] = {}
        async with SqliteLedger.open(folder / "run.db", kind=INVOICES) as ledger:
            for drafts in commands:
                rows, told = taken_in(rows, drafts)
                [answer] = await asyncio.gather(ledger.add_drafts(drafts), return_exceptions=True)
                assert (astuple(answer) if isinstance(answer, Intake) else getattr(answer, "keys", answer)) == told
                items = await ledger.rows(payload=True)
                assert {item.key: (item.state, item.payload) for item in items} == rows
                assert [item.seq for item in items] == list(range(1, len(rows) + 1))
                assert {item.key: item.payload_sha256 for item in items} == {
                    key: f"hash of {payload}" for key, (_, payload) in rows.items()
                }
                counted = Counter(state for state, _ in rows.values())
                assert {state: count for state, count in (await ledger.counts()).items() if count} == counted

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as name:
        for module in (transaction, transitions, intake):
            patch.setattr(module, "TOGETHER", together)
        asyncio.run(check(Path(name)))


@pytest.mark.asyncio
async def test_a_thousand_drafts_or_ids_take_few_statements(tmp_path: Path) -> None:
    """Each statement waits for the interpreter's lock, and a loop that never rests hardly lets go of it."""
    said: list[str] = []
    new = [draft(f"k{number}") for number in range(1_000)]
    async with SqliteLedger.open(tmp_path / "invoices.db", kind=INVOICES) as ledger:
        await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(said.append))
        assert (await ledger.add_drafts(new)).added == 1_000
        assert (await ledger.add_drafts(new)).known == 1_000
        assert len(said) < 40
    async with SqliteLedger.open(tmp_path / "documents.db", kind=DOCUMENTS) as ledger:
        await ledger._worker.run(lambda transaction: transaction.connection.set_trace_callback(said.append))
        said.clear()
        assert (await ledger.add_ids(one.key for one in new)).added == 1_000
        assert len(said) < 40


@pytest.mark.asyncio
async def test_the_longest_time_on_the_way_is_kept(tmp_path: Path) -> None:
    """Also where two clients with other timeouts say theirs at once, and in the file."""
    async with SqliteLedger.open(tmp_path / "run.db", kind=INVOICES) as ledger:
        await asyncio.gather(ledger.keep_late(10.0), ledger.keep_late(5.0))
        assert ledger.late == 10.0
    async with SqliteLedger.open(tmp_path / "run.db") as ledger:
        assert ledger.late == 10.0
