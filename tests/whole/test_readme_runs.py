"""The README's durable runs are run as they are written, on both ledgers: only the value of `--run` is another one."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_server import Database
from readme_blocks import blocks
from served import Cli, write_ids

from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Faults, Sandbox

COUNT = 12
FILES = ("march.db", "einvoices.db")
PAGE = [block for block in blocks("sh") if "--run march.db --report" in block or "runs show march.db  " in block]
"""The blocks under "Durable runs" and "Look at a run"."""


@pytest.fixture
def folder(services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the page's commands are given, with the files that they name."""
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    services(Faults(polls_until_done=(1, 1)))
    write_ids(Path("ids.txt"), COUNT)
    Path("drafts.csv").write_text(cli("invoices", "example", "--format", "csv")[1])
    return Path()


def commands() -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for block in PAGE for line in block.splitlines()]


def test_the_page_shows_a_run_begun_looked_at_gone_on_with_and_verified() -> None:
    assert len(PAGE) == 2
    assert [words[:2] for words in commands()] == [
        ["documents", "download"],
        ["invoices", "submit"],
        ["runs", "show"],
        ["runs", "resume"],
        ["runs", "verify"],
        ["runs", "show"],
        ["runs", "report"],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("ledger", ["file", "server"])
def test_the_durable_runs_of_the_page_are_done_as_written(
    ledger: str, folder: Path, cli: Cli, request: pytest.FixtureRequest
) -> None:
    """Each ends well, and what the run was for is there: every document, every invoice's PDF, the report, the page."""
    where = {name: name for name in FILES}
    if ledger == "server":
        database: Database = request.getfixturevalue("queued")
        where = {name: database.address(Path(name).stem) for name in FILES}
    for words in commands():
        code, out, err = cli(*(where.get(word, word) for word in words))
        assert code == Exit.DONE, (words, out, err)
    assert len(list((folder / "invoices").glob("*.pdf"))) == COUNT
    assert len(list((folder / "einvoices").glob("*.pdf"))) >= 1
    assert len((folder / "march.csv").read_text().splitlines()) == COUNT + 1
    assert (folder / "march.html").read_text().startswith("<!DOCTYPE html>")
    assert sorted(file.name for file in folder.glob("*.db")) == (sorted(FILES) if ledger == "file" else [])
