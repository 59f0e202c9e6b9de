"""`-` where a command writes a file: stdout, as it is stdin where one is read."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cli_screens import partner
from report_runs import invoice_run
from served import Cli, clean, write_ids

from invoicing_async.cli.exits import Exit


@pytest.fixture(autouse=True)
def run_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A run of e-invoices, i.db, in the working folder."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    asyncio.run(invoice_run(Path("i.db"), {"success": 1, "in_doubt": 2}))


@pytest.mark.parametrize("more", [(), ("--csv",), ("--json",)])
def test_a_sheet_goes_to_stdout(more: tuple[str, ...], cli: Cli) -> None:
    code, out, err = cli("runs", "export", "i.db", "-", *more)
    assert (code, err) == (Exit.DONE, "")
    assert out == cli("runs", "export", "i.db", *more)[1] != ""


def test_a_page_goes_to_stdout(cli: Cli) -> None:
    """The page and nothing else; it cannot be where the JSON lines are."""
    code, out, err = cli("runs", "report", "i.db", "--html", "-")
    assert (code, err, out[:15], out.rstrip()[-7:]) == (Exit.DONE, "", "<!DOCTYPE html>", "</html>")
    code, out, err = cli("runs", "report", "i.db", "--html", "-", "--json")
    assert (code, out, "exclude each other" in err) == (Exit.USAGE, "", True)


def test_a_report_is_a_file(cli: Cli) -> None:
    """Its ending says what it is, and stdout has the table: what is meant is said, before any work is done."""
    write_ids(Path("ids.txt"), 1)
    Path("env").write_text("".join(f"{name}={value}\n" for name, value in partner().items()))
    for tokens in (("runs", "show", "i.db"), ("documents", "download", "ids.txt", "--to", "o", "--env-file", "env")):
        code, out, err = cli(*tokens, "--report", "-")
        assert (code, out) == (Exit.USAGE, "")
        assert err.splitlines() == [
            "invoicing-async: a report is a file, CSV or JSON by its ending",
            "  --json prints its lines on stdout.",
        ]
    assert not Path("-").exists()


@pytest.mark.parametrize("tokens", [("export", "i.db", "--sate"), ("report", "i.db", "--html", "--force")])
def test_an_option_is_no_file(tokens: tuple[str, ...], cli: Cli) -> None:
    code, out, _ = cli("runs", *tokens)
    assert (code, out) == (Exit.USAGE, "")
    assert not Path(tokens[-1]).exists()
