"""`runs show` on a terminal, and `runs report`: what an operator sees of a run."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from fakes import START
from report_runs import HOSTILE, Seen, document_run, invoice_run
from rich.console import Console
from served import SECRETS, Cli, write_drafts

from invoicing_async._durable.records import Pause
from invoicing_async.cli.commands import runs
from invoicing_async.cli.commands.run_view import RunView
from invoicing_async.cli.exits import Exit
from invoicing_async.cli.terminal.output import Output
from invoicing_async.reports import sparkline
from invoicing_async.runs import InvoiceRun, SqliteReader, Stretch, Timeline
from invoicing_async.sandbox import Faults, Operation, Sandbox, Unavailable

pytestmark = pytest.mark.usefixtures("no_settings")

ENDS = {"success": 20, "failed": 3, "rejected": 4, "in_doubt": 2, "submitted": 2}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("run") / "run.db"
    asyncio.run(invoice_run(file, ENDS, pauses=[Pause("create_invoice", START + 60, START + 240, is_over=True)]))
    return str(file)


def on_terminal(file: str, *, width: int = 100, encoding: str = "utf-8", quiet: bool = False) -> str:
    """What `runs show` writes on a terminal."""
    raw = BytesIO()
    stream = TextIOWrapper(raw, encoding=encoding, errors="backslashreplace")
    out = Console(file=stream, force_terminal=True, width=width, height=50, highlight=False, color_system=None)
    output = Output(out=out, err=out, quiet=quiet)

    async def shown() -> None:
        async with SqliteReader.read(file) as ledger:
            await runs._summary(await RunView.of(file, ledger), output)

    asyncio.run(shown())
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_shows_the_states_with_what_happened_when(file: str, width: int) -> None:
    """Numbers are whole at every width, and no line of the table is wider than the terminal."""
    lines = on_terminal(file, width=width).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith(" E-invoices of"))
    table = lines[begin + 1 : begin + 2 + len(ENDS)]
    found = [re.match(r" {3}([a-z ]+?) +([\d,]+) ", line) for line in table]
    assert {row[1]: int(row[2]) for row in found if row} == {
        **{state.replace("_", " "): number for state, number in ENDS.items()},
        "total": sum(ENDS.values()),
    }
    assert max(map(len, table)) <= width
    assert "█" in table[0]
    assert "░" in table[0]


def test_it_says_what_is_oldest_and_what_is_next(file: str) -> None:
    """Each thing that is left with the command that settles it."""
    text = on_terminal(file)
    assert "oldest  A-29, sent 2025-09-17" in text
    assert "1 pause, 3 min at most" in text
    after = [line.strip() for line in text.split("\n Next\n")[1].splitlines()]
    assert after[0] == "2 in doubt"
    assert f"invoicing-async runs retry {file} --state rejected" in after
    final = after.index(
        "The service took it and could not make it; that is final. Submit the corrected invoice under a new key."
    )
    assert after[final - 1 : final + 2 : 2] == ["3 failed", f"invoicing-async invoices submit DRAFTS --run {file}"]
    assert after[-1] == f"invoicing-async runs resume {file}"


def test_a_terminal_that_knows_no_blocks_has_none(file: str) -> None:
    text = on_terminal(file, encoding="ascii")
    assert "\\u" not in text
    assert "success" in text


def test_a_run_that_is_at_work_has_no_next(tmp_path: Path) -> None:
    """Whoever works on it goes on by himself; what waits for longest is named."""
    file = tmp_path / "run.db"
    asyncio.run(invoice_run(file, {"submitted": 1}))

    async def held() -> str:
        async with InvoiceRun.open(file):
            return await asyncio.to_thread(on_terminal, str(file))

    text = asyncio.run(held())
    assert "held by" in text
    assert "Next" not in text


def test_a_quiet_terminal_stays_quiet(file: str) -> None:
    assert on_terminal(file, quiet=True) == ""


def test_in_a_pipe_it_is_plain_and_json_is_as_it_was(cli: Cli, file: str) -> None:
    """No block, no colour; and one line of JSON with the names that it always had, and what came later behind them."""
    code, out, _ = cli("runs", "show", file)
    assert code == Exit.DONE
    assert not set(out) & set("▁▂▃▄▅▆▇█░\x1b")
    code, out, _ = cli("runs", "show", file, "--json")
    assert [*json.loads(out)] == [
        "file", "kind", "begun", "held_by", "total", "counts", "without_file", "authority", "settings", "next",
        "twice", "wrong", "standing",
    ]  # fmt: skip


def test_a_run_of_documents_is_shown(tmp_path: Path) -> None:
    asyncio.run(document_run(tmp_path / "run.db", saved=3, failed=1, deferred=1))
    text = on_terminal(str(tmp_path / "run.db"))
    assert "saved" in text
    assert f"invoicing-async runs resume {tmp_path / 'run.db'}" in text


TWO = Timeline(1.0, (Stretch(0.0, {"a": (8, 0, 0, 4)}), Stretch(100.0, {"a": (1,)})))


def test_a_line_of_blocks_has_gaps_pauses_and_the_tallest() -> None:
    """A little is not nothing; what is left out is marked; of more bars than columns several are one."""
    assert sparkline(TWO, "a") == "█  ▄┊▁"
    assert sparkline(TWO, "a", [Pause("o", 1.2, 2.0)]) == "█░ ▄┊▁"
    assert sparkline(TWO, "a", width=3) == "█▄┊▁"
    assert sparkline(Timeline(), "a") == ""


def test_the_page_is_written_and_named(cli: Cli, file: str, tmp_path: Path) -> None:
    """As one line, or as JSON."""
    page = tmp_path / "run.html"
    assert cli("runs", "report", file, "--html", page) == (Exit.DONE, f" {page}\n", "")
    seen = Seen(page.read_text())
    assert seen.numbers("states")["success"] == ENDS["success"]
    code, out, _ = cli("runs", "report", file, "--html", page, "--force", "--json")
    assert (code, json.loads(out)) == (Exit.DONE, {"file": file, "page": str(page), "size": page.stat().st_size})


def test_a_page_that_is_there_stays(cli: Cli, file: str, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    page.write_text("mine")
    code, _, err = cli("runs", "report", file, "--html", page)
    assert (code, "is there already" in err, "--force" in err) == (Exit.USAGE, True, True)
    assert page.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "out", "said"),
    [
        ("none.db", "p.html", "none.db"),
        ("other.db", "p.html", "is not a run file"),
        ("run", "other.db/p", "cannot write"),
    ],
)
def test_what_cannot_be_is_one_line(cli: Cli, file: str, tmp_path: Path, name: str, out: str, said: str) -> None:
    (tmp_path / "other.db").write_text("something else")
    code, _, err = cli("runs", "report", file if name == "run" else tmp_path / name, "--html", tmp_path / out)
    assert (code, said in err, "Traceback" in err) == (Exit.USAGE, True, False)


def test_a_page_in_the_place_of_its_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    """Also with --force: the run would be gone."""
    run = tmp_path / "run.db"
    asyncio.run(invoice_run(run, {"success": 1}))
    kept = run.read_bytes()
    code, _, err = cli("runs", "report", run, "--html", run, "--force")
    assert (code, "never replaced" in err, run.read_bytes() == kept) == (Exit.USAGE, True, True)


@pytest.mark.parametrize(
    "command",
    [
        ("documents", "download", "ids.csv", "--column", "id", "--to", "x", "--report", "./ids.csv"),
        ("documents", "download", "ids.txt", "--to", "x", "--run", "run.csv", "--report", "run.csv"),
        ("invoices", "submit", "drafts.csv", "--report", "drafts.csv"),
        ("invoices", "wait", "--from", "ids.csv", "--column", "id", "--report", "ids.csv"),
    ],
)
def test_a_report_in_the_place_of_an_input_is_refused(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Before anything is read, sent or made."""
    monkeypatch.chdir(tmp_path)
    for name in ("ids.csv", "drafts.csv"):
        (tmp_path / name).write_text("id\n1\n")
    code, _, err = cli(*command)
    assert (code, "would replace" in err) == (Exit.USAGE, True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("ids.csv", "drafts.csv"), "id\n1\n"
    )


def test_a_run_is_resumed_with_a_report_elsewhere_only(
    cli: Cli, services: Callable[..., Sandbox], tmp_path: Path
) -> None:
    services()
    asyncio.run(document_run(tmp_path / "run.csv", 1, 0, 0))
    kept = (tmp_path / "run.csv").read_bytes()
    for command in ("resume", "show", "verify"):
        code, _, err = cli("runs", command, "run.csv", "--report", "run.csv")
        assert (code, "never replaced" in err) == (Exit.USAGE, True)
    assert (tmp_path / "run.csv").read_bytes() == kept


def test_hostile_keys_do_not_move_the_cursor(tmp_path: Path) -> None:
    keys = [key for key in HOSTILE if "\ud800" not in key]
    asyncio.run(invoice_run(tmp_path / "run.db", {"submitted": len(keys)}, keys=keys))
    text = on_terminal(str(tmp_path / "run.db"))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_the_page_of_a_real_run_has_its_numbers_and_no_secret(
    cli: Cli, services: Callable[..., Sandbox], tmp_path: Path
) -> None:
    """Submitted on the command line, through failures and lost answers."""
    sandbox = services(Faults(polls_until_done=(1, 1), failed_share=0.3, lost_share=0.2))
    sandbox.script(Operation.SUBMIT, [Unavailable()] * 3)
    write_drafts(tmp_path / "drafts.jsonl", 30)
    cli("invoices", "submit", "drafts.jsonl", "--run", "run.db", "--stop-after", 0, "--wait")
    assert cli("runs", "report", "run.db", "--html", "run.html")[0] == Exit.DONE
    text = (tmp_path / "run.html").read_text()
    counts = json.loads(cli("runs", "show", "run.db", "--json")[1])["counts"]
    expected = {state.replace("_", " "): number for state, number in counts.items() if number}
    assert Seen(text).numbers("states") == expected | {"total": 30}
    assert {"failed", "in doubt", "success"} <= {*expected}
    assert not [secret for secret in SECRETS if secret in text]


def test_a_list_of_items_stands_in_columns_on_a_terminal(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all items have: state and key. A key that is very long moves only its own line; a pipe has no padding."""
    run = tmp_path / "run.db"
    keys = ("A", "B-12345", "K" * 100)
    asyncio.run(invoice_run(run, {"success": 2, "failed": 1}, keys=keys))
    tokens = ("runs", "show", run, "--items")
    piped = cli(*tokens)[1].splitlines()[:3]
    assert [line[11 : 11 + len(key) + 2] for line, key in zip(piped, keys, strict=True)] == [f"{key}  " for key in keys]
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = cli(*tokens)[1].splitlines()[:3]
    assert {line.index(line.split()[2]) for line in shown[:2]} == {11 + 40 + 2}
    assert [re.sub(" +", " ", line) for line in shown] == [re.sub(" +", " ", line) for line in piped]
