"""Reports: rows as CSV or JSON, whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async.reports._report import Report, _Json
from invoicing_async.reports._spared import spare_runs
from invoicing_async.runs import InvoiceRun

COLUMNS = ("order_id", "outcome", "error")


async def write_report(path: Path, written: Iterable[Mapping[str, str]]) -> None:
    rows = [*written]
    async with Report(path, COLUMNS) as report:
        for row in rows:
            await report.add(row)
        await report.publish({"taken": len(rows)})


ROWS = st.fixed_dictionaries(
    {"order_id": st.text(max_size=20), "outcome": st.just("failed"), "error": st.text(max_size=20)}
)


@given(st.lists(ROWS, max_size=10), st.dictionaries(st.just("taken"), st.integers()))
@settings(max_examples=20, deadline=None)
def test_a_json_report_reads_back(written: list[dict[str, str]], totals: dict[str, int]) -> None:
    """Whatever an id or an error holds, the report is JSON with every row."""
    form = _Json(COLUMNS)
    text = form.head() + "".join(map(form.row, written)) + form.tail(totals)
    assert json.loads(text.encode("utf-8", "backslashreplace")) == {"items": written, **totals}


@pytest.mark.asyncio
async def test_a_report_is_csv_or_json_by_its_ending(tmp_path: Path) -> None:
    many = [{"order_id": f"o{number}", "outcome": "saved", "error": "x" * 100} for number in range(1_000)]
    await write_report(tmp_path / "r.csv", many)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [*csv.DictReader(file)] == many
    await write_report(tmp_path / "new" / "r.JSON", [])
    assert json.loads((tmp_path / "new" / "r.JSON").read_text()) == {"items": [], "taken": 0}


@pytest.mark.asyncio
async def test_a_report_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    async with Report(tmp_path / "old.csv", COLUMNS) as report:
        await report.add({"order_id": "x"})
    with pytest.raises(OSError, match=r"old\.csv"):
        await write_report(tmp_path / "old.csv" / "r.csv", [])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.csv", "old")]


@pytest.mark.asyncio
@pytest.mark.parametrize("ending", ["", "-wal", ".lock"])
async def test_a_run_file_is_never_replaced(tmp_path: Path, ending: str) -> None:
    """Neither before the work nor after it, under any name: it is all that is known of the submissions."""
    run = tmp_path / "run.csv"
    async with InvoiceRun.open(run):
        pass
    kept = run.read_bytes()
    with pytest.raises(OSError, match="never replaced"):
        spare_runs(f"{run}{ending}")
    (tmp_path / "link.csv").symlink_to(run)
    for name in ("run.csv", "link.csv"):
        with pytest.raises(OSError, match="never replaced"):
            await write_report(tmp_path / name, [])
    async with Report(tmp_path / "later.csv", COLUMNS) as report:
        run.rename(tmp_path / "later.csv")
        with pytest.raises(OSError, match="never replaced"):
            await report.publish()
    assert (tmp_path / "later.csv").read_bytes() == kept


def test_another_ending_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must end in \.csv or \.json, got r\.txt"):
        Report("r.txt", COLUMNS)
