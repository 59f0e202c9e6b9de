"""A run as a page: its numbers are the run's, what comes from outside stays text, the file is whole or not there."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import re
import shlex
import sqlite3
import time
from base64 import b64encode
from contextlib import closing
from datetime import datetime
from hashlib import sha256
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes import START, FakeClock
from report_runs import HOSTILE, Seen, document_run, invoice_run, left_sending

from invoicing_async._durable.records import Pause
from invoicing_async.cli.app import app
from invoicing_async.reports import RunPage, _page, duration_words, write_run_page
from invoicing_async.runs import InvoiceRun, Overview, RunFigures, RunFileError, SqliteReader

ENDS = {"success": 31, "failed": 3, "rejected": 4, "in_doubt": 5, "submitted": 2, "invalid": 1, "planned": 1}
LATER = 86_400.0


class Later(FakeClock):
    """A day after the run: nothing can arrive any more."""

    def now(self) -> float:
        return super().now() + LATER


async def page_of(file: Path, clock: FakeClock | None = None) -> tuple[RunFigures, Seen, str]:
    async with SqliteReader.read(file) as ledger:
        page = await RunPage.of(ledger, file.name, clock=clock or Later())
    html = page.html()
    return page.figures, Seen(html), html


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with something of everything and a pause, to be read."""
    file = tmp_path_factory.mktemp("run") / "run.db"
    asyncio.run(invoice_run(file, ENDS, pauses=[Pause("create_invoice", START + 30, START + 42.5, is_over=True)]))
    return file


@pytest.mark.asyncio
async def test_the_numbers_of_the_page_are_the_runs(file: Path) -> None:
    """States, the authority, durations and reasons, each table with its sum; groups of digits are no other numbers."""
    figures, seen, _ = await page_of(file)
    async with SqliteReader.read(file) as ledger:
        counts = {name.replace("_", " "): number for name, number in (await Overview.of(ledger)).counts.items()}
    states = seen.numbers("states")
    assert states.pop("total") == figures.total == sum(ENDS.values())
    assert states == {name: number for name, number in counts.items() if number}
    assert seen.numbers("authority") == dict(figures.authority)
    assert sum(seen.numbers("why", 2).values()) == sum(reason.count for reason in figures.reasons) == figures.amiss
    assert seen.numbers("stretches", 2)
    for found in (figures.answered, figures.settled):
        said = next(rows for rows in seen.tables.values() if rows[-1][0] == "all" and int(rows[-1][2]) == found.count)
        assert [int(row[2]) for row in said[1:-1]] == [count for _, count in found.bins]
    assert [row[1:] for row in seen.tables["pauses"][1:]] == [["12.5 s", "create invoice", "it answered again"]]


@pytest.mark.asyncio
async def test_every_doubt_has_the_commands_that_settle_it(file: Path) -> None:
    """And so has each rejected one; they are quoted as a shell takes them."""
    _, _, html = await page_of(file)
    commands = [shlex.split(unescape(code)) for code in re.findall(r"<code>(invoicing-async .*?)</code>", html)]
    doubts = [tokens for tokens in commands if tokens[1:3] == ["runs", "resolve"] and "--as" in tokens]
    assert len(doubts) == 2 * ENDS["in_doubt"]
    retried = [tokens[4:] for tokens in commands if tokens[1:3] == ["runs", "retry"]]
    assert retried == [["--state", "rejected"], ["A-34"], ["A-35"], ["A-36"], ["A-37"]]
    assert ["invoicing-async", "runs", "resume", "run.db"] in commands
    assert ["invoicing-async", "runs", "refresh", "run.db"] in commands


@pytest.mark.asyncio
async def test_that_nothing_was_made_is_not_offered_before_it_may_be_said(file: Path) -> None:
    """The page says from when on; later it need not."""
    at_once = (await page_of(file, FakeClock()))[1]
    assert at_once.text.count("The last of these not before") == ENDS["in_doubt"]
    assert "not before" not in (await page_of(file))[1].text


@pytest.mark.asyncio
async def test_nothing_on_the_page_loads_or_runs(file: Path) -> None:
    """No script, no address, no style but the one that the policy names by its digest."""
    _, seen, html = await page_of(file)
    tags = {tag for tag, _ in seen.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    attributes = {name for _, found in seen.elements for name in found}
    assert not {name for name in attributes if name.startswith("on")} | (attributes & {"src", "style", "action"})
    assert all((found["href"] or "").startswith("#list-") for found in seen.named("a"))
    assert not re.search(r"https?://|url\(|@import", html)
    [style] = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    [policy] = [meta["content"] for meta in seen.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


@pytest.mark.asyncio
async def test_it_can_be_read_without_eyes(file: Path) -> None:
    """A language, headings without a gap, a caption for each table, a name for each chart, ids once."""
    _, seen, html = await page_of(file)
    assert seen.named("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in seen.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(seen.named("caption")) == len(seen.named("table"))
    assert all("scope" in found for found in seen.named("th"))
    ids = [found["id"] for _, found in seen.elements if "id" in found]
    assert len(set(ids)) == len(ids)
    for chart in seen.named("svg"):
        assert chart.get("aria-hidden") == "true" or chart["aria-labelledby"] in ids
    assert {found["href"] for found in seen.named("a")} <= {f"#{name}" for name in ids}
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


@pytest.mark.asyncio
async def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    """Markup, quotes, templates, controls, marks of direction and a key of 10,000 characters."""
    file = tmp_path / "<b>run's & \u202e.db"
    await invoice_run(file, {"in_doubt": len(HOSTILE)}, keys=(key for key in HOSTILE if "\ud800" not in key))
    await write_run_page(file, tmp_path / "page.html", clock=Later())
    html = (tmp_path / "page.html").read_text()
    seen = Seen(html)
    assert {tag for tag, _ in seen.elements} == {tag for tag, _ in (await page_of(file))[1].elements}
    assert not {"script", "img", "b>run"} & {tag for tag, _ in seen.elements}
    assert "<script>alert('key')</script>" in seen.text
    assert "{{ 7 * 7 }}{% raw %}&lt;b&gt;" in seen.text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2066-\u2069]", html)
    assert r"\u202eright\u200fto\u2066left" in seen.text
    assert r"A\x00\x07\x1b[31m\n\u2028B" in seen.text
    assert "10,000 characters" in seen.text
    assert len(html) < 200_000
    # What cannot be typed is settled by the sheet; what can be is quoted.
    typed = [
        shlex.split(unescape(code)) for code in re.findall(r"<code>(invoicing-async runs resolve .*?)</code>", html)
    ]
    taken = [app.parse_args(tokens[1:], print_error=False, exit_on_error=False)[1] for tokens in typed]
    keys = {bound.args[1] for bound in taken if len(bound.args) > 1}
    assert keys == {key for key in HOSTILE if key.isprintable() and len(key) < 200} | {"A-8"}


@pytest.mark.asyncio
async def test_reasons_of_others_stay_text(tmp_path: Path) -> None:
    """So do codes, ids, answers, and what the run keeps of folders."""
    file, texts = tmp_path / "run.db", [text for text in HOSTILE if "\ud800" not in text]
    settings = {"export": {"folder": texts[0], "format": texts[1]}}
    await invoice_run(file, {"rejected": len(texts), "in_doubt": len(texts)}, settings=settings)
    with closing(sqlite3.connect(file)) as connection, connection:
        for number, text in enumerate(texts, 1):
            about = json.dumps({"status": 502, "request_ids": [text], "answer": text})
            connection.execute("UPDATE items SET error = ?, code = ? WHERE seq = ?", (text, text, number))
            connection.execute("UPDATE items SET result = ? WHERE seq = ?", (about, len(texts) + number))
    _, seen, html = await page_of(file)
    assert not {"script", "img"} & {tag for tag, _ in seen.elements}
    assert not any(name.startswith("on") for _, found in seen.elements for name in found)
    assert seen.text.count("<script>alert('key')</script>") >= 4
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2066-\u2069]", html)
    assert len(html) < 200_000


@pytest.mark.asyncio
async def test_a_run_of_documents_has_a_page(tmp_path: Path) -> None:
    await document_run(tmp_path / "run.db", saved=7, failed=2, deferred=1)
    figures, seen, _ = await page_of(tmp_path / "run.db")
    assert seen.numbers("states") == {"planned": 1, "saved": 7, "deferred": 1, "failed": 2, "total": figures.total}
    assert "7,000 bytes" in seen.text
    assert "not when it was begun" in " ".join(seen.text.split())


@pytest.mark.asyncio
async def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    async with InvoiceRun.open(tmp_path / "run.db"):
        pass
    _, seen, _ = await page_of(tmp_path / "run.db")
    assert "Nothing has happened yet." in seen.text
    assert seen.numbers("states") == {"total": 0}


@pytest.mark.asyncio
async def test_a_run_that_is_at_work_says_who_holds_it(tmp_path: Path) -> None:
    """What is being sent is in flight then, and in doubt once its process is gone."""
    file = tmp_path / "run.db"
    await invoice_run(file, {"success": 1, "submitted": 1, "not_sent": 1})
    async with InvoiceRun.open(file):
        seen = (await page_of(file))[1]
        assert f"process {os.getpid()}" in seen.text
        assert "wait until it ends" in seen.text
    left_sending(file, 3)
    _, seen, _ = await page_of(file)
    assert seen.numbers("states") == {"success": 1, "submitted": 1, "in doubt": 1, "total": 3}
    assert "A-2" in seen.text


@pytest.mark.asyncio
async def test_times_are_local_with_their_zone_and_in_utc_for_programs(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    time.tzset()
    try:
        _, seen, _ = await page_of(file)
    finally:
        monkeypatch.undo()
        time.tzset()
    moments = seen.named("time")
    assert moments
    for found in moments:
        at = datetime.fromisoformat(str(found["datetime"]))
        assert at.utcoffset() is not None
        assert found["title"] == f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} UTC"
    assert "2025-09-17 16:12:30 +0700" in seen.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"), (0.9999, "1 s"), (0.999, "999 ms"), (1.5, "1.5 s"), (59.7, "59.7 s"), (61, "1 min 1 s"),
        (3_600, "1 h"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h"), (0, "0 ms"),
    ],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration_words(seconds) == text


@pytest.mark.asyncio
async def test_a_file_that_is_there_stays_unless_it_is_to_be_replaced(file: Path, tmp_path: Path) -> None:
    """And nothing is left beside it."""
    out = tmp_path / "page.html"
    out.write_text("an accountant's notes")
    with pytest.raises(FileExistsError):
        await write_run_page(file, out)
    assert out.read_text() == "an accountant's notes"
    assert await write_run_page(file, out, replace=True) == out
    assert out.read_text().rstrip().endswith("</html>")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.asyncio
async def test_a_page_never_replaces_a_run_file(tmp_path: Path) -> None:
    run = tmp_path / "run.db"
    await invoice_run(run, {"success": 1})
    kept = run.read_bytes()
    for name in ("run.db", "run.db-wal"):
        with pytest.raises(OSError, match="never replaced"):
            await write_run_page(run, tmp_path / name, replace=True)
    assert (run.read_bytes(), [path.name for path in tmp_path.glob("run.db-wal")]) == (kept, [])


@pytest.mark.asyncio
@pytest.mark.parametrize("ends", [{"success": 3}, {"planned": 1}])
async def test_a_pause_in_which_the_clock_was_set_back_has_a_page(tmp_path: Path, ends: dict[str, int]) -> None:
    """It is as long as it is known to have been: no time at all."""
    file = tmp_path / "run.db"
    await invoice_run(file, ends)
    with closing(sqlite3.connect(file)) as connection, connection:  # as versions before wrote it
        connection.execute("INSERT INTO pauses VALUES ('create_invoice', ?, ?, 1)", (START + 30, START - 5_000))
    figures, seen, _ = await page_of(file)
    assert [pause.until - pause.begun for pause in figures.pauses] == [0]
    assert seen.tables["pauses"][1][1:] == ["0 ms", "create invoice", "it answered again"]


@pytest.mark.asyncio
async def test_what_cannot_be_read_or_written_is_an_error_and_no_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("something else")
    with pytest.raises(RunFileError):
        await write_run_page(tmp_path / "other.db", tmp_path / "page.html")
    with pytest.raises(OSError, match="Not a directory"):
        await write_run_page(file, tmp_path / "other.db" / "page.html")
    with pytest.raises(FileNotFoundError):
        await write_run_page(tmp_path / "none.db", tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["other.db"]


@pytest.mark.asyncio
async def test_without_the_extra_it_is_said_what_to_install(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    _page.environment.cache_clear()
    with pytest.raises(ImportError, match=r"install invoicing-async\[report\]"):
        await write_run_page(file, tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
