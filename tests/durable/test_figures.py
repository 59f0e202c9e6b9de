"""The figures of a run: as many as there are, from one moment."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from attrs import evolve
from report_runs import CODE, document_run, invoice_run, left_sending

from invoicing_async._durable import report_parts as parts
from invoicing_async._durable import report_queries as module
from invoicing_async.runs import Authority, Durations, Overview, Reason, RunFigures, SqliteReader

ENDS = {
    "success": 20,
    "failed": 3,
    "rejected": 4,
    "in_doubt": 5,
    "not_sent": 2,
    "submitted": 6,
    "invalid": 1,
    "planned": 7,
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with something of everything, to be read."""
    file = tmp_path_factory.mktemp("run") / "run.db"
    asyncio.run(invoice_run(file, ENDS))
    return file


async def figures(file: Path) -> RunFigures:
    async with SqliteReader.read(file) as ledger:
        return await ledger.figures()


@pytest.mark.asyncio
async def test_the_figures_are_the_runs(file: Path) -> None:
    """Counts, the authority, what happened, and what is listed agree with what else reads the file."""
    found = await figures(file)
    async with SqliteReader.read(file) as ledger:
        now, authority = await Overview.of(ledger), await Authority.of(ledger)
        assert Overview.apparent(found.counts, held=False) == now.counts
        assert (found.authority, found.refused_count) == (authority.counts, authority.refused)
        assert found.refused == authority.first
        assert {state: len(items) for state, items in found.listed.items()} == {
            state: found.counts[state] for state in found.listed
        }
    assert found.total == sum(ENDS.values())
    happened = {name: found.timeline.total(name) for name in found.timeline.stretches[0].bars}
    assert happened == {
        **{name: ENDS[name] for name in ("success", "failed", "rejected", "in_doubt", "not_sent")},
        "submitted": ENDS["success"] + ENDS["failed"] + ENDS["submitted"],
    }
    assert found.oldest is not None
    assert found.oldest.key == "A-34"  # the first of those that the service has
    assert found.without_file == ENDS["success"]


@pytest.mark.asyncio
async def test_durations_are_those_of_the_journal(file: Path) -> None:
    """An answer came after 0.25 s, an end 2 s after that; what is in doubt was not answered."""
    found = await figures(file)
    answered = sum(ENDS[state] for state in ("success", "failed", "submitted", "rejected", "not_sent"))
    assert (found.answered.count, found.answered.bins) == (answered, ((0.5, answered),))
    assert [found.answered.median, found.answered.most, found.answered.longest] == pytest.approx([0.25] * 3)
    assert found.settled.count == ENDS["success"] + ENDS["failed"]
    assert found.settled.longest == pytest.approx(2.0)


def test_durations_count_each_once_and_a_clock_that_was_set_back_as_none() -> None:
    found = Durations.of([0.001, 0.0011, 3.0, 40.0, -5.0, *([0.15] * 95)])
    assert (found.count, found.median, found.longest) == (100, 0.15, 40.0)
    assert sum(count for _, count in found.bins) == 100
    assert found.bins[0] == (0.001, 2)
    assert [edge for edge, _ in found.bins] == sorted({edge for edge, _ in found.bins})
    assert Durations.of([]) == Durations()
    assert Durations.of([1e9]).bins == ((1e9, 1),)


@pytest.mark.asyncio
async def test_reasons_that_differ_in_numbers_and_keys_only_are_one(tmp_path: Path) -> None:
    """The words stay those that were said; other words or another code are another reason."""
    file = tmp_path / "run.db"
    await invoice_run(file, {"rejected": 6, "in_doubt": 2, "failed": 1})
    with closing(sqlite3.connect(file)) as connection, connection:
        for number in range(1, 6):
            words = f"invoice 'A-{number - 1}': line {number} of 3fa85f64-5717-4562-b3fc-2c963f66af0{number}"
            connection.execute("UPDATE items SET error = ? WHERE seq = ?", (words, number))
        connection.execute("UPDATE items SET error = NULL, code = NULL WHERE state = 'in_doubt'")
    found = await figures(file)
    first, *others = found.reasons
    assert (first.state, first.code, first.count, first.wordings) == ("rejected", CODE, 5, 5)
    assert first.words is not None
    assert first.words.startswith("invoice …: line 1 of 3fa85f64")
    assert others == [
        Reason(state="in_doubt", code=None, words=None, count=2),
        Reason(state="rejected", code=CODE, words="ApiError: no such template 7", count=1),
        Reason(state="failed", code="TAX_1", words="no such template 7", count=1),
    ]
    assert found.amiss == 9


@pytest.mark.asyncio
async def test_lists_and_reasons_are_cut(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LISTED", 2)
    monkeypatch.setattr(parts, "REASONS", 1)
    found = await figures(file)
    assert max(map(len, found.listed.values())) == 2
    assert [reason.state for reason in found.reasons] == ["in_doubt"]
    assert len(found.refused) == min(2, found.refused_count)


@pytest.mark.asyncio
async def test_a_run_of_documents_has_what_it_records(tmp_path: Path) -> None:
    """Times of the last outcome, bytes on disk; no beginnings, so no durations."""
    await document_run(tmp_path / "run.db", saved=7, failed=2, deferred=1)
    found = await figures(tmp_path / "run.db")
    assert found.counts == {"planned": 1, "saved": 7, "skipped": 0, "failed": 2, "deferred": 1}
    assert {name: found.timeline.total(name) for name in ("saved", "failed", "deferred")} == {
        "saved": 7,
        "failed": 2,
        "deferred": 1,
    }
    assert (found.size, found.answered, found.settled, found.oldest) == (7_000, Durations(), Durations(), None)
    assert (found.without_file, found.lost_exports) == (0, 0)


@pytest.mark.asyncio
async def test_what_was_being_sent_when_the_process_died_is_listed(tmp_path: Path) -> None:
    await invoice_run(tmp_path / "run.db", {"success": 1, "submitted": 1})
    left_sending(tmp_path / "run.db", 1)
    found = await figures(tmp_path / "run.db")
    assert [item.key for item in found.listed["sending"]] == ["A-0"]
    assert found.oldest is not None
    assert found.oldest.key == "A-0"


@pytest.mark.asyncio
async def test_entries_of_no_item_are_left_out(tmp_path: Path) -> None:
    """A file that is too large to be checked each time it is opened may be damaged."""
    await invoice_run(tmp_path / "run.db", {"success": 2})
    sound = await figures(tmp_path / "run.db")
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection, connection:
        sql = "INSERT INTO journal (item, event, at) VALUES (?, ?, 1758100351)"
        connection.executemany(sql, [(99, "intent"), (-1, "intent"), (0, "poll_success"), (1, "of another version")])
    found = await figures(tmp_path / "run.db")
    assert evolve(found, timeline=sound.timeline) == sound
