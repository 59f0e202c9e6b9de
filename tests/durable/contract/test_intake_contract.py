"""What is taken in: every ledger keeps order, knows what it has, and takes all of a command or nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from attrs import astuple
from examples import examples
from fakes import START, FakeClock
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import DOCUMENTS, INVOICES, draft

from invoicing_async._durable.records import DraftConflictError, Intake, NewDraft
from invoicing_async._durable.states import DocumentState, Event


@pytest.mark.asyncio
async def test_ids_are_taken_in_in_order_and_paged_by_seq(place: Place) -> None:
    async with place.open(DOCUMENTS, clock=FakeClock()) as ledger:
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
@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_duplicates_are_counted_listed_and_the_first_one_wins(place: Place, batch: int) -> None:
    async with place.open(DOCUMENTS) as ledger:
        intake = await ledger.add_ids(["b", "a", "b", "c", "a", "b"], batch=batch)
        assert intake == Intake(given=6, added=3, known=0, duplicates=3)
        assert [item.key for item in await ledger.rows()] == ["b", "a", "c"]
        assert await ledger.duplicates() == [("a", 1), ("b", 2)]
        assert await ledger.duplicates(after="a", limit=1) == [("b", 2)]


@pytest.mark.asyncio
async def test_a_later_command_adds_what_is_new_and_knows_the_rest(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
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
async def test_an_input_that_fails_takes_nothing_in(place: Place) -> None:
    def ids() -> Iterator[str]:
        yield from ("a", "b", "c")
        raise LookupError("the cursor broke")

    async with place.open(DOCUMENTS) as ledger:
        with pytest.raises(LookupError, match="the cursor broke"):
            await ledger.add_ids(ids(), batch=1)
        assert await ledger.rows() == []
        assert (await ledger.add_ids(["c"])).added == 1


@pytest.mark.asyncio
async def test_two_commands_at_once_do_not_mix(place: Place) -> None:
    async with place.open(DOCUMENTS) as ledger:
        ids = [f"order-{number}" for number in range(20)]
        first, second = await asyncio.gather(ledger.add_ids(ids, batch=2), ledger.add_ids(ids, batch=3))
        assert first == Intake(given=20, added=20, known=0, duplicates=0)
        assert second == Intake(given=20, added=0, known=20, duplicates=0)


@pytest.mark.asyncio
async def test_drafts_are_taken_in_with_their_payload(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        assert await ledger.add_drafts([draft("a"), draft("b"), draft("a")]) == Intake(
            given=3, added=2, known=0, duplicates=1
        )
        pending = await ledger.pending()
        assert [(item.key, item.payload) for item in pending] == [("a", draft("a").payload), ("b", draft("b").payload)]
        assert "'{" not in repr(pending)
        assert [item.payload for item in await ledger.rows()] == [None, None]
        assert (await ledger.counts())["planned"] == 2


@pytest.mark.asyncio
async def test_the_same_drafts_again_are_known_and_change_nothing(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        await ledger.add_drafts([draft("a"), draft("b")])
        await ledger.transition("a", Event.INTENT)
        before = await ledger.rows()
        assert await ledger.add_drafts([draft("a"), draft("c"), draft("b"), draft("c")]) == Intake(
            given=4, added=1, known=2, duplicates=1
        )
        assert (await ledger.rows())[:2] == before


@pytest.mark.asyncio
async def test_a_key_with_other_content_is_a_conflict_and_nothing_is_taken_in(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
        await ledger.add_drafts([draft("a")])
        with pytest.raises(DraftConflictError, match="other content: 'a', 'c'") as caught:
            await ledger.add_drafts([draft("b"), draft("a", "new"), draft("c"), draft("c", "new"), draft("a", "new")])
        assert caught.value.keys == ("a", "c")
        assert [item.key for item in await ledger.rows()] == ["a"]
        assert (await ledger.counts())["planned"] == 1
        assert (await ledger.add_drafts([draft("b")])).added == 1


@pytest.mark.asyncio
async def test_an_invalid_draft_is_kept_apart_and_may_be_corrected(place: Place) -> None:
    async with place.open(INVOICES) as ledger:
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
def test_drafts_taken_in_together_are_what_they_are_one_by_one(
    places: Places, commands: list[list[NewDraft]], together: int
) -> None:
    """However many are written by one statement."""

    async def check(place: Place) -> None:
        rows: dict[str, tuple[str, str]] = {}
        async with place.open(INVOICES) as ledger:
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

    place = places()
    with place.in_groups_of(together):
        asyncio.run(check(place))
