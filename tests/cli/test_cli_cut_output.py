"""Output whose reader has left, as `| head -1` does: what only shows ends as if all had been read."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from report_runs import document_run, invoice_run
from served import aged, clean

from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit

Cut = Callable[[str], tuple[int, str]]


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Cut:
    """Run a command whose stdout nobody reads any more, in a folder with a run of e-invoices: its code and stderr."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    asyncio.run(invoice_run(Path("i.db"), {"success": 3, "in_doubt": 2}))

    def call(line: str) -> tuple[int, str]:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w", encoding="utf-8") as stdout, monkeypatch.context() as context:
            context.setattr(sys, "stdout", stdout)
            code = run(line.split())
        return code, capfd.readouterr().err

    return call


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "runs",
        "runs show --help",
        "schema",
        "completion bash",
        "runs show i.db",
        "runs show i.db --json",
        "runs show i.db --items",
        "runs show i.db --items --json",
        "runs export i.db",
        "runs export i.db --json",
        "invoices example --count 5",
    ],
)
def test_what_only_shows_ends_well_and_silently(line: str, cut: Cut) -> None:
    """A script with `set -o pipefail` goes on: all that it asked for was to see the beginning."""
    assert cut(line) == (Exit.DONE, "")


@pytest.mark.parametrize("line", ["doctor", "doctor --json"])
def test_what_finds_trouble_says_so_by_its_code_all_the_same(line: str, cut: Cut) -> None:
    assert cut(line) == (Exit.SOME_LEFT, "")


def test_what_looks_at_each_item_stops_and_says_so(cut: Cut) -> None:
    """Not every file was looked at, so that the code must not say that all are whole."""
    asyncio.run(document_run(Path("d.db"), saved=3, failed=0, deferred=0))
    code, err = cut("runs verify d.db --json")
    assert (code, "whoever read stdout has left" in err) == (Exit.STOPPED, True)


def test_a_change_that_was_begun_is_made_whole(cut: Cut) -> None:
    """Nobody hears of each answer, and each is taken."""
    Path("a.csv").write_text("key,answer,request_id\nA-3,not-created,\nA-4,not-created,\n")
    aged("i.db")
    assert cut("runs resolve i.db --from a.csv --json") == (Exit.DONE, "")
