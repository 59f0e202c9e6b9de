"""Items in doubt settled by command line, one by one or by a file: asked about first, shown, refused, taken back."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Cli, aged, json_lines, write_drafts

from invoicing_async.cli.exits import Exit
from invoicing_async.errors import ResolutionTooEarlyError
from invoicing_async.runs import InvoiceRun, Item
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

LOST = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0), lost_share=1.0)
NOWHERE = "00000000-0000-4000-8000-000000000000"


def doubtful(services: Callable[..., Sandbox], cli: Cli, count: int, *, old: bool = True) -> Sandbox:
    """A run, i.db, of so many drafts that are all in doubt, and long enough ago to say anything of them."""
    sandbox = services(LOST)
    write_drafts(Path("d.jsonl"), count)
    code, *_ = cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--quiet")
    while code == Exit.STOPPED:  # a batch in which nothing goes well ends after a few
        code, *_ = cli("runs", "resume", "i.db", "--quiet")
    assert code == Exit.SOME_LEFT
    if old:
        aged("i.db")
    return sandbox


def made(sandbox: Sandbox) -> dict[str, str]:
    """The request id of each key, as a person finds it at the service."""
    codes = {made.content["invoice_data"]["invoice_lines"][0]["code"]: key for key, made in sandbox.created.items()}
    return {f"ORDER-{int(code.removeprefix('LAMP-')):04}": key for code, key in codes.items()}


def states(cli: Cli) -> dict[str, str]:
    return {row["key"]: row["state"] for row in json_lines(cli("runs", "show", "i.db", "--items", "--json")[1])}


def test_an_id_is_asked_about_and_shown_beside_the_draft(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Buyer, tax code and amount of both; the answer then stands, and is polled by the next resume."""
    sandbox = doubtful(services, cli, 2)
    number = made(sandbox)["ORDER-0000"]
    code, out, _ = cli("runs", "resolve", "i.db", "ORDER-0000", "--as", "created", "--request-id", number)
    assert code == Exit.DONE
    assert re.search(r"draft +buyer Nguyen Van An, tax code 0101243150, amount 470,001.00", out)
    assert re.search(r"service +(buyer Nguyen Van An.*470,001.0|nothing said).*, (SUCCESS|NEW)", out)
    assert f"ORDER-0000 is submitted, request {number}" in out
    assert sandbox.calls("status") == 1
    number = made(sandbox)["ORDER-0001"]
    tokens = ("runs", "resolve", "i.db", "ORDER-0001", "--as", "created", "--request-id", number, "--json")
    row = json.loads(cli(*tokens)[1])
    assert (row["state"], row["found"]["request_id"]) == ("submitted", number)


def test_an_id_the_service_does_not_know_is_refused_unless_it_is_not_asked(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and nothing changed; --unverified takes it, without credentials too; another item's id never."""
    sandbox = doubtful(services, cli, 3)
    tokens = ("runs", "resolve", "i.db", "ORDER-0000", "--as", "created", "--request-id")
    code, _, err = cli(*tokens, NOWHERE)
    assert (code, f"the service knows no request {NOWHERE}" in err, "--unverified" in err) == (Exit.USAGE, True, True)
    assert set(states(cli).values()) == {"in_doubt"}
    for name in ("CLIENT_ID", "CLIENT_SECRET", "TENANT_CONNECTION_CODE", "TOKEN", "BASE_URL"):
        monkeypatch.delenv(f"INVOICING_INVOICES_{name}", raising=False)
    asked = sandbox.counts.total()
    code, _, err = cli(*tokens, made(sandbox)["ORDER-0000"])
    assert (code, "not set:" in err, "--unverified" in err) == (Exit.USAGE, True, True)
    assert cli(*tokens, made(sandbox)["ORDER-0000"], "--unverified")[0] == Exit.DONE
    other = ("runs", "resolve", "i.db", "ORDER-0001", "--as", "created", "--request-id")
    code, _, err = cli(*other, made(sandbox)["ORDER-0000"], "--unverified")
    assert (code, "is the request of 'ORDER-0000'" in err, "--unverified" in err) == (Exit.USAGE, True, False)
    assert sandbox.counts.total() == asked
    assert states(cli) == {"ORDER-0000": "submitted", "ORDER-0001": "in_doubt", "ORDER-0002": "in_doubt"}


def test_too_early_is_refused_with_the_seconds_left(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and what is left; the summary offers not-created only with that time."""
    doubtful(services, cli, 1, old=False)

    async def early(*_: Any, **__: Any) -> Item:
        raise ResolutionTooEarlyError("it may still arrive", remaining=12.2)

    out = cli("runs", "show", "i.db")[1]
    assert re.search(r"not before 12\d s from now: invoicing-async runs resolve i.db ORDER-0000 --as not-created", out)
    aged("i.db")
    monkeypatch.setattr(InvoiceRun, "resolve", early)
    code, _, err = cli("runs", "resolve", "i.db", "ORDER-0000", "--as", "not-created")
    assert (code, "nothing was changed: it may still arrive (13 s left)" in err) == (Exit.USAGE, True)


def test_not_created_is_refused_while_it_may_still_arrive(services: Callable[..., Sandbox], cli: Cli) -> None:
    """The run's own judgement, by when it was sent; later it is taken."""
    doubtful(services, cli, 1, old=False)
    tokens = ("runs", "resolve", "i.db", "ORDER-0000", "--as", "not-created")
    code, _, err = cli(*tokens)
    assert (code, bool(re.search(r"\(1\d\d s left\)", err))) == (Exit.USAGE, True), err
    assert states(cli) == {"ORDER-0000": "in_doubt"}
    aged("i.db")
    assert cli(*tokens)[0] == Exit.DONE


def test_an_answer_is_taken_back(services: Callable[..., Sandbox], cli: Cli) -> None:
    """--undo: in doubt again, until something came of it."""
    sandbox = doubtful(services, cli, 2)
    assert cli("runs", "resolve", "i.db", "ORDER-0000", "--as", "not-created")[0] == Exit.DONE
    code, out, _ = cli("runs", "resolve", "i.db", "ORDER-0000", "--undo")
    assert (code, "ORDER-0000 is in doubt again" in out) == (Exit.DONE, True)
    number = made(sandbox)["ORDER-0000"]
    created = ("runs", "resolve", "i.db", "ORDER-0000", "--as", "created", "--request-id", number)
    assert cli(*created)[0] == Exit.DONE
    assert json.loads(cli("runs", "resolve", "i.db", "ORDER-0000", "--undo", "--json")[1])["state"] == "in_doubt"
    assert cli("runs", "resolve", "i.db", "ORDER-0001", "--undo")[0] == Exit.USAGE
    assert cli(*created)[0] == Exit.DONE
    cli("runs", "resume", "i.db")
    assert cli("runs", "resolve", "i.db", "ORDER-0000", "--undo")[0] == Exit.USAGE
    assert states(cli) == {"ORDER-0000": "success", "ORDER-0001": "in_doubt"}


def filled(text: str, answers: dict[str, tuple[str, str]]) -> str:
    """Fill a sheet in as a person does, in a spreadsheet that parts cells by semicolons."""
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
    writer.writeheader()
    for row in rows:
        row["answer"], row["request_id"] = answers.get(row["key"], ("", ""))
        writer.writerow(row)
    return "\ufeff" + out.getvalue()


@pytest.mark.parametrize("where", ["stdout", "file"])
def test_forty_in_doubt_are_settled_by_one_file(services: Callable[..., Sandbox], cli: Cli, where: str) -> None:
    """Exported, filled in, given back: each made once in the end, and the summary is the end of the list."""
    sandbox = doubtful(services, cli, 40)
    export = ("runs", "export", "i.db", "--state", "in_doubt", "--csv")
    if where == "file":
        code, out, _ = cli(*export, "s.csv")
        assert "40 written to s.csv" in out
        assert "invoicing-async runs resolve i.db --from s.csv" in out
        text = Path("s.csv").read_text("utf-8")
    else:
        code, text, _ = cli(*export)
    assert code == Exit.DONE
    assert text[0] == "\ufeff"
    ids = made(sandbox)
    answers = {key: ("created", number) for key, number in list(ids.items())[:30]}
    Path("a.csv").write_text(filled(text[1:], answers), "utf-8")
    resolve = ("runs", "resolve", "i.db", "--from", "a.csv")
    code, out, _ = cli(*resolve)
    assert code == Exit.DONE
    assert re.search(r"submitted +30 ", out)
    assert out.index("is submitted, request") < out.index("Answers about i.db")
    assert list(states(cli).values()).count("in_doubt") == 10
    asked = sandbox.calls("status")
    code, out, _ = cli(*resolve)
    assert (code, bool(re.search(r"known +30 +said before", out))) == (Exit.DONE, True)
    assert sandbox.calls("status") == asked
    Path("a.csv").write_text(filled(text[1:], {key: ("created", number) for key, number in ids.items()}), "utf-8")
    assert cli(*resolve, "--quiet") == (Exit.DONE, "", "")
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    assert (len(sandbox.created), set(states(cli).values())) == (40, {"success"})


def test_a_file_with_faults_changes_nothing(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Each fault in a line of its own with line and column, then the count; exit code 2."""
    sandbox = doubtful(services, cli, 3)
    number = made(sandbox)["ORDER-0000"]
    Path("a.csv").write_text(f"key,answer,request_id\nORDER-0000,created,{number}\nORDER-0001,maybe,\n,created,7\n")
    code, out, err = cli("runs", "resolve", "i.db", "--from", "a.csv")
    assert (code, out) == (Exit.USAGE, "")
    assert err.splitlines()[:3] == [
        "a.csv line 3, column answer: must be created or not-created, got 'maybe'",
        "a.csv line 4, column request_id: must be a UUID (8-4-4-4-12 hex digits), got '7'",
        "a.csv line 4, column key: must not be empty",
    ]
    assert "nothing was changed: 3 faults in a.csv" in err
    Path("a.csv").write_text(f"key,answer,request_id\nORDER-0000,created,{number}\nORDER-0001,created,{NOWHERE}\n")
    code, _, err = cli("runs", "resolve", "i.db", "--from", "a.csv")
    assert (code, f"a.csv line 3, column request_id: the service knows no request {NOWHERE}" in err) == (2, True)
    Path("a.csv").write_text("key,answer,request_id\nORDER-0000,,\n")
    assert "a.csv has no answer" in cli("runs", "resolve", "i.db", "--from", "a.csv")[2]
    assert set(states(cli).values()) == {"in_doubt"}


WRONG: list[tuple[list[str], str]] = [
    (["resolve", "i.db"], "give a KEY, or --from"),
    (["resolve", "i.db", "K"], "say what you found"),
    (["resolve", "i.db", "K", "--as", "created"], "needs --request-id"),
    (["resolve", "i.db", "K", "--as", "created", "--request-id", "7"], "must be a UUID"),
    (["resolve", "i.db", "K", "--undo", "--as", "created"], "--undo takes an answer back"),
    (["resolve", "i.db", "K", "--from", "a.csv"], "--from has all the answers"),
    (["resolve", "i.db", "--from", "absent.csv"], "cannot read absent.csv"),
    (["retry", "i.db"], "give a KEY, or --state rejected"),
    (["retry", "i.db", "K", "--state", "rejected"], "give a KEY, or --state rejected"),
    (["retry", "i.db", "K", "--code", "A"], "give a KEY, or --state rejected"),
    (["retry", "i.db", "--state", "failed"], "state"),
    (["retry", "i.db", "--state", "rejected"], "nothing in this run is rejected"),
    (["export", "i.db", "--csv", "--json"], "exclude each other"),
    (["export", "i.db", "new.json", "--json"], "new.json would be CSV"),
    (["export", "i.db", "no/where/s.csv/", "--state", "lost"], "state"),
    (["export", "absent.db"], "cannot open the run file"),
    (["export", "m.db"], "is a run of order documents"),
]


def test_wrong_usage(services: Callable[..., Sandbox], cli: Cli) -> None:
    """One line and exit code 2; nothing is changed."""
    doubtful(services, cli, 1)
    Path("ids").write_text("o\n")
    assert cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--quiet")[0] == Exit.DONE
    for tokens, said in WRONG:
        code, out, err = cli("runs", *tokens)
        assert (code, out) == (Exit.USAGE, ""), tokens
        assert said in err
        assert "Traceback" not in err
        assert states(cli) == {"ORDER-0000": "in_doubt"}, tokens


def refusal(code: str) -> Answer:
    body = {"success": False, "error": {"code": code, "message": f"because of {code}"}}
    return Answer(status=422, headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())


def test_rejected_ones_are_tried_again_by_their_code(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Those of one code, or all; a code that nothing bears says which there are."""
    sandbox = services(Faults(polls_until_done=(1, 1)))
    write_drafts(Path("d.jsonl"), 5)
    sandbox.script(Operation.SUBMIT, [refusal(code) for code in ("A", "B", "A", "A", "B")])
    submit = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--concurrency", "1")
    code, out, _ = cli(*submit)
    assert (code, "because of A" in out, out.index("because of") < out.index("E-invoices of")) == (1, True, True)
    code, _, err = cli("runs", "retry", "i.db", "--state", "rejected", "--code", "C")
    assert (code, "nothing was rejected with C; the codes there are: A (3), B (2)" in err) == (Exit.USAGE, True)
    code, out, _ = cli("runs", "retry", "i.db", "--state", "rejected", "--code", "A")
    assert (code, "3 to be sent again" in out) == (Exit.DONE, True)
    assert sorted(states(cli).values()) == ["not_sent"] * 3 + ["rejected"] * 2
    code, out, _ = cli("runs", "retry", "i.db", "--state", "rejected", "--json")
    assert [row["state"] for row in json_lines(out)] == ["not_sent"] * 2
    assert cli("runs", "resume", "i.db", "--no-wait")[0] == Exit.DONE
    assert len(sandbox.created) == 5


def test_a_table_of_any_state_is_lines_of_json_too(services: Callable[..., Sandbox], cli: Cli) -> None:
    """For a program: the same facts, one object a line."""
    doubtful(services, cli, 2)
    [first, _] = json_lines(cli("runs", "export", "i.db", "--json")[1])
    assert (first["key"], first["amount"], first["state"]) == ("ORDER-0000", "470001.00", "in_doubt")
    assert cli("runs", "export", "i.db", "--state", "success", "--json")[1] == ""
    assert "cannot write" in cli("runs", "export", "i.db", "d.jsonl/s.csv")[2]


def test_a_sheet_that_may_be_filled_in_is_not_written_over(services: Callable[..., Sandbox], cli: Cli) -> None:
    """An hour of looking up is not lost to the same command given again."""
    doubtful(services, cli, 1)
    Path("s.csv").write_text("filled in")
    code, _, err = cli("runs", "export", "i.db", "s.csv", "--csv")
    assert (code, "s.csv is there already, and may be filled in" in err) == (Exit.USAGE, True)
    assert Path("s.csv").read_text() == "filled in"


def test_a_run_without_its_log_is_refused_until_that_is_accepted(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Exit 2 and the one command that takes it as it is: then all that may have been sent is in doubt."""
    services()
    write_drafts(Path("d.jsonl"), 3)
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db")[0] == Exit.DONE
    connection = sqlite3.connect("i.db", isolation_level=None)
    connection.execute("INSERT INTO meta VALUES ('log', 'x')")  # as a process leaves it that was killed
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    for words in (("runs", "show"), ("runs", "resume")):
        code, _, err = cli(*words, "i.db")
        assert code == Exit.USAGE
        assert "runs accept-lost-log" in " ".join(err.split())
    code, out, _ = cli("runs", "accept-lost-log", "i.db")
    assert (code, "3 submitted" in out) == (Exit.DONE, True)
    assert cli("runs", "show", "i.db")[0] == Exit.DONE
