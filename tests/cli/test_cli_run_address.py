"""Where a run is kept, as every command takes it: as it is typed, and refused before anything is done with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from served import clean

from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit
from invoicing_async.reports import doubt_commands

SECRET = "hunter2-canary"
UUID = "5a1e0000-0000-4000-8000-000000000001"
COMMANDS = [
    ["documents", "download", "ids.txt", "--to", "out", "--run"],
    ["documents", "download", "ids.txt", "--to", "out", "--report", "r.csv", "--run"],
    ["invoices", "submit", "drafts.jsonl", "--run"],
    ["invoices", "submit", "drafts.jsonl", "--export", "pdf", "--to", "out", "--report", "r.csv", "--run"],
    ["runs", "resume"],
    ["runs", "show"],
    ["runs", "show", "--items", "--report", "r.csv"],
    ["runs", "verify"],
    ["runs", "report", "--html", "page.html"],
    ["runs", "export"],
    ["runs", "refresh"],
    ["runs", "accept-lost-log"],
    ["runs", "retry", "--state", "rejected"],
    ["runs", "resolve", "--from", "answers.csv"],
    ["runs", "resolve", "--as", "not-created"],
]


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder with the files that commands read, and settings with which they would call a service that is not."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("ids.txt").write_text(f"{UUID}\n")
    Path("answers.csv").write_text("key,answer,request_id\nK,not-created,\n")
    for name, value in {
        "INVOICES_BASE_URL": "http://127.0.0.1:9/api",
        "INVOICES_TOKEN": "t",
        "DOCUMENTS_BASE_URL": "http://127.0.0.1:9/api",
        "DOCUMENTS_PARTNER_CLIENT_ID": "p",
        "DOCUMENTS_SECRET_KEY": "k",
        "DOCUMENTS_STORE_CLIENT_ID": "s",
        "DOCUMENTS_STORE_TOKEN": "t",
    }.items():
        monkeypatch.setenv(f"INVOICING_{name}", value)


@pytest.fixture
def drafts(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run(["invoices", "example"])
    Path("drafts.jsonl").write_text(capsys.readouterr().out)


def refused(tokens: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with exit code 2, and makes no file."""
    before = {*Path().iterdir()}
    if tokens[-1] == "--run":
        place = [*tokens, where]
    else:
        key = ["K"] if "--as" in tokens else []
        place = [*tokens[:2], where, *key, *tokens[2:]]
    assert run(place) == Exit.USAGE
    assert {*Path().iterdir()} == before
    return "".join(capsys.readouterr())


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize("tokens", COMMANDS, ids=" ".join)
def test_a_password_is_refused_by_every_command_and_shown_by_none(
    tokens: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for where in (f"postgresql://u:{SECRET}@h/db?run=m", f"postgresql://h/db?run=m&password={SECRET}"):
        told = refused(tokens, where, capsys)
        assert "PGPASSWORD" in told
        assert SECRET not in told


@pytest.mark.usefixtures("drafts")
@pytest.mark.parametrize("tokens", COMMANDS, ids=" ".join)
def test_a_database_that_is_not_reached_is_told_in_one_sentence_by_every_command(
    tokens: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    where = "postgresql://127.0.0.1:1/db?run=m"
    told = " ".join(refused(tokens, where, capsys).split())
    assert ("has no log beside it" if "accept-lost-log" in tokens else f"the database of {where}: ") in told


@pytest.mark.parametrize(
    ("where", "sheet"),
    [
        ("postgresql://db.internal/invoicing?run=march", "march.doubts.csv"),
        ("postgresql://u@h/db?sslmode=require&run=a%2Fb%20c", "a_b_c.doubts.csv"),
        ("postgresql://h/db?run=-..", "run.doubts.csv"),
        ("runs/march.db", "runs/march.doubts.csv"),
    ],
)
def test_the_commands_for_doubts_can_be_pasted_into_a_shell(where: str, sheet: str) -> None:
    """An address holds what a shell would take for itself, and its run's name may be no name of a file."""
    written, read = map(shlex.split, doubt_commands(where))
    assert written[1:] == ["runs", "export", where, sheet, "--state", "in_doubt", "--csv"]
    assert read[1:] == ["runs", "resolve", where, "--from", sheet]
    assert "?" not in where or f"'{where}'" in next(doubt_commands(where))
