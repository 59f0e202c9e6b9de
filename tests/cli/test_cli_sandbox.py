"""`sandbox --fault`: a wrong one is told by its field, the help lists every kind, the end tells what each did."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import pytest
from forked import forked
from served import json_lines, write_ids

from invoicing_async.cli.app import run
from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import FAULT_KINDS


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (["capacity"], "--fault 'capacity': capacity.limit must be given, as in capacity:8,queue=8"),
        (["outge:start=1"], "--fault 'outge:start=1': there is no fault 'outge'; did you mean outage?"),
        (["outage:start=-1"], "outage.start must be a finite number of 0 or more, got -1.0"),
        (["outage", "random503:1.5"], "--fault 'random503:1.5': random503.share must be a finite number from 0 to 1"),
        (["outage", "outage"], "--fault 'outage': the fault outage is given twice"),
    ],
)
def test_a_wrong_fault_is_named_with_its_field_and_limit(
    faults: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, before anything is served."""
    tokens = [token for fault in faults for token in ("--fault", fault)]
    assert run(["sandbox", *tokens]) == Exit.USAGE
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_port_that_is_taken_is_named_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Of both ports the one that is: the other may be free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option, other in (("--documents-port", "--invoices-port"), ("--invoices-port", "--documents-port")):
            assert run(["sandbox", option, str(port), other, "0"]) == Exit.USAGE
            said, hint = capsys.readouterr().err.splitlines()
            assert f"cannot serve the sandbox on port {port} of 127.0.0.1: Address already in use" in said
            assert hint.strip() == f"{option} names another port; 0 takes a free one."


def test_the_help_lists_every_kind_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """As they can be copied."""
    run(["sandbox", "--help"])
    shown = capsys.readouterr().out
    assert [kind for kind, made in FAULT_KINDS.items() if made.example not in shown] == []


@pytest.mark.process
def test_faults_are_in_force_and_what_they_did_is_told_at_the_end(tmp_path: Path) -> None:
    """The documents are all there in spite of them."""
    file = tmp_path / "env"
    faults = ["--fault", "truncate:1000,operation=document,first=1", "--fault", "capacity:2,queue=99,seconds=0"]
    quiet = ["--unavailable-share", "0", "--not-eligible-share", "0", "--latency", "0"]
    with forked("sandbox", "--documents-port", "0", "--invoices-port", "0", *quiet, *faults) as served:
        while b"are up" not in served.said()[1]:
            assert served.poll() is None
            threading.Event().wait(0.01)
        file.write_bytes(served.said()[0])
        ids = write_ids(tmp_path / "ids", 10)
        tokens = ("documents", "download", ids, "--to", tmp_path / "out", "--env-file", file, "--json")
        with forked(*tokens) as done:
            out, err = done.communicate(60)
        assert done.returncode == Exit.DONE, err
        assert len(json_lines(out.decode())) == 10
        served.send_signal(signal.SIGINT)
        assert served.wait(10) == Exit.DONE
        told = served.said()[1].decode()
    assert "truncate:1000,operation=document,first=1: truncated 10" in told
    assert "capacity:2,queue=99,seconds=0: " in told
    assert "served 20" in told
