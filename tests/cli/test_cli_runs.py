"""Durable runs by command line: kill them, stop them, look at them, settle them; nothing is lost and nothing twice."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from forked import Forked, forked
from rich.console import Console
from served import SECRETS, Cli, aged, command, json_lines, signals, whole, write_drafts, write_ids

from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async._durable.records import NewDraft
from invoicing_async._durable.states import Event
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._files.names import file_name
from invoicing_async.cli import run_kinds, run_summary
from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit
from invoicing_async.cli.input.options import Common, RateOptions
from invoicing_async.cli.stop import Stop
from invoicing_async.cli.terminal.output import Output
from invoicing_async.drafts import example_draft
from invoicing_async.models import VatRate
from invoicing_async.runs import RunKind, SqliteReader
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox
from invoicing_async.settings import Settings

pytestmark = pytest.mark.process

QUICK = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0))
REFUSED = Answer(
    status=422,
    headers={"Content-Type": "application/json"},
    body=b'{"success": false, "error": {"code": "INV_001", "message": "no such template"}}',
)


Said = tuple[int, str, str]


def shown(cli: Cli, file: str) -> dict[str, Any]:
    code, out, _ = cli("runs", "show", file, "--json")
    assert code == Exit.DONE
    found: dict[str, Any] = json.loads(out)
    return found


def items(cli: Cli, file: str, *tokens: str) -> list[dict[str, Any]]:
    code, out, _ = cli("runs", "show", file, "--items", "--json", *tokens)
    assert code == Exit.DONE
    return json_lines(out)


def until(ready: Callable[[], bool], running: Forked) -> None:
    for _ in range(4_000):
        if ready() or running.poll() is not None:
            break
        threading.Event().wait(0.005)
    assert ready(), running.communicate()


def killed(calls: Callable[[], int], at: int, *tokens: object) -> None:
    """Run a command and kill it as soon as the service has had so many calls."""
    with forked(*tokens) as running:
        until(lambda: calls() >= at, running)
        running.kill()


def test_a_download_run_keeps_every_outcome_and_its_counts_add_up(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Each id once in the file, the report has all of them and the duplicate, and the same again asks for the rest."""
    sandbox = services(Faults(not_eligible=["order-3"], unavailable={"order-1": 1}))
    Path("ids").write_text(write_ids(Path("ids"), 20).read_text() + "order-5\n\norder-5\n")
    tokens = ("documents", "download", "ids", "--to", "out", "--run", "m.db", "--report")
    code, out, err = cli(*tokens, "r.json")
    assert (code, err) == (Exit.SOME_LEFT, "")
    for line in (
        r"saved +19 ",
        r"deferred +1 ",
        r"total +20 ",
        r"retries +1 ",
        "22 ids given: 20 new, 0 known, 2 twice",
    ):
        assert re.search(line, out), line
    assert "invoicing-async runs resume m.db" in out
    report = json.loads(Path("r.json").read_text())
    assert Counter(row["outcome"] for row in report["items"]) == {"saved": 19, "deferred": 1, "duplicate": 1}
    assert (report["rows"], report["total"], report["left"], report["stopped"]) == (21, 20, 0, False)
    assert report["counts"]["saved"] + report["counts"]["deferred"] == report["total"]
    before = sandbox.calls("document")
    code, out, _ = cli(*tokens, "r.csv", "--json")
    assert (code, sandbox.calls("document")) == (Exit.SOME_LEFT, before + 1)
    assert Counter(row["outcome"] for row in json_lines(out)) == {"skipped": 19, "deferred": 1, "duplicate": 1}
    with Path("r.csv").open(newline="", encoding="utf-8-sig") as file:
        found = {row["order_id"]: row for row in csv.DictReader(file) if row["outcome"] == "saved"}
    assert all(whole(Path(row["path"])) and int(row["size"]) > 100 for row in found.values())
    code, out, _ = cli("runs", "resume", "m.db", "--json", "--no-verify")
    assert Counter(row["outcome"] for row in json_lines(out)) == {"recorded": 19, "deferred": 1}


def test_kill_9_loses_nothing_and_fetches_nothing_twice(
    services: Callable[..., Sandbox], cli: Cli, tmp_path: Path
) -> None:
    """Killed twice in the middle, the run ends whole; only what was in flight at a kill is asked for again."""
    sandbox = services(latency=0.02)
    count, at_once = 160, 8
    write_ids(Path("ids"), count)
    pace = ("--concurrency", at_once)
    begin = ("documents", "download", "ids", "--to", "out", "--run", "m.db", *pace)
    for number, tokens in enumerate([begin, ("runs", "resume", "m.db", *pace)], 1):
        killed(lambda: sandbox.calls("document"), 40 * number, *tokens)
        assert shown(cli, "m.db")["held_by"] is None
    assert cli("runs", "resume", "m.db", *pace)[0] == Exit.DONE
    # What was published when it was killed, and not recorded yet, is found there: skipped.
    counts = shown(cli, "m.db")["counts"]
    assert counts["saved"] + counts["skipped"] == count
    assert count <= sandbox.calls("document") <= count + 2 * at_once
    saved = list((tmp_path / "out").iterdir())
    assert len(saved) == count
    assert all(whole(path) for path in saved)
    assert cli("runs", "verify", "m.db", "--quiet")[0] == Exit.DONE


def test_a_held_run_names_its_holder_and_one_signal_ends_it_well(services: Callable[..., Sandbox], cli: Cli) -> None:
    """The second process exits 2, looking is allowed, and after Ctrl-C the printed command goes on."""
    sandbox = services(latency=0.1)
    write_ids(Path("ids"), 200)
    file = "the month's.db"
    tokens = ("documents", "download", "ids", "--to", "out", "--run", file)
    with forked(*tokens, "--concurrency", 4) as running:
        until(lambda: sandbox.calls("document") >= 12, running)
        for second in (tokens, ("runs", "resume", file)):
            code, out, err = cli(*second)
            assert (code, out) == (Exit.USAGE, "")
            assert re.search(rf"is held by process {running.pid} on \S+ since \d{{4}}-", err)
        found = shown(cli, file)
        assert found["held_by"]["pid"] == running.pid
        assert found["counts"]["saved"] > 0
        assert f"held by  process {running.pid} on" in cli("runs", "show", file)[1]
        running.send_signal(signal.SIGINT)
        out, err = (text.decode() for text in running.communicate())
        assert running.returncode == Exit.STOPPED
    sandbox.settings = evolve(sandbox.settings, latency=0.0)
    line = next(line for line in err.splitlines() if "runs resume" in line)
    assert shlex.split(line) == ["invoicing-async", "runs", "resume", file]
    found = shown(cli, file)
    assert found["held_by"] is None
    assert found["counts"]["planned"] + found["counts"]["saved"] == found["total"] == 200
    assert found["next"] == [line.strip(), line.strip().replace("resume", "verify")]
    asked = sandbox.calls("document")
    assert asked == found["counts"]["saved"]
    code, _, _ = cli(*shlex.split(line)[1:])
    assert (code, sandbox.calls("document")) == (Exit.DONE, 200)


def test_a_second_signal_leaves_a_run_that_goes_on(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Interrupted at once: exit code 130, nothing half-written, and how to go on."""
    sandbox = services(latency=3)
    write_ids(Path("ids"), 20)
    with signals(lambda: sandbox.calls("document") >= 1, 2):
        tokens = ("documents", "download", "ids", "--to", "out", "--run", "m.db", "--report", "r.json")
        code, _, err = cli(*tokens, "--env-file", os.devnull, "--concurrency", "4")
    assert code == Exit.INTERRUPTED
    assert f"runs resume m.db --env-file {os.devnull}" in err
    assert list(Path("out").iterdir()) == []
    report = json.loads(Path("r.json").read_text())
    assert {row["outcome"] for row in report["items"]} == {"not_started"}
    assert (report["stopped"], report["left"]) == (True, 20)


def test_what_is_missing_or_broken_is_found_and_fetched_anew(services: Callable[..., Sandbox], cli: Cli) -> None:
    """`runs verify` hashes everything and changes nothing; `runs resume` puts whole documents back."""
    sandbox = services()
    write_ids(Path("ids"), 6)
    assert cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--durable")[0] == Exit.DONE
    assert cli("runs", "verify", "m.db")[0] == Exit.DONE
    (Path("out") / "order-1.pdf").write_bytes(b"%PDF-1.4 not any more")
    (Path("out") / "order-2.pdf").unlink()
    code, out, _ = cli("runs", "verify", "m.db", "--json", "--report", "v.csv")
    assert code == Exit.SOME_LEFT
    found = {row["key"]: row["outcome"] for row in json_lines(out)}
    assert Counter(found.values()) == {"whole": 4, "broken": 1, "missing": 1}
    assert (found["order-1"], found["order-2"]) == ("broken", "missing")
    assert len(Path("v.csv").read_text().splitlines()) == 7
    assert "invoicing-async runs resume m.db" in cli("runs", "verify", "m.db")[1]
    assert cli("runs", "resume", "m.db")[0] == Exit.DONE
    assert sandbox.calls("document") == 8
    assert cli("runs", "verify", "m.db")[0] == Exit.DONE
    assert len(list(Path("out").iterdir())) == 6


def test_a_run_holds_to_what_it_was_begun_with(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Folder, layout and the rest are those of the first time; saying otherwise is exit code 2."""
    services()
    write_ids(Path("ids"), 1)
    tokens = ("documents", "download", "ids", "--run", "m.db", "--to")
    layout = ("--layout", "x/{order_id}")
    assert cli(*tokens, "out", *layout, "--on-existing", "new-name")[0] == Exit.DONE
    assert cli(*tokens, "out", *layout)[0] == cli(*tokens, "out")[0] == Exit.DONE
    for other, said in (
        (["else"], "out, which this run was begun with"),
        (["out", "--layout", "{shard}/{order_id}"], "--layout: this run was begun with 'x/{order_id}'"),
        (["out", "--durable"], "--durable: this run was begun with False"),
        (["out", "--served-name"], "--served-name"),
        (["out", "--on-existing", "replace"], "--on-existing: this run was begun with 'new name'"),
    ):
        code, _, err = cli(*tokens, *other)
        assert code == Exit.USAGE
        assert said in err


def test_a_name_that_is_taken_is_treated_as_the_run_was_told(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Replace is remembered by the run, so a resume does the same."""
    services()
    write_ids(Path("ids"), 2)
    Path("out").mkdir()
    (Path("out") / "order-0.pdf").write_text("in the way")
    tokens = ("documents", "download", "ids", "--to", "out", "--run")
    assert cli(*tokens, "k.db")[0] == Exit.DONE
    [aside] = Path("out").glob("order-0 (broken *).pdf")
    assert aside.read_text() == "in the way"
    (Path("out") / "order-0.pdf").write_text("in the way again")
    assert cli(*tokens, "r.db", "--on-existing", "replace")[0] == Exit.DONE
    assert whole(Path("out") / "order-0.pdf")
    assert len(list(Path("out").iterdir())) == 3


def test_ids_are_taken_in_whole_or_not_at_all(services: Callable[..., Sandbox], cli: Cli) -> None:
    """A bad line, or Ctrl-C while ids come from a slow stream, leaves the run as it was."""
    sandbox = services()
    Path("ids").write_bytes(b"a\nb\n\xff\n")
    code, _, err = cli("documents", "download", "ids", "--to", "out", "--run", "m.db")
    assert code == Exit.USAGE
    assert "ids line 3: not UTF-8" in err
    assert shown(cli, "m.db")["total"] == 0
    read, write = os.pipe()
    with forked("documents", "download", "-", "--to", "out", "--run", "m.db", stdin=read) as running:
        os.close(read)
        os.write(write, b"a\nb\n")
        until(Path("m.db.lock").exists, running)
        threading.Event().wait(0.3)
        running.send_signal(signal.SIGINT)
        assert b"none of them was" in running.communicate(10)[1]
        assert running.returncode == Exit.STOPPED
        os.close(write)
    assert shown(cli, "m.db")["total"] == 0
    assert not sandbox.counts


def sent(sandbox: Sandbox) -> Counter[str]:
    """How often each draft was made an invoice, by what tells it from the others."""
    return Counter(made.content["invoice_data"]["invoice_lines"][0]["code"] for made in sandbox.created.values())


def test_kill_9_never_makes_an_invoice_twice(services: Callable[..., Sandbox], cli: Cli) -> None:
    """After each kill what was in flight is in doubt; looked up and resolved both ways, all end made exactly once."""
    sandbox = services(QUICK, latency=0.02)
    count, at_once = 120, 12  # 8 with the service, and half as many whose answers are being recorded
    write_drafts(Path("d.jsonl"), count)
    pace = ("--concurrency", 8)
    begin = ("invoices", "submit", "d.jsonl", "--run", "i.db", *pace)
    for number, tokens in enumerate([begin, ("runs", "resume", "i.db", *pace), begin], 1):
        killed(lambda: sandbox.calls("submit"), 30 * number, *tokens)
        counts = shown(cli, "i.db")["counts"]
        assert counts["in_flight"] == 0
        assert counts["in_doubt"] <= number * at_once
        assert sum(counts.values()) == count
    made = {made.content["invoice_data"]["invoice_lines"][0]["code"]: key for key, made in sandbox.created.items()}
    doubtful = items(cli, "i.db", "--state", "in_doubt")
    assert cli("runs", "resolve", "i.db", "none", "--as", "not-created")[0] == Exit.USAGE  # closes the file well
    aged("i.db")
    for row in doubtful:
        found = made.get(f"LAMP-{int(row['key'].removeprefix('ORDER-')):02}")
        verdict = ["not-created"] if found is None else ["created", "--request-id", found]
        assert cli("runs", "resolve", "i.db", row["key"], "--as", *verdict)[0] == Exit.DONE
    code, out, _ = cli("runs", "resume", "i.db")
    assert code == Exit.DONE, out
    assert re.search(rf"success +{count} ", out)
    assert sent(sandbox) == dict.fromkeys([f"LAMP-{number:02}" for number in range(count)], 1)
    assert sandbox.calls("submit") <= count + 3 * at_once


def test_submit_wait_export_and_the_same_again(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Each draft is submitted once, ever; a second command answers with what is known and exports nothing twice."""
    sandbox = services(evolve_faults(failed_share=0.3))
    Path("d.jsonl").write_text(write_drafts(Path("d.jsonl"), 10).read_text() + dump_draft(example_draft(4)) + "\n")
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "inv")
    code, out, _ = cli(*tokens, "--report", "r.json", "--json")
    assert code == Exit.SOME_LEFT
    first = json_lines(out)
    report = json.loads(Path("r.json").read_text())
    ends = Counter(row["outcome"] for row in first)
    assert ends == Counter(row["outcome"] for row in report["items"])
    assert (ends["duplicate"], ends["success"] + ends["failed"], len(sandbox.created)) == (1, 10, 10)
    made = [row for row in first if row["outcome"] == "success"]
    assert all(Path(row["path"]).name == file_name(row["key"]) and whole(Path(row["path"])) for row in made)
    assert {row["line"] for row in first} == set(range(1, 12))
    assert (report["rows"], report["total"], report["left"]) == (11, 10, 0)
    calls = sandbox.counts.total()
    code, out, _ = cli(*tokens, "--json")
    assert code == Exit.SOME_LEFT
    assert sorted(map(str, json_lines(out))) == sorted(map(str, first))
    assert sandbox.counts.total() <= calls + 1
    Path(made[0]["path"]).write_bytes(b"%PDF-")
    Path(made[1]["path"]).unlink()
    code, out, _ = cli("runs", "verify", "i.db", "--json")
    assert Counter(row["outcome"] for row in json_lines(out)) == {"whole": len(made) - 2, "broken": 1, "missing": 1}
    assert cli("runs", "resume", "i.db", "--no-verify")[0] == Exit.SOME_LEFT
    assert cli("runs", "verify", "i.db")[0] == Exit.SOME_LEFT
    code, out, _ = cli("runs", "resume", "i.db")
    # The table counts the run, so that no file seems missing; the line below it this command.
    assert re.search(rf"exported +{len(made)} ", out)
    assert re.search(r"this command: 2 exported\n", out)
    assert cli("runs", "verify", "i.db")[0] == Exit.DONE
    assert len(list(Path("inv").iterdir())) == len(made)
    assert "export  pdf to" in cli("runs", "show", "i.db")[1]
    assert cli("runs", "resume", "i.db", "--export", "xml", "--to", "other")[0] == Exit.SOME_LEFT
    assert "export  xml to" in cli("runs", "show", "i.db")[1]
    assert len(list(Path("inv").iterdir())) == len(made)


def evolve_faults(**changed: Any) -> Faults:
    return Faults(polls_until_done=(1, 1), exports_until_done=(0, 0), **changed)


def test_an_export_that_cannot_be_made_again_is_told(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stays broken, and an invoice without a file, make the exit code 1."""
    sandbox = services(QUICK)
    write_drafts(Path("d.jsonl"), 2)
    refusal = Answer(status=404, headers=REFUSED.headers, body=REFUSED.body)
    sandbox.script(Operation.EXPORT, [refusal])
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "xml", "--to", "inv")
    code, out, _ = cli(*tokens)
    assert code == Exit.SOME_LEFT
    assert re.search(r"exported +1 .*\n +no file +1 ", out)
    found = shown(cli, "i.db")
    assert (found["without_file"], found["next"][0]) == (1, "invoicing-async runs resume i.db")
    assert "inv, 1 left to do" in cli("runs", "show", "i.db")[1]
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    for path in Path("inv").iterdir():
        path.write_text("<")
    sandbox.script(Operation.EXPORT, [refusal])
    code, out, _ = cli("runs", "resume", "i.db")
    assert code == Exit.SOME_LEFT
    assert re.search(r"broken +1 ", out)
    assert cli("runs", "resume", "i.db", "--quiet") == (Exit.DONE, "", "")


def test_what_is_in_doubt_is_named_with_its_commands_and_settled(services: Callable[..., Sandbox], cli: Cli) -> None:
    """A lost answer is exit code 1; the printed commands settle it, either way, and nothing else does."""
    sandbox = services(evolve_faults(lost_share=1.0))
    write_drafts(Path("d.jsonl"), 12)
    code, _, err = cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait", "--json")
    assert (code, err.count("stopped after 5 with the same cause")) == (Exit.STOPPED, 1)
    assert (cli("runs", "resume", "i.db")[0], sandbox.calls("submit")) == (Exit.STOPPED, 10)
    code, out, err = cli("runs", "resume", "i.db", "--json")
    assert code == Exit.SOME_LEFT
    assert all(row["outcome"] == "in_doubt" and row["sent_at"] for row in json_lines(out))
    assert "12 in doubt, not sent again" in err
    _, out, _ = cli("runs", "resume", "i.db")
    assert len(re.findall(r"not before \d+ s from now: \S+ runs resolve i.db ORDER-\d+ --as not-created", out)) == 10
    aged("i.db")
    _, out, _ = cli("runs", "resume", "i.db")
    lines = [line.strip() for line in out.splitlines() if "runs resolve" in line]
    assert len(lines) == 21
    assert "and 2 more; invoicing-async runs show i.db --state in_doubt" in out
    assert lines[0] == "invoicing-async runs resolve i.db ORDER-0000 --as created --request-id ID"
    assert lines[1] == "invoicing-async runs resolve i.db ORDER-0000 --as not-created"
    assert lines[-1] == "invoicing-async runs resolve i.db --from i.doubts.csv"
    assert out.index(lines[-1]) < out.index("E-invoices of i.db")
    assert lines == [line.strip() for line in cli("runs", "show", "i.db")[1].splitlines() if "resolve" in line]
    assert "12 in doubt" in cli("runs", "resume", "i.db", "--quiet")[2]
    number = next(iter(sandbox.created))
    resolve = ("runs", "resolve", "i.db")
    for tokens, said in (
        (("ORDER-0000", "--as", "created"), "needs --request-id"),
        (("ORDER-0000", "--as", "not-created", "--request-id", number), "must not have one"),
        (("ORDER-0000", "--as", "created", "--request-id", "7"), "must be a UUID"),
        (("ORDER-9999", "--as", "not-created"), "this run has no 'ORDER-9999'"),
    ):
        code, _, err = cli(*resolve, *tokens)
        assert (code, said in err) == (Exit.USAGE, True), err
    assert (
        f"is submitted, request {number}" in cli(*resolve, "ORDER-0000", "--as", "created", "--request-id", number)[1]
    )
    code, out, _ = cli(*resolve, "ORDER-0001", "--as", "not-created", "--json")
    assert json.loads(out)["state"] == "not_sent"
    assert "'ORDER-0001' is not sent, not in doubt" in cli(*resolve, "ORDER-0001", "--as", "not-created")[2]
    assert "is not rejected" in cli("runs", "retry", "i.db", "ORDER-0001")[2].replace("sent, not", "is not")
    before = sandbox.calls("submit")
    code, out, _ = cli("runs", "resume", "i.db", "--json")
    assert (code, sandbox.calls("submit")) == (Exit.SOME_LEFT, before + 1)
    found = {row["key"]: row["outcome"] for row in json_lines(out)}
    assert (found["ORDER-0000"], found["ORDER-0001"]) == ("success", "in_doubt")


def test_a_rejected_draft_is_sent_again_only_when_asked(services: Callable[..., Sandbox], cli: Cli) -> None:
    """`runs retry` lets it; a key that looks like an option is a key all the same."""
    sandbox = services(QUICK)
    draft = example_draft(1)
    Path("d.jsonl").write_text(dump_draft(draft).replace("ORDER-0001", "-k'1 x"))
    sandbox.script(Operation.SUBMIT, [REFUSED])
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db")[0] == Exit.SOME_LEFT
    assert cli("runs", "resume", "i.db")[0] == Exit.SOME_LEFT
    found = shown(cli, "i.db")
    assert (found["counts"]["rejected"], sandbox.calls("submit")) == (1, 1)
    assert found["next"] == ["invoicing-async runs retry i.db KEY"]
    assert items(cli, "i.db")[0]["code"] == "INV_001"
    assert cli("runs", "retry", "i.db", "-k'1 x")[0] == Exit.DONE
    assert cli("runs", "resume", "i.db", "--no-wait")[0] == Exit.DONE
    assert shown(cli, "i.db")["counts"]["submitted"] == 1
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    assert len(sandbox.created) == 1


def test_a_key_has_one_content(services: Callable[..., Sandbox], cli: Cli) -> None:
    """The same key with other content is exit code 2, and nothing of the file is taken in."""
    sandbox = services()
    write_drafts(Path("d.jsonl"), 2)
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db")[0] == Exit.DONE
    Path("e.jsonl").write_text(Path("d.jsonl").read_text().replace("LAMP-01", "LAMP-11").replace("ORDER-0000", "NEW"))
    code, _, err = cli("invoices", "submit", "e.jsonl", "--run", "i.db")
    assert code == Exit.USAGE
    assert "nothing was taken in: known in this run with other content: 'ORDER-0001'" in err
    assert (shown(cli, "i.db")["total"], len(sandbox.created)) == (2, 2)


def test_invalid_drafts_wait_in_the_run_for_their_correction(services: Callable[..., Sandbox], cli: Cli) -> None:
    """With --skip-invalid the others are sent; the corrected file sends the rest and nothing else."""
    sandbox = services()
    write_drafts(Path("d.jsonl"), 3)
    good = Path("d.jsonl").read_text()
    bad = good.replace('"LAMP-01"', '"LAMP-01", "price": "dear"')
    assert bad != good
    Path("d.jsonl").write_text(bad + '{"key": "ORDER-0002"}\nnope\n')
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db")
    assert cli(*tokens)[0] == Exit.USAGE
    assert not Path("i.db").exists()
    code, out, _ = cli(*tokens, "--skip-invalid", "--json", "--report", "r.json")
    assert code == Exit.SOME_LEFT
    found = Counter((row["key"], row["outcome"]) for row in json_lines(out))
    assert found == Counter(
        [
            ("ORDER-0000", "submitted"),
            ("ORDER-0001", "invalid"),
            ("ORDER-0002", "submitted"),
            ("ORDER-0002", "invalid"),
            ("", "invalid"),
        ]
    )
    assert len(json.loads(Path("r.json").read_text())["items"]) == 5
    [row] = items(cli, "i.db", "--state", "invalid")
    assert (row["key"], row["state"]) == ("ORDER-0001", "invalid")
    assert row["error"].startswith("line 2: ")
    assert cli(*tokens, "--skip-invalid")[0] == Exit.SOME_LEFT
    assert len(sandbox.created) == 2
    Path("d.jsonl").write_text(good)
    assert cli(*tokens)[0] == Exit.DONE
    assert sent(sandbox) == {"LAMP-00": 1, "LAMP-01": 1, "LAMP-02": 1}


def test_a_stopped_submission_goes_on(services: Callable[..., Sandbox], cli: Cli) -> None:
    """After one Ctrl-C everything is either planned or has its answer, and a resume ends the rest."""
    sandbox = services(evolve_faults(seconds_until_done=(2.0, 2.0)), latency=0.1)
    write_drafts(Path("d.jsonl"), 60)
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait", "--concurrency", "8")
    with signals(lambda: sandbox.calls("submit") >= 8, 1):
        code, _, err = cli(*tokens, "--export", "pdf", "--to", "inv")
    assert code == Exit.STOPPED
    assert "stopped before the end; go on with\n  invoicing-async runs resume i.db\n" in err
    counts = shown(cli, "i.db")["counts"]
    assert counts["planned"] + counts["submitted"] + counts["success"] == 60
    assert counts["submitted"] + counts["success"] == len(sandbox.created)
    assert cli("runs", "resume", "i.db", "--no-wait")[0] == Exit.DONE
    counts = shown(cli, "i.db")["counts"]
    assert (counts["submitted"], counts["success"]) == (60 - counts["success"], counts["success"])
    assert not Path("inv").exists()
    sandbox.settings = evolve(sandbox.settings, latency=0.0)
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    assert (len(sandbox.created), len(list(Path("inv").iterdir()))) == (60, 60)


def test_a_refused_client_leaves_a_run_that_goes_on(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead credential is exit code 3; no secret is in what is said or written, nor in the run file."""
    sandbox = services(QUICK)
    write_drafts(Path("d.jsonl"), 8)
    right = os.environ["INVOICING_INVOICES_CLIENT_SECRET"]
    with monkeypatch.context() as context:
        context.setenv("INVOICING_INVOICES_CLIENT_SECRET", "wrong-and-secret")
        code, out, err = cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--report", "r.json", "--debug")
    assert code == Exit.STOPPED
    assert not sandbox.created
    said = out + err
    for tokens in (("runs", "resume", "i.db", "--report", "s.csv"), ("runs", "show", "i.db", "--json")):
        code, out, err = cli(*tokens)
        assert code == Exit.DONE
        said += out + err
    write_ids(Path("ids"), 3)
    code, out, err = cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--report", "t.csv")
    written = b"".join(path.read_bytes() for path in Path().iterdir() if path.is_file())
    assert b"ORDER-0001" in written
    for secret in ("wrong-and-secret", right, sandbox.credentials.token, *SECRETS):
        assert secret not in said + out + err
        assert secret.encode() not in written


def write_csv(path: Path, count: int, faults: int) -> dict[int, str]:
    """Write drafts as CSV, one a line, and give the line and column of each fault."""
    wrong = [("price", "dear"), ("quantity", "2,5"), ("vat_rate", "ELEVEN"), ("invoice_template_id", "x"), ("unit", "")]
    known: dict[int, str] = {}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, ["key", "invoice_template_id", "name", "unit", "price", "quantity", "amount", "vat_rate"]
        )
        writer.writeheader()
        for number in range(count):
            row = {"key": f"K-{number}", "invoice_template_id": TEMPLATE, "name": "Lamp", "unit": "piece"}
            row |= {"price": "240000.50", "quantity": "2", "amount": "480001.00", "vat_rate": VatRate.TEN.name}
            if number % (count // faults) == 7:
                column, value = wrong[len(known) % len(wrong)]
                row[column] = value
                known[number + 2] = column
            writer.writerow(row)
    return known


TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_fifty_faults_in_ten_thousand_lines_are_all_told(services: Callable[..., Sandbox]) -> None:
    """Each with line and column in one go of less than three seconds; nothing is sent and no run is begun."""
    sandbox = services()
    known = write_csv(Path("d.csv"), 10_000, 50)
    assert len(known) == 50
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command("invoices", "submit", "d.csv", "--run", "i.db"), capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == Exit.USAGE, done.stderr
    found = dict(re.findall(r"^line (\d+), column (\w+): ", done.stderr, re.MULTILINE))
    assert {int(line): column for line, column in found.items()} == known
    assert "nothing was sent: 50 faults in 50 of 10,000 drafts" in done.stderr
    # The processor's time: the machine may have other things to do.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3
    assert not sandbox.counts
    assert not Path("i.db").exists()


def test_show_lists_items_as_lines_or_as_a_report(services: Callable[..., Sandbox], cli: Cli) -> None:
    """One line an item, for a person or a machine, all or those of some states."""
    services(Faults(not_eligible=["order-1"]))
    write_ids(Path("ids"), 3)
    assert cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--quiet")[:2] == (Exit.SOME_LEFT, "")
    code, out, err = cli("runs", "show", "m.db")
    assert (code, err) == (Exit.DONE, "")
    for text in (
        "Order documents of m.db",
        "begun",
        "layout  {order_id}",
        "invoicing-async runs resume m.db",
        "verify m.db",
    ):
        assert text in out
    found = {row["key"]: row for row in items(cli, "m.db")}
    assert [row["state"] for row in found.values()] == ["saved", "deferred", "saved"]
    assert list(found["order-0"]) == [
        "key", "state", "request_id", "invoice_id", "path", "size", "sha256", "code", "error", "attempt", "sent_at",
        "updated",
    ]  # fmt: skip
    assert found["order-1"]["code"] == "ORDER_021"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found["order-0"]["updated"])
    assert items(cli, "m.db", "--state", "deferred") == [found["order-1"]]
    assert items(cli, "m.db", "--state", "in_doubt") == []
    _, out, _ = cli("runs", "show", "m.db", "--items", "--quiet")
    assert [line.split()[:2] for line in out.splitlines()] == [[row["state"], key] for key, row in found.items()]
    assert cli("runs", "show", "m.db", "--report", "s.csv", "--quiet") == (Exit.DONE, "", "")
    with Path("s.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["saved", "deferred", "saved"]


@pytest.mark.asyncio
async def test_what_is_being_sent_is_in_flight_while_held_and_in_doubt_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the holder knows more of it; without one it may have been made."""
    file = tmp_path / "i.db"

    async def look(*tokens: str) -> list[dict[str, Any]]:
        assert await asyncio.to_thread(run, ["runs", "show", str(file), "--json", *tokens]) == Exit.DONE
        return json_lines(capsys.readouterr().out)

    async with SqliteLedger.open(file, kind=RunKind.INVOICES) as ledger:
        await ledger.add_drafts([NewDraft(key=key, payload="{}", payload_sha256="0") for key in ("a", "b")])
        await ledger.transition("a", Event.INTENT)
        [view] = await look()
        assert (view["counts"]["in_flight"], view["held_by"]["pid"]) == (1, os.getpid())
        assert [row["key"] for row in await look("--items", "--state", "in_flight")] == ["a"]
        assert await look("--items", "--state", "in_doubt") == []
        await asyncio.to_thread(run, ["runs", "show", str(file)])
        assert "Next" not in capsys.readouterr().out
        crashed = file.read_bytes(), file.with_name("i.db-wal").read_bytes()
    file.write_bytes(crashed[0])
    file.with_name("i.db-wal").write_bytes(crashed[1])
    [view] = await look()
    assert (view["counts"]["in_flight"], view["counts"]["in_doubt"], view["held_by"]) == (0, 1, None)
    [row] = await look("--items", "--state", "in_doubt")
    assert (row["key"], row["state"]) == ("a", "in_doubt")
    await asyncio.to_thread(run, ["runs", "show", str(file)])
    assert "runs resolve" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["runs", "show", "absent.db"], "cannot open the run file"),
        (["runs", "resume", "absent.db"], "no such run file"),
        (["runs", "verify", "absent.db"], "no such run file"),
        (["runs", "show", "text"], "is not a run file"),
        (["runs", "resolve", "absent.db", "K", "--as", "not-created"], "no such run file"),
        (["runs", "resolve", "text", "K", "--as", "perhaps"], "as"),
        (["runs", "show", "text", "--state", "lost"], "state"),
        (["documents", "download", "text", "--to", "out", "--no-verify"], "--no-verify is for --run"),
        (["documents", "download", "text", "--to", "out", "--run", "no/where/m.db"], "cannot open the run file"),
        (["documents", "download", "text", "--to", "out", "--run", "text"], "is not a run file"),
        (["documents", "download", "text", "--to", "out", "--run", "m.db", "--concurrency", "0"], "concurrency"),
        (["invoices", "submit", "d.jsonl", "--export", "pdf"], "go together"),
        (["invoices", "submit", "d.jsonl", "--export", "pdf", "--to", "out"], "--export is for --run"),
        (["invoices", "submit", "d.jsonl", "--run", "m.db", "--timeout", "-1"], "--timeout: "),
        (["invoices", "submit", "d.jsonl", "--run", "no/where/m.db"], "cannot open the run file"),
    ],
)
def test_wrong_usage_of_runs(
    tokens: list[str], said: str, services: Callable[..., Sandbox], cli: Cli, tmp_path: Path
) -> None:
    """One line on stderr and exit code 2; nothing is made."""
    services()
    write_ids(Path("text"), 1)
    write_drafts(Path("d.jsonl"), 1)
    code, out, err = cli(*tokens)
    assert (code, out) == (Exit.USAGE, "")
    assert said in err
    assert "Traceback" not in err
    assert {path.name for path in tmp_path.iterdir()} == {"text", "d.jsonl"}


def test_a_run_of_one_kind_is_none_of_the_other(services: Callable[..., Sandbox], cli: Cli) -> None:
    """What is for e-invoices is refused for documents, and the other way round."""
    services()
    write_ids(Path("ids"), 1)
    write_drafts(Path("d.jsonl"), 1)
    assert cli("documents", "download", "ids", "--to", "out", "--run", "m.db")[0] == Exit.DONE
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db")[0] == Exit.DONE
    for tokens, said in (
        (("runs", "retry", "m.db", "order-0"), "is a run of documents, not of invoices"),
        (("runs", "resume", "m.db", "--no-wait"), "are for e-invoices"),
        (("invoices", "submit", "d.jsonl", "--run", "m.db"), "is a run of documents"),
        (("documents", "download", "ids", "--to", "out", "--run", "i.db"), "is a run of invoices"),
    ):
        code, _, err = cli(*tokens)
        assert (code, said in err) == (Exit.USAGE, True), err


def test_a_run_file_that_breaks_is_told_once(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the run can no longer be written, the command stops and says so; the summary says it once."""
    services()
    write_ids(Path("ids"), 30)

    async def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "m.db")

    with monkeypatch.context() as context:
        context.setattr(SqliteLedger, "record_document", full)
        context.setattr(SqliteReader, "rows", full)
        code, _, err = cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--report", "r.csv")
    assert code == Exit.STOPPED
    assert err.count("No space left") == 2
    assert not Path("r.csv").exists()


@pytest.mark.asyncio
async def test_item_counts_that_do_not_add_up_are_told(tmp_path: Path) -> None:
    """An item without an outcome, or one too many in the file, is an error whatever else went well."""
    console = Console(file=io.StringIO())
    seen = Output(out=Console(file=io.StringIO(), force_terminal=True), err=console)
    context = run_summary.RunContext(
        output=seen, settings=Settings({}), common=Common(), pace=RateOptions(), file="m.db"
    )
    async with SqliteLedger.open(tmp_path / "m.db", kind=RunKind.DOCUMENTS, settings={}) as ledger:
        summary = run_kinds.DocumentSummary(ledger, context, Stop(lambda: None), None)
        await summary.begin()
        await ledger.add_ids(["a"])
        summary.expected = 2
        summary.add({"order_id": "a", "outcome": "saved"})
        assert await summary.closed(None) == Exit.SOME_LEFT
        assert summary.footer().plain == "  planned 1"
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert "0 items were taken in, the states have 1" in said
    assert "2 items were to be done, 1 have an outcome" in said


def test_progress_shows_the_states_below_the_bars(
    services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who looks on sees how many stand in each state, and bars for what there is to do."""
    services(evolve_faults(seconds_until_done=(0.3, 0.3)), latency=0.02)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    write_drafts(Path("d.jsonl"), 30)
    write_ids(Path("ids"), 60)
    _, _, err = cli("documents", "download", "ids", "--to", "out", "--run", "m.db", "--concurrency", "4")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert "60/60" in plain
    assert re.search(r"planned \d+  saved \d+", plain)
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "inv")
    _, _, err = cli(*tokens, "--concurrency", "4")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err)
    assert re.search(r"Submitted .*30/30", plain)
    assert re.search(r"Settled .*30/30", plain)
    assert re.search(r"Exported .*30/30", plain)
