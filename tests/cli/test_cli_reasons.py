"""What the operator sees: why an invoice is not as it should be, in the service's words, wherever he looks."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Cli, json_lines, write_drafts

from invoicing_async.cli.exits import Exit
from invoicing_async.cli.summary import authority_note
from invoicing_async.reports import reason
from invoicing_async.runs import RunSettings, read_run
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

ID = "00000000-0000-4000-8000-000000000001"
WORDS = "MST 0101 không tồn tại"
FAILED = Faults(polls_until_done=(1, 1), failed_share=1.0)
DONE = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0))


def said(status: int, body: dict[str, Any]) -> Answer:
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())


def tells(sandbox: Sandbox, **more: Any) -> None:
    """Let every request be told of in this way, whichever it is."""
    body = {"message": WORDS, "error_code": "ERR_TAX_CODE"} | more
    sandbox.script(Operation.STATUS, [said(200, body)] * 50)


def test_why_a_request_failed_stands_wherever_it_is_shown(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Output, JSON lines, both reports, `wait`, `status`, and every view of a run."""
    sandbox = services(FAILED)
    tells(sandbox, status="FAILED")
    write_drafts(Path("d.jsonl"), 1)
    submit = ("invoices", "submit", "d.jsonl", "--wait")
    seen = {"screen": cli(*submit)[1], "json": cli(*submit, "--json", "--report", "r.json")[1]}
    seen["report"] = Path("r.json").read_text("utf-8")
    number = next(iter(sandbox.created))
    seen["status"], seen["status json"] = (
        cli("invoices", "status", number)[1],
        cli("invoices", "status", number, "--json")[1],
    )
    seen["wait"] = cli("invoices", "wait", number)[1]
    code, seen["run"], _ = cli(*submit, "--run", "i.db", "--report", "r.csv")
    assert code == Exit.SOME_LEFT
    seen["run report"] = Path("r.csv").read_text("utf-8-sig")
    seen["items"], seen["items json"] = (
        cli("runs", "show", "i.db", "--items")[1],
        cli("runs", "show", "i.db", "--items", "--json")[1],
    )
    seen["again"] = cli("runs", "resume", "i.db")[1]
    unsaid = [name for name, text in seen.items() if not shows(text, WORDS) or "ERR_TAX_CODE" not in text]
    assert unsaid == []
    assert all(number[:8] in seen[name] for name in ("status", "wait"))
    code, _, refused = cli("runs", "retry", "i.db", "ORDER-0000")
    assert (code, "is failed, not rejected" in refused) == (Exit.USAGE, True)
    assert "Submit the corrected invoice under a new key." in refused


def shows(text: str, words: str) -> bool:
    return words in text or json.dumps(words)[1:-1] in text


def test_a_reason_is_one_line_with_each_thing_once() -> None:
    """The service's words, then what is not in them."""
    row = {"error": f"no (C, request {ID})", "code": "C", "request_id": ID}
    assert reason(row) == row["error"]
    assert (
        reason({"error": "no", "code": "C", "http_status": 502, "request_ids": ID})
        == f"no (C, HTTP 502, it named {ID})"
    )
    assert reason({"error": "no", "request_id": ID, "status": "FAILED"}, ids=False) == "no"
    assert reason({"authority_status": "REJECTED", "invoice_id": ID}, ids=False) == ""
    assert reason({"status": "FAILED", "request_id": ID}) == f"FAILED (request {ID})"
    assert reason({"authority_status": "REJECTED"}) == "the tax authority: REJECTED"
    assert reason({"authority_status": "ACCEPTED", "request_id": ID}) == f"request {ID}"
    assert reason({}) == ""
    assert authority_note({"B": 1, "A": 2_000}) == "tax authority: 2,000 A, 1 B"


def invoice(status: str) -> dict[str, Any]:
    return {"status": "SUCCESS", "data": {"id": ID, "authority_status": status, "code": "L1"}}


@pytest.mark.parametrize(
    ("status", "code"), [("REJECTED", 1), ("ERROR", 1), ("ACCEPTED", 0), ("CANCELED", 0), ("NEU", 0)]
)
def test_what_the_authority_refuses_is_not_exit_code_zero(
    services: Callable[..., Sandbox], cli: Cli, status: str, code: int
) -> None:
    """Submitted with and without a run, waited for, asked about, refreshed: each says it, and ends as it says."""
    sandbox = services(DONE)
    write_drafts(Path("d.jsonl"), 1)
    tells(sandbox, **invoice(status))
    submit = ("invoices", "submit", "d.jsonl", "--wait")
    ends = {"plain": cli(*submit)}
    ends["run"] = cli(*submit, "--run", "i.db", "--report", "r.csv")
    number = next(iter(sandbox.created))
    ends["wait"], ends["status"] = cli("invoices", "wait", number), cli("invoices", "status", number)
    ends["refresh"] = cli("runs", "refresh", "i.db")
    ends["resume"] = cli("runs", "resume", "i.db")
    assert {name: end[0] for name, end in ends.items()} == dict.fromkeys(ends, code)
    assert {name for name, end in ends.items() if status not in end[1]} == set()
    with Path("r.csv").open(newline="", encoding="utf-8-sig") as file:
        [row] = csv.DictReader(file)
    assert (row["outcome"], row["authority_status"], row["lookup_code"]) == ("success", status, "L1")
    assert status in cli("runs", "show", "i.db")[1]
    assert json.loads(cli("runs", "show", "i.db", "--json")[1])["authority"] == {status: 1}


def test_refresh_records_what_changed_and_tells_what_it_could_not_ask(
    services: Callable[..., Sandbox], cli: Cli
) -> None:
    """One row an invoice; a report; exit code 1 while one does not stand or could not be asked for."""
    sandbox = services(DONE)
    write_drafts(Path("d.jsonl"), 3)
    assert cli("invoices", "submit", "d.jsonl", "--wait", "--run", "i.db")[0] == Exit.DONE
    first, second, _ = sandbox.created
    sandbox.script(first, [said(200, invoice("REJECTED"))])
    sandbox.script(second, [said(404, {"message": "gone"})])
    code, out, _ = cli("runs", "refresh", "i.db", "--json", "--report", "r.json")
    assert code == Exit.SOME_LEFT
    found = {row["request_id"]: row for row in json_lines(out)}
    assert (found[first]["outcome"], found[first]["authority_status"]) == ("refreshed", "REJECTED")
    assert (found[second]["outcome"], "404" in found[second]["error"]) == ("unknown", True)
    assert json.loads(Path("r.json").read_text())["counts"] == {"refreshed": 2, "unknown": 1}
    assert "2 SUBMITTED, " not in cli("runs", "show", "i.db")[1]
    code, out, _ = cli("runs", "show", "i.db", "--items")
    assert "1 REJECTED, 2 SUBMITTED" in out
    assert cli("runs", "refresh", "i.db")[0] == Exit.DONE
    assert "3 SUBMITTED" in cli("runs", "show", "i.db")[1]


@pytest.mark.parametrize("ledger", ["file", pytest.param("server", marks=pytest.mark.slow)])
def test_refresh_keeps_the_pace_of_its_run(
    ledger: str,
    services: Callable[..., Sandbox],
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """It asks no faster than the run is submitted; what is given is the run's from then on."""
    services(DONE)
    monkeypatch.setenv("INVOICING_LEDGER_WAIVE", "fsync")
    run = "i.db" if ledger == "file" else request.getfixturevalue("queued").address()
    write_drafts(Path("d.jsonl"), 9)
    assert cli("invoices", "submit", "d.jsonl", "--wait", "--run", run, "--per-second", "40")[0] == Exit.DONE
    begun = time.monotonic()
    assert cli("runs", "refresh", run)[0] == Exit.DONE
    assert time.monotonic() - begun >= 8 / 40 - 0.02
    assert cli("runs", "refresh", run, "--per-second", "500")[0] == Exit.DONE

    async def kept() -> float | None:
        async with read_run(run) as reader:
            return RunSettings.read(reader.settings).pace.per_second

    assert asyncio.run(kept()) == 500


def test_refresh_is_for_invoices_and_needs_credentials(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    services(DONE)
    Path("ids").write_text("o\n")
    assert cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--quiet")[0] == Exit.DONE
    code, _, err = cli("runs", "refresh", "m.db")
    assert (code, "is a run of documents, not of invoices" in err) == (Exit.USAGE, True)
    assert cli("runs", "refresh", "absent.db")[0] == Exit.USAGE
    monkeypatch.delenv("INVOICING_INVOICES_BASE_URL")
    code, _, err = cli("runs", "refresh", "m.db")
    assert (code, "not set: INVOICING_INVOICES_BASE_URL" in err) == (Exit.USAGE, True)


def test_a_long_list_ends_with_the_summary(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Items, what failed, what is in doubt: whatever is longer than a screen stands above the counts."""
    services(Faults(polls_until_done=(1, 1), lost_share=1.0))
    write_drafts(Path("d.jsonl"), 30)
    outs = [cli("invoices", "submit", "d.jsonl", "--run", "i.db")[1]]
    outs += [cli("invoices", "submit", "d.jsonl")[1], cli("runs", "show", "i.db")[1]]
    outs += [cli("runs", "show", "i.db", "--items")[1]]
    for out in outs:
        assert out.rindex("ORDER-00") < out.index("E-invoices")
        assert len(out[out.index("E-invoices") :].splitlines()) < 20
