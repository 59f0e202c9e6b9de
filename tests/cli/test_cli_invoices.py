"""E-invoices by command line: faults are named and nothing is sent, or each draft is sent once and accounted for."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cli_screens import memory_output, shown
from served import json_lines, signals, write_drafts

from invoicing_async import (
    AsyncInvoices,
    Session,
    StaticToken,
)
from invoicing_async import reports as rows
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._einvoices.shape import WireNames
from invoicing_async.cli import stop
from invoicing_async.cli import summary as summaries
from invoicing_async.cli.app import run
from invoicing_async.cli.commands import invoices
from invoicing_async.cli.exits import Exit
from invoicing_async.cli.input import drafts
from invoicing_async.drafts import example_draft
from invoicing_async.sandbox import Faults, Sandbox

pytestmark = pytest.mark.usefixtures("no_settings")


def test_every_fault_of_a_file_is_named_and_nothing_is_sent(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults carry line and path; a key that comes again with other content is one of them."""
    sandbox = services()
    good = dump_draft(example_draft(1))
    bad = json.loads(good) | {"key": "B", "bogus": 1}
    bad["lines"][0]["price"] = "dear"
    other = good.replace("LAMP-01", "LAMP-02")
    file = tmp_path / "d.jsonl"
    file.write_text(f"{good}\n\n{json.dumps(bad)}\n{other}\nnope\n")
    assert run(["invoices", "submit", str(file)]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "line 3, lines[0].price: must be a number" in err
    assert "line 3, bogus: is not a field" in err
    assert "line 4, key: 'ORDER-0001' stands on line 1 with other content" in err
    assert "line 5: is not JSON" in err
    assert "nothing was sent: 4 faults in 3 of 4 drafts" in err
    assert not sandbox.counts
    assert run(["invoices", "submit", str(file), "--json"]) == Exit.USAGE
    found = json_lines(capsys.readouterr().out)
    assert [(row["line"], row["key"]) for row in found] == [(3, "B"), (4, "ORDER-0001"), (5, "")]
    fault = found[1]["faults"][0]
    assert fault == {"line": 4, "column": None, "path": "key", "message": fault["message"]}


CSV_HEAD = "key,invoice_template_id,name,unit,price,quantity"
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_the_form_of_a_file_is_its_ending_or_as_told(tmp_path: Path) -> None:
    """CSV by its ending, else JSONL; --format goes before."""
    text = f"{CSV_HEAD}\nA,{TEMPLATE},Lamp,piece,1,2\n"
    for name, form, keys in (("d.CSV", None, ["A"]), ("d.txt", "csv", ["A"]), ("d.csv", "jsonl", []), ("d", None, [])):
        (tmp_path / name).write_text(text)
        assert list(drafts.read_drafts(str(tmp_path / name), WireNames(), drafts.Reading(form=form)).lines) == keys  # type: ignore[arg-type] # one of two words


def test_a_faulty_head_is_never_skipped(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a misspelled column even --skip-invalid sends nothing: every draft would lack what stands there."""
    sandbox = services()
    (tmp_path / "d.csv").write_text(f"{CSV_HEAD},discount_amout\nA,{TEMPLATE},Lamp,piece,1,2,1\n")
    assert run(["invoices", "submit", "d.csv", "--skip-invalid"]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "line 1, column discount_amout: is not a column" in err
    assert "the row of column names has faults" in err
    assert not sandbox.counts


def test_a_draft_that_comes_again_is_sent_once(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same key with the same content is one invoice, reported once as a duplicate."""
    sandbox = services()
    file = write_drafts(tmp_path / "d.jsonl", 2)
    file.write_text(file.read_text() * 2)
    assert run(["invoices", "submit", str(file), "--json"]) == Exit.DONE
    found = [(row["line"], row["outcome"]) for row in json_lines(capsys.readouterr().out)]
    assert sorted(found) == [(1, "submitted"), (2, "submitted"), (3, "duplicate"), (4, "duplicate")]
    assert len(sandbox.created) == 2


def test_skip_invalid_sends_the_rest(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The faulty ones are outcomes like all others, so the item counts add up."""
    sandbox = services()
    file = write_drafts(tmp_path / "d.jsonl", 3)
    file.write_text(file.read_text() + "{}\n")
    assert run(["invoices", "submit", str(file), "--skip-invalid", "--report", "r.csv"]) == Exit.SOME_LEFT
    assert re.search(r"submitted +3 .*\n.*invalid +1 .*\n.*total +4 ", capsys.readouterr().out)
    assert len(sandbox.created) == 3
    with (tmp_path / "r.csv").open(newline="") as report_file:
        found = list(csv.DictReader(report_file))
    assert sorted(row["line"] for row in found) == ["1", "2", "3", "4"]


@pytest.mark.parametrize("last", ["Lamp", "Desk"], ids=["equal", "different"])
@pytest.mark.parametrize("durably", [[], ["--run", "run.db"]], ids=["batch", "run"])
def test_of_an_invoice_whose_rows_stand_apart_nothing_is_sent(
    services: Callable[..., Sandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    last: str,
    durably: list[str],
) -> None:
    """Its first rows are not the whole of it: the file is refused, and with --skip-invalid the others are sent."""
    sandbox = services()
    rows_ = [f"{key},{TEMPLATE},{name},piece,1,2\n" for key, name in (("A", "Lamp"), ("B", "Lamp"), ("A", last))]
    (tmp_path / "d.csv").write_text("".join([CSV_HEAD + "\n", *rows_]))
    assert run(["invoices", "submit", "d.csv", *durably]) == Exit.USAGE
    err = capsys.readouterr().err
    assert "line 2, column key: 'A' stands on lines 2, 4, with other rows between" in err
    assert "line 4, column key: 'A' stands on lines 2, 4" in err
    assert not sandbox.counts
    assert run(["invoices", "submit", "d.csv", *durably, "--skip-invalid", "--json"]) == Exit.SOME_LEFT
    found = {(row["key"], row["outcome"]) for row in json_lines(capsys.readouterr().out) if "key" in row}
    assert found == {("A", "invalid"), ("B", "submitted")}
    assert len(sandbox.created) == 1


@pytest.mark.parametrize("durably", [(), ("--run", "i.db")], ids=["batch", "run"])
def test_invalid_drafts_are_named_before_many_that_failed(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str], durably: tuple[str, ...]
) -> None:
    """Ten are named: the invalid ones are not hidden by those that the service could not make."""
    services(Faults(failed_share=1.0, polls_until_done=(1, 1)))
    file = write_drafts(tmp_path / "d.jsonl", 12)
    file.write_text(file.read_text() + '{"key": "FAULTY-1"}\n{"key": "FAULTY-2"}\n')
    assert run(["invoices", "submit", str(file), "--skip-invalid", "--wait", *durably]) == Exit.SOME_LEFT
    out = capsys.readouterr().out
    named = re.findall(r"^   (invalid|failed) +(\S+)  ", out, re.MULTILINE)[:10]
    assert named[:2] == [("invalid", "FAULTY-1"), ("invalid", "FAULTY-2")]
    assert [state for state, _ in named[2:]] == ["failed"] * 8
    assert "and 4 more; " in out


def test_submitted_and_awaited_to_the_end(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --wait each draft ends as the service decides; FAILED ones make the exit code 1."""
    sandbox = services(Faults(failed_share=0.5, polls_until_done=(1, 1)))
    file = write_drafts(tmp_path / "d.jsonl", 12)
    assert run(["invoices", "submit", str(file), "--wait", "--json"]) == Exit.SOME_LEFT
    found = json_lines(capsys.readouterr().out)
    ends = {row["request_id"]: row["outcome"] for row in found}
    assert ends == {number: made.outcome.value.lower() for number, made in sandbox.created.items()}
    assert {row["key"] for row in found} == {f"ORDER-{number:04}" for number in range(12)}
    assert all(row["invoice_id"] for row in found if row["outcome"] == "success")


def test_ids_of_a_submission_can_be_waited_for_later(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `submit --json` prints is what `wait --from` reads; a repeated id counts once."""
    services()
    file = write_drafts(tmp_path / "d.jsonl", 3)
    assert run(["invoices", "submit", str(file), "--json"]) == Exit.DONE
    out = capsys.readouterr().out
    (tmp_path / "out.jsonl").write_text(out + out.splitlines()[0] + "\n")
    tokens = ["invoices", "wait", "--from", "out.jsonl", "--field", "request_id", "--json"]
    assert run(tokens) == Exit.DONE
    assert Counter(row["outcome"] for row in json_lines(capsys.readouterr().out)) == {"success": 3, "duplicate": 1}
    first = json_lines(out)[0]["request_id"]
    assert run(["invoices", "wait", first.upper()]) == Exit.DONE
    assert re.search(r"success +1 ", capsys.readouterr().out)
    assert run(["invoices", "status", first]) == Exit.DONE
    assert "SUCCESS" in capsys.readouterr().out
    assert run(["invoices", "status", first, "--json"]) == Exit.DONE
    assert json_lines(capsys.readouterr().out)[0]["outcome"] == "success"


def test_an_unknown_request_is_no_success(services: Callable[..., Sandbox], capsys: pytest.CaptureFixture[str]) -> None:
    """A wait that ends without an answer is exit code 1, a bad id in the input 2."""
    services()
    assert run(["invoices", "wait", str(uuid4()), "--json", "--timeout", "0.3"]) == Exit.SOME_LEFT
    assert json_lines(capsys.readouterr().out)[0]["outcome"] == "submitted"
    assert run(["invoices", "status", str(uuid4())]) == Exit.SOME_LEFT
    assert "REQUEST_404" in capsys.readouterr().err
    assert run(["invoices", "wait", str(uuid4()), "seven", "--timeout", "1"]) == Exit.USAGE
    assert "must be a UUID, got 'seven'" in capsys.readouterr().err


def test_a_lost_answer_is_in_doubt_and_not_sent_again(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The invoice was made once, its answer never came: exit code 1 and what is needed to settle it."""
    sandbox = services(Faults(lost_share=1.0))
    file = write_drafts(tmp_path / "d.jsonl", 2)
    assert run(["invoices", "submit", str(file), "--wait", "--json"]) == Exit.SOME_LEFT
    found = json_lines(capsys.readouterr().out)
    assert [row["outcome"] for row in found] == ["in_doubt"] * 2
    assert all(len(row["body_sha256"]) == 64 and row["sent_at"] for row in found)
    assert len(sandbox.created) == 2


def test_a_refused_client_leaves_everything_unsent(
    services: Callable[..., Sandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that is not known sends nothing; its secret is not shown."""
    sandbox = services()
    monkeypatch.setenv("INVOICING_INVOICES_CLIENT_SECRET", "wrong-and-secret")
    file = write_drafts(tmp_path / "d.jsonl", 40)
    assert run(["invoices", "submit", str(file), "--wait"]) == Exit.STOPPED
    out, err = capsys.readouterr()
    assert re.search(r"not sent +40 ", out)
    assert not sandbox.created
    assert "wrong-and-secret" not in out + err


def test_stopping_a_submission_finishes_what_is_in_flight(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After one Ctrl-C every draft that was begun has its answer, and what is awaited stays submitted."""
    sandbox = services(Faults(seconds_until_done=(60, 60)), latency=0.1)
    file = write_drafts(tmp_path / "d.jsonl", 500)
    with signals(lambda: sandbox.calls("submit") >= 8, 1):
        tokens = ["invoices", "submit", str(file), "--wait", "--concurrency", "8", "--json"]
        assert run(tokens) == Exit.STOPPED
    found = json_lines(capsys.readouterr().out)
    assert {row["outcome"] for row in found} == {"submitted"}
    assert {row["request_id"] for row in found} == set(sandbox.created)


def test_interrupting_a_submission_names_what_is_in_doubt(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After two Ctrl-C what was in flight may have been made, so each of its keys is named."""
    sandbox = services(latency=0.4)
    file = write_drafts(tmp_path / "d.jsonl", 500)
    tokens = ["invoices", "submit", str(file), "--concurrency", "8", "--json", "--report", "r.json"]
    with pytest.MonkeyPatch.context() as context:
        context.setenv("INVOICING_INVOICES_TOKEN", sandbox.credentials.token)
        # It begins with 1, 2, 4: those are answered when 8 more are in flight.
        with signals(lambda: sandbox.calls("submit") >= 15, 2):
            assert run(tokens) == Exit.INTERRUPTED
    out, err = capsys.readouterr()
    found = [row["outcome"] for row in json_lines(out)]
    assert (len(found), found.count("in_doubt")) == (15, 8)
    assert "in doubt: ORDER-0007, " in err
    assert "interrupted\n" in err
    assert json.loads((tmp_path / "r.json").read_text())["counts"]["in_doubt"] == 8


def test_stopping_a_wait_leaves_the_operations_alone(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After Ctrl-C what is not final yet is reported as submitted, with exit code 3."""
    sandbox = services(Faults(seconds_until_done=(60, 60)))
    file = write_drafts(tmp_path / "d.jsonl", 2)
    assert run(["invoices", "submit", str(file), "--json", "--quiet"]) == Exit.DONE
    (tmp_path / "out.jsonl").write_text(capsys.readouterr().out)
    with signals(lambda: sandbox.calls("status") >= 1, 1):
        assert run(["invoices", "wait", "--from", "out.jsonl", "--field", "request_id", "--json"]) == Exit.STOPPED
    found = json_lines(capsys.readouterr().out)
    assert [row["outcome"] for row in found] == ["submitted"] * 2


def test_more_keys_in_doubt_than_fit_are_counted() -> None:
    """The terminal shows twenty; the rest is in the report."""

    async def doubt() -> summaries.BatchSummary:
        batch = summaries.BatchSummary(
            rows.SUBMISSIONS, memory_output(), stop.CountedInput(stop.Stop(lambda: None)), None
        )
        settling = invoices.Settling(batch, None)
        list(settling.begun([example_draft(number) for number in range(25)]))

        async def cancelled() -> AsyncGenerator[Any]:
            nothing: tuple[Any, ...] = ()
            for outcome in nothing:
                yield outcome
            raise asyncio.CancelledError

        async with Session("http://127.0.0.1:9", auth=StaticToken("t")) as session:
            with pytest.raises(asyncio.CancelledError):
                await settling.run(AsyncInvoices(session), cancelled())
        return batch

    batch = asyncio.run(doubt())
    assert batch.counts == {"in_doubt": 25}
    assert "and 5 more" in shown(batch.output.err)


def test_the_example_is_a_draft_that_is_taken(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `invoices example` prints, `invoices submit` sends."""
    services()
    assert run(["invoices", "example", "--count", "2"]) == Exit.DONE
    (tmp_path / "d.jsonl").write_text(capsys.readouterr().out)
    assert run(["invoices", "submit", "d.jsonl"]) == Exit.DONE


def test_item_counts_that_do_not_add_up_are_an_error() -> None:
    """An item without an outcome is told and makes the exit code 1, whatever else went well."""

    async def close() -> tuple[Exit, str]:
        batch = summaries.BatchSummary(
            rows.DOWNLOADS, memory_output(), stop.CountedInput(stop.Stop(lambda: None)), None
        )
        batch.source.taken = 2
        await batch.add({"order_id": "a", "outcome": "saved"})
        return await batch.closed(None), shown(batch.output.err)

    code, said = asyncio.run(close())
    assert code == Exit.SOME_LEFT
    assert "item counts do not add up: 2 taken, 1 outcomes" in said
