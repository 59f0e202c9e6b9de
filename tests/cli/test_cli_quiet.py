"""What `--quiet` leaves: nothing of what went well, on stderr every item and command that failed, in each command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import SECRETS, Cli, clean, write_drafts, write_ids

from invoicing_async.cli.exits import Exit
from invoicing_async.errors import AuthenticationError, PollTimeoutError, hints_of
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox

DONE = Faults(polls_until_done=(0, 0), exports_until_done=(0, 0))
WAIT = ("invoices", "submit", "d.jsonl", "--wait")
RUN = ("--run", "i.db")


def answer(status: int, body: Any) -> Answer:
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())


def refusal(status: int, message: str, hint: str) -> Answer:
    error = {"code": "REF_001", "message": message, "details": {"hint": hint}}
    return answer(status, {"success": False, "error": error})


def told(cli: Cli, *tokens: object, code: Exit = Exit.SOME_LEFT) -> list[str]:
    """What a quiet command says on stderr, each line without what it begins with; it says nothing elsewhere."""
    ended, out, err = cli(*tokens, "--quiet")
    assert (ended, out) == (code, "")
    lines = err.splitlines()
    assert all(line.startswith(("invoicing-async: ", "  ")) for line in lines)
    return [line.removeprefix("invoicing-async: ") for line in lines]


def refuse_each(sandbox: Sandbox) -> None:
    """Let the tax authority refuse every invoice that is asked for from now on."""
    for number in sandbox.created:
        found = {"status": "SUCCESS", "data": {"id": number, "authority_status": "REJECTED"}}
        sandbox.script(number, [answer(200, found)] * 9)


def test_nothing_is_said_when_all_is_well(services: Callable[..., Sandbox], cli: Cli) -> None:
    services(DONE)
    write_ids(Path("ids"), 2)
    write_drafts(Path("d.jsonl"), 2)
    for tokens in (
        ("documents", "download", "ids", "--to", "out"),
        ("documents", "download", "ids", "--to", "out", "--run", "m.db"),
        ("runs", "verify", "m.db"),
        WAIT,
        (*WAIT, *RUN),
        ("runs", "resume", "i.db"),
        ("runs", "refresh", "i.db"),
        ("doctor", "--online"),
        ("sign",),
    ):
        assert told(cli, *tokens, code=Exit.DONE) == []


@pytest.mark.parametrize("run", [(), ("--run", "m.db")], ids=["", "run"])
def test_documents_that_failed_are_named(services: Callable[..., Sandbox], cli: Cli, run: tuple[str, ...]) -> None:
    """The first of them each in a line, the others counted, with what names them all."""
    orders = {f"order-{number}" for number in range(12)}
    services(Faults(not_eligible=orders))
    write_ids(Path("ids"), 14)
    found = told(cli, "documents", "download", "ids", "--to", "out", *run)
    assert {line.split()[0] for line in found[:10]} == {"deferred"}
    assert len({line.split()[1] for line in found[:10]} & orders) == 10
    assert all("ORDER_021" in line for line in found[:10])
    [more] = found[10:]
    assert more.startswith("and 2 more; ")


@pytest.mark.parametrize("run", [(), RUN], ids=["", "run"])
def test_invoices_that_failed_are_named(services: Callable[..., Sandbox], cli: Cli, run: tuple[str, ...]) -> None:
    """Refused by the service, failed there, refused by the tax authority, and not even read."""
    sandbox = services(DONE)
    write_drafts(Path("d.jsonl"), 1)
    sandbox.script(Operation.SUBMIT, [refusal(422, "no such template", "Choose another.")])
    [line] = told(cli, *WAIT, *run)
    assert line.split()[:2] == ["rejected", "ORDER-0000"]
    assert "no such template (REF_001, HTTP 422)" in line
    Path("d.jsonl").write_text(Path("d.jsonl").read_text() + "nope\n")
    found = told(cli, *WAIT, "--skip-invalid", *run)
    assert any("line 2" in line and "JSON" in line for line in found)
    failing = services(Faults(polls_until_done=(1, 1), failed_share=1.0))
    write_drafts(Path("d.jsonl"), 1)
    again = ("invoices", "submit", "d.jsonl", "--wait", *(("--run", "j.db") if run else ()))
    [line] = told(cli, *again)
    assert line.split()[:2] == ["failed", "ORDER-0000"]
    [number] = failing.created
    assert told(cli, "invoices", "wait", number)[0].split()[:2] == ["failed", number]
    assert told(cli, "invoices", "status", number)[0].split()[:2] == ["failed", number]


def test_what_the_authority_refuses_is_named(services: Callable[..., Sandbox], cli: Cli) -> None:
    """By whatever command is told of it."""
    sandbox = services(DONE)
    write_drafts(Path("d.jsonl"), 1)
    assert told(cli, *WAIT, *RUN, code=Exit.DONE) == []
    refuse_each(sandbox)
    [number] = sandbox.created
    for tokens in (
        ("invoices", "status", number),
        ("invoices", "wait", number),
        ("runs", "refresh", "i.db"),
        ("runs", "resume", "i.db"),
    ):
        assert "REJECTED" in " ".join(told(cli, *tokens))


def test_files_that_are_gone_are_named(services: Callable[..., Sandbox], cli: Cli) -> None:
    services(DONE)
    write_ids(Path("ids"), 2)
    told(cli, "documents", "download", "ids", "--to", "out", "--run", "m.db", code=Exit.DONE)
    Path("out/order-1.pdf").unlink()
    [line] = told(cli, "runs", "verify", "m.db")
    assert line.split()[:2] == ["missing", "order-1"]


def test_exports_that_failed_are_counted(services: Callable[..., Sandbox], cli: Cli) -> None:
    """An invoice that was made and could not be saved is a failure too."""
    sandbox = services(DONE)
    write_drafts(Path("d.jsonl"), 1)
    sandbox.script(Operation.EXPORT, [answer(200, {"status": "FAIL"})] * 9)
    found = told(cli, "invoices", "submit", "d.jsonl", *RUN, "--export", "pdf", "--to", "out", code=Exit.SOME_LEFT)
    assert "1 made, and without a file so far" in found


def test_doctor_says_what_would_not_work(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setenv("INVOICING_INVOICES_TOKEN", "t")
    monkeypatch.setenv("INVOICING_INVOICES_BASE_ULR", "https://host")
    found = told(cli, "doctor")
    assert any("INVOICING_INVOICES_BASE_URL: not set" in line for line in found)
    assert any("INVOICING_INVOICES_BASE_ULR: is none of ours" in line for line in found)


COMMANDS = [
    ("documents", "download", "ids", "--to", "out"),
    ("documents", "download", "ids", "--to", "out", "--run", "m.db"),
    WAIT,
    (*WAIT, *RUN),
    ("invoices", "status", "d0e11047-acaf-468f-a325-3d2f5964f5ff"),
    ("invoices", "wait", "d0e11047-acaf-468f-a325-3d2f5964f5ff"),
]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["", "quiet"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_refused_credential_shows_the_services_words_and_ours(
    services: Callable[..., Sandbox], cli: Cli, command: tuple[str, ...], quiet: tuple[str, ...]
) -> None:
    """What it said, what it says to do, and what we say; quiet or not; no secret."""
    sandbox = services(DONE)
    write_ids(Path("ids"), 2)
    write_drafts(Path("d.jsonl"), 2)
    refused = [refusal(401, "Signature mismatch", "Clock is 9 min behind.")] * 20
    for operation in (Operation.DOCUMENT, Operation.SUBMIT, Operation.STATUS, Operation.TOKEN):
        sandbox.script(operation, refused)
    code, out, err = cli(*command, *quiet)
    assert code in {Exit.STOPPED, Exit.SOME_LEFT}
    at = err.index("  The service says: Clock is 9 min behind.\n")
    assert "Signature mismatch (REF_001, HTTP 401)" in err[:at]
    assert f"  {AuthenticationError.hint}\n" in err[at:]
    assert not any(secret in out + err for secret in SECRETS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AuthenticationError("No", status=401), (AuthenticationError.hint,)),
        (AuthenticationError("No way", status=401, hint="No way"), (AuthenticationError.hint,)),
        (AuthenticationError("No", status=401, hint="Ask"), ("The service says: Ask", AuthenticationError.hint)),
        (PollTimeoutError("late"), (PollTimeoutError.hint,)),
        (OSError("full"), ("",)),
    ],
)
def test_hints_are_the_services_and_ours_each_once(error: Exception, said: tuple[str, ...]) -> None:
    assert hints_of(error) == said
