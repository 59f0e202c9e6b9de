"""Documents by command line: every id has one outcome, however the command ends."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_screens import ANSI
from served import SECRETS, Cli, json_lines, signals, whole, write_ids

from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit
from invoicing_async.reports import Report
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

pytestmark = pytest.mark.usefixtures("no_settings")


def test_every_id_has_one_outcome_and_the_report_says_so(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Saved, deferred and duplicate add up to the input; deferred ones make the exit code 1."""
    services(Faults(not_eligible=["order-3"]))
    file = write_ids(tmp_path / "ids.txt", 20)
    file.write_text(file.read_text() + "order-1\n..\n")
    assert run(["documents", "download", str(file), "--to", "out", "--report", "r.json"]) == Exit.SOME_LEFT
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"saved +19 ", out)
    assert re.search(r"deferred +1 ", out)
    assert re.search(r"duplicate +1 ", out)
    assert re.search(r"total +22 ", out)
    assert "deferred  order-3" in out
    assert ANSI not in out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["taken"] == sum(found["counts"].values()) == len(found["items"]) == 22
    assert (found["without_outcome"], found["stopped"]) == (0, False)
    pdfs = sorted((tmp_path / "out").iterdir())
    assert len(pdfs) == 19
    assert all(whole(path) for path in pdfs)


def test_json_lines_are_all_that_stdout_has(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json stdout has one line for each outcome; a second run skips what is whole and is exit code 0."""
    sandbox = services(Faults(unavailable={"order-0": 1}))
    file = write_ids(tmp_path / "ids.txt", 5)
    tokens = [
        "documents",
        "download",
        str(file),
        "--to",
        "out",
        "--json",
        "--durable",
        "--layout",
        "{shard}/{order_id}",
    ]
    assert run(tokens) == Exit.DONE
    out, err = capsys.readouterr()
    found = json_lines(out)
    assert {row["order_id"]: row["outcome"] for row in found} == {f"order-{number}": "saved" for number in range(5)}
    assert max(row["attempts"] for row in found) == 2
    assert "retries" in err
    assert run([*tokens, "--quiet"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert {row["outcome"] for row in json_lines(out)} == {"skipped"}
    assert err == ""
    assert sandbox.calls("document") == 6


def test_a_refused_credential_ends_the_batch_with_everything_accounted_for(
    services: Callable[..., Sandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a second 401 that stays one the rest is not started, the exit is 3, and no secret is in what is said."""
    services()
    monkeypatch.setenv("INVOICING_DOCUMENTS_SECRET_KEY", "sk_wrong_but_secret")
    file = write_ids(tmp_path / "ids.txt", 100)
    tokens = ["documents", "download", str(file), "--to", "out", "--concurrency", "4", "--report", "r.csv", "--debug"]
    assert run(tokens) == Exit.STOPPED
    out, err = capsys.readouterr()
    assert re.search(r"failed +1 ", out)
    assert re.search(r"not started +99 ", out)
    assert "and 90 more; the report names them" in out
    assert "AUTH_001" in err
    assert "stopped before the end" in err
    report_text = (tmp_path / "r.csv").read_text()
    assert len(report_text.splitlines()) == 101
    for secret in ("sk_wrong_but_secret", *SECRETS):
        assert secret not in out + err + report_text


@pytest.mark.parametrize("more", [(), ("--run", "m.db")], ids=["", "run"])
@pytest.mark.parametrize(
    ("stop_after", "asked", "code"), [((), 5, 3), (("--stop-after", "2"), 2, 3), (("--stop-after", "0"), 12, 1)]
)
def test_how_many_alike_end_a_batch_is_an_option(
    services: Callable[..., Sandbox],
    capsys: pytest.CaptureFixture[str],
    stop_after: tuple[str, ...],
    asked: int,
    code: int,
    more: tuple[str, ...],
) -> None:
    """Five by default, as many as said, or none: then every item has its own outcome; a run keeps what was said."""
    sandbox = services()
    gone = Answer(status=404, headers={"Content-Type": "text/html"}, body=b"<h1>Not Found</h1>")
    sandbox.script(Operation.DOCUMENT, [gone] * 60)
    write_ids(Path("ids"), 12)
    tokens = ["documents", "download", "ids", "--to", "out", "--concurrency", "1", *more]
    assert run([*tokens, *stop_after]) == code
    assert sandbox.calls("document") == asked
    if more:
        capsys.readouterr()
        assert run(["runs", "show", "m.db", "--json"]) == Exit.DONE
        kept = json.loads(capsys.readouterr().out)["settings"]["pace"]
        assert kept.get("stop_after") == (int(stop_after[1]) if stop_after else None)
        assert run(["runs", "resume", "m.db"]) == code
        # What failed before and fails again does not count: the same number of others end it once more.
        assert sandbox.calls("document") == {2: 6, 5: 15, 12: 24}[asked]
    else:
        assert run([*tokens, "--stop-after", "-1"]) == Exit.USAGE


def test_a_bad_line_ends_the_batch_with_its_number(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a stream, what was taken before the bad line has its outcome, and the exit code is 2."""
    services()
    file = tmp_path / "ids.jsonl"
    os.mkfifo(file)
    threading.Thread(
        target=file.write_text, args=('{"id": "a"}\n{"id": "b"}\nnope\n{"id": "c"}\n',), daemon=True
    ).start()
    assert run(["documents", "download", str(file), "--field", "id", "--to", "out"]) == Exit.USAGE
    out, err = capsys.readouterr()
    assert re.search(r"saved +2 ", out)
    assert "line 3: not JSON" in err
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_folder_that_cannot_be_is_told(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trouble with the disk ends the batch with a clear line and exit code 3."""
    services()
    file = write_ids(tmp_path / "ids.txt", 3)
    assert run(["documents", "download", str(file), "--to", str(file)]) == Exit.STOPPED
    err = capsys.readouterr().err
    assert "ids.txt" in err
    assert "Traceback" not in err


def test_one_signal_finishes_what_is_in_flight(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the first Ctrl-C nothing new begins, what is in flight is saved, and the exit code is 3."""
    sandbox = services(latency=0.15)
    file = write_ids(tmp_path / "ids.txt", 1_000)
    with signals(lambda: sandbox.counts.total() >= 8, 1):
        code = run(["documents", "download", str(file), "--to", "out", "--concurrency", "8", "--report", "r.json"])
    assert code == Exit.STOPPED
    err = capsys.readouterr().err
    assert "stopping: what is in flight finishes" in err
    assert "Give the same ids and folder again" in err
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["stopped"]
    assert found["taken"] == found["counts"]["saved"] == len(list((tmp_path / "out").iterdir())) < 100


def test_a_second_signal_stops_at_once(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the second Ctrl-C what is in flight is given up without a trace in the folder; the exit code is 130."""
    sandbox = services(latency=0.4)
    file = write_ids(tmp_path / "ids.txt", 100)
    # It begins with 1, 2, 4: those are saved when 8 more are in flight.
    with signals(lambda: sandbox.counts.total() >= 15, 2):
        assert run(["documents", "download", str(file), "--to", "out", "--concurrency", "8"]) == Exit.INTERRUPTED
    assert "interrupted: 8 of 15 items have no outcome" in capsys.readouterr().err
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".pdf"] * 7


@pytest.mark.parametrize("durable", [(), ("--run", "m.db")])
def test_a_report_that_cannot_be_written_is_told_beside_the_summary(
    durable: tuple[str, ...], services: Callable[..., Sandbox], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was downloaded is shown all the same; the exit code is 1, with and without a run file."""
    services()
    write_ids(Path("ids"), 2)

    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "r.csv")

    with monkeypatch.context() as context:
        context.setattr(Report, "publish", full)
        code, out, err = cli("documents", "download", "ids", "--to", "out", "--report", "r.csv", *durable)
    assert code == Exit.SOME_LEFT
    assert "No space left" in err
    assert re.search(r"saved +2 ", out)
    assert " Report " not in out
    assert len(list(Path("out").iterdir())) == 2
