"""The command line: its exit codes, its accounts, its settings, and that no secret ever leaves through it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fakes import FakeClock
from forked import forked
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from served import SECRETS, clean, command, json_lines, signals, whole, write_drafts, write_ids

from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    OAuthClientCredentials,
    Session,
    StaticToken,
    SubmissionInDoubtError,
)
from invoicing_async import __main__ as entry
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._einvoices.shape import WireNames
from invoicing_async._einvoices.spreadsheet import code_fault
from invoicing_async.cli import app as application
from invoicing_async.cli import stop
from invoicing_async.cli import summary as accounts
from invoicing_async.cli.app import run
from invoicing_async.cli.commands import demo, doctor, invoices
from invoicing_async.cli.exits import CommandError, Exit
from invoicing_async.cli.input import drafts, ids
from invoicing_async.cli.input import settings as configured
from invoicing_async.cli.input.options import Common, Picking
from invoicing_async.cli.terminal import progress, report, rows
from invoicing_async.cli.terminal.output import Screen, plain
from invoicing_async.errors import OrderStatusError, RateLimitError, ServiceUnavailableError, TransportError
from invoicing_async.events import AttemptFailed, DocumentSaved, RequestStarted, RequestSucceeded, RetryScheduled
from invoicing_async.models import (
    Deferred,
    Duplicate,
    Failed,
    InDoubt,
    Invalid,
    InvoiceData,
    InvoiceRequest,
    NotSent,
    NotStarted,
    Rejected,
    RequestStatus,
    Saved,
    SavedDocument,
    Skipped,
    Submitted,
    Unsettled,
)
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox, SandboxCredentials

VECTORS = json.loads((Path(__file__).parent / "vectors" / "signing.json").read_text())
ANSI = "\x1b["


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


def screen(**options: Any) -> Screen:
    return Screen(out=Console(file=io.StringIO()), err=Console(file=io.StringIO()), **options)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- how a command ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["bogus"], "bogus"),
        (["documents", "download"], "IDS"),
        (["documents", "download", "x", "--to", "y", "--bogus"], "--bogus"),
        (["documents", "download", "x", "--to", "y", "--on-existing", "destroy"], "on-existing"),
        (["documents", "download", "x", "--to", "y", "--layout", "../{order_id}"], "--layout"),
        (["documents", "download", "x", "--to", "y", "--concurrency", "many"], "concurrency"),
        (["documents", "download", "x", "--to", "y"], "INVOICING_DOCUMENTS_BASE_URL"),
        (["documents", "download", "x", "--to", "y", "--report", "r.txt"], ".csv or .json"),
        (["documents", "download", "x", "--to", "y", "--env-file", "absent"], "absent"),
        (["invoices", "submit", "absent.jsonl"], "absent.jsonl"),
        (["invoices", "wait"], "--from"),
        (["invoices", "status", "7"], "UUID"),
        (["invoices", "status", str(uuid4())], "INVOICING_INVOICES_BASE_URL"),
        (["sign"], "INVOICING_DOCUMENTS_SECRET_KEY"),
        (["sandbox", "--failed-share", "2"], "failed_share"),
        (["demo", "--orders", "-1"], "0 or more"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(
    tokens: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong option, a missing setting and a bad file name are told in one line on stderr, without a traceback."""
    monkeypatch.chdir(tmp_path)
    assert run(tokens) == Exit.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.startswith("invoicing-async: ")
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    """Asking for help is no error, and neither is asking for nothing."""
    for tokens in (["--help"], ["--version"], [], ["documents", "download", "--help"]):
        assert run(tokens) == Exit.DONE
    assert "documents" in capsys.readouterr().out


def test_main_exits_with_the_code_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point hands over its arguments and exits with what they came to."""
    monkeypatch.setattr(sys, "argv", ["invoicing-async", "bogus"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == Exit.USAGE


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_command_says_what_to_install(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing package of the extra `cli` is one line and exit code 2."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == Exit.USAGE
    assert capsys.readouterr().err == f"invoicing-async: {package} is missing; install invoicing-async[cli]\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TransportError("no way"), Exit.SOME_LEFT),
        (OSError("disk"), Exit.SOME_LEFT),
        (CommandError("stop", code=Exit.STOPPED), Exit.STOPPED),
        (BrokenPipeError(), Exit.STOPPED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_what_a_command_raises_has_its_exit_code(
    error: BaseException, code: Exit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only errors meant for the user are caught, each with its code; --debug adds the traceback."""

    def failing(tokens: object) -> int:
        raise error

    monkeypatch.setattr(application, "_run", failing)
    monkeypatch.setattr(application, "unheard", lambda: None)
    assert run([]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert run(["--debug"]) == code
    told = isinstance(error, (TransportError, CommandError)) or type(error) is OSError
    assert ("Traceback" in capsys.readouterr().err) is told


def test_a_command_that_was_ended_at_once_is_interrupted() -> None:
    """A second signal cancels what the command waits for."""

    async def cancelled() -> None:
        raise asyncio.CancelledError

    with pytest.raises(KeyboardInterrupt):
        application._awaited(cancelled())


def test_the_loop_is_uvloops_when_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `speed` is picked up, and not missed."""
    monkeypatch.setattr(application, "find_spec", lambda name: None)
    assert application._loop_factory() is None
    monkeypatch.setattr(application, "find_spec", lambda name: name)
    factory = application._loop_factory()
    assert factory is not None
    loop = factory()
    assert type(loop).__module__ == "uvloop"
    loop.close()


# --- settings -------------------------------------------------------------------------------------------------------


def test_a_settings_file_is_read_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    """Comments, quotes and `export` are understood; a variable that is set wins."""
    file = tmp_path / "env"
    file.write_text(
        "\ufeff# a comment\n\nexport INVOICING_DOCUMENTS_SECRET_KEY='a b # c'  # quoted\n"
        'INVOICING_DOCUMENTS_STORE_TOKEN = "tok"\nINVOICING_DOCUMENTS_BASE_URL=http://file # why\n'
        "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID='open\n",
        encoding="utf-8",
    )
    environment = {"INVOICING_ENV_FILE": str(file), "INVOICING_DOCUMENTS_BASE_URL": "http://real", "OTHER": "x"}
    found = configured.load(None, environment)
    assert found.get(configured.DOCUMENTS, "SECRET_KEY") == "a b # c"
    assert found.get(configured.DOCUMENTS, "STORE_TOKEN") == "tok"
    assert found.get(configured.DOCUMENTS, "PARTNER_CLIENT_ID") == "'open"
    assert found.base_url(configured.DOCUMENTS) == "http://real"
    assert "tok" not in repr(found)
    assert configured.load(file, {}).base_url(configured.DOCUMENTS) == "http://file"


def test_a_bad_settings_file_names_the_line_and_does_not_show_it(tmp_path: Path) -> None:
    """A line may hold a secret, so an error has its number only."""
    file = tmp_path / "env"
    file.write_text("A=1\nsk_live_secret\n")
    with pytest.raises(CommandError, match=r"env line 2: must be NAME=VALUE") as caught:
        configured.load(file, {})
    assert "sk_live" not in str(caught.value)
    file.write_bytes(b"A=\xff\n")
    with pytest.raises(CommandError, match="not UTF-8"):
        configured.load(file, {})


def partner(**changed: str) -> dict[str, str]:
    values = {"base_url": "https://host/api/v1", **SandboxCredentials().partner(), **changed}
    return {f"INVOICING_DOCUMENTS_{name.upper()}": value for name, value in values.items()}


def client(**changed: str) -> dict[str, str]:
    values = {"base_url": "https://host/api", **SandboxCredentials().client(), **changed}
    return {f"INVOICING_INVOICES_{name.upper()}": value for name, value in values.items()}


def test_the_open_points_of_the_signature_are_settings() -> None:
    """Prefix, path and query of the signed text need no patch; an empty prefix counts."""
    assert configured.load(None, partner()).partner() == HmacAuth(**SandboxCredentials().partner())
    changed = partner(signature_prefix="", sign_full_path="yes", sign_query="TRUE")
    rules = configured.load(None, changed).partner().rules
    assert (rules.prefix, rules.full_path, rules.include_query) == ("", True, True)
    with pytest.raises(CommandError, match="INVOICING_DOCUMENTS_SIGN_QUERY must be true or false"):
        configured.load(None, partner(sign_query="perhaps")).partner()


def test_the_open_points_of_the_einvoices_are_settings() -> None:
    """Token path, scope, JSON names and endpoints are variables."""
    changed = client(
        scope="all",
        token_path="/token",
        names="payment_method=paymentMethod, nested_submit_to_tax=true",
        endpoints="status_method=GET,status=/v2/requests/{}",
    )
    found = configured.load(None, changed)
    auth = found.client()
    assert isinstance(auth, OAuthClientCredentials)
    assert (auth.scope, auth.path) == ("all", "/token")
    assert found.names() == WireNames(payment_method="paymentMethod", nested_submit_to_tax=True)
    assert (found.endpoints().status_method, found.endpoints().status) == ("GET", "/v2/requests/{}")
    assert repr(found.invoices()) == repr(Session("https://host/api", auth=auth))
    with pytest.raises(CommandError, match="NAMES: 'bogus' is none of is_promotion"):
        configured.load(None, client(names="bogus=x")).names()
    with pytest.raises(CommandError, match="distinct"):
        configured.load(None, client(names="emails=x,automatic=x")).names()


def test_a_token_makes_the_client_unnecessary() -> None:
    """Either the three of a client or one bearer token is enough, and what is missing is named."""
    token = {"INVOICING_INVOICES_BASE_URL": "http://h", "INVOICING_INVOICES_TOKEN": "t"}
    assert isinstance(configured.load(None, token).client(), StaticToken)
    missing = client(client_secret="")
    with pytest.raises(CommandError, match=r"^not set: INVOICING_INVOICES_CLIENT_SECRET$"):
        configured.load(None, missing).client()


@pytest.mark.parametrize(
    "changed",
    [partner(store_token="stkn with space"), partner(base_url="sk_live_oops"), partner(base_url="http://")],
    ids=["space", "no URL", "no host"],
)
def test_a_wrong_setting_is_named_without_its_value(changed: dict[str, str]) -> None:
    """Whatever stands in a variable, its value is not shown where it could be a secret."""
    with pytest.raises(CommandError, match="INVOICING_DOCUMENTS_") as caught:
        configured.load(None, changed).documents()
    assert "sk_live" not in str(caught.value)
    assert "stkn" not in str(caught.value)


# --- ids ------------------------------------------------------------------------------------------------------------


def from_bytes(data: bytes, **picking: str) -> list[str]:
    return list(ids.picked(io.BytesIO(data), "in", Picking(**picking)))


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=30).filter(
    lambda text: not code_fault(text) and not text.startswith('"')  # what a spreadsheet made of an id is refused
)


@given(st.lists(TEXTS, max_size=20), st.sampled_from(["\n", "\r\n", "\n\n"]))
@settings(max_examples=50)
def test_ids_come_out_of_every_kind_of_file_as_they_went_in(texts: list[str], end: str) -> None:
    """Lines, a CSV column and a JSONL field give the same ids, blank lines aside."""
    assert from_bytes("".join(text + end for text in texts).encode("utf-8-sig")) == texts
    table = io.StringIO()
    writer = csv.writer(table, delimiter=";")
    writer.writerows([["name", "order_id"], *(["x\ny", text] for text in texts)])
    assert from_bytes(table.getvalue().encode(), column="order_id") == texts
    records = "".join(json.dumps({"id": text}) + end for text in texts)
    assert from_bytes(records.encode(), field="id") == texts


def test_numbers_in_jsonl_are_ids_too() -> None:
    """A field with a whole number is taken by its digits."""
    assert from_bytes(b'{"id": 12}\n', field="id") == ["12"]


@pytest.mark.parametrize(
    ("data", "picking", "said"),
    [
        (b"a\n\xff\n", {}, r"in line 2: not UTF-8 text \(byte 1\)"),
        (b"a\n" + b"x" * (ids.LINE_LIMIT + 1), {}, "in line 2: longer than"),
        (b"{}\nnope\n", {"field": "id"}, "in line 1: the field id must be there"),
        (b'{"id": "a"}\nnope\n', {"field": "id"}, "in line 2: not JSON"),
        (b'{"id": true}\n', {"field": "id"}, "in line 1: the field id"),
        (b"[1]\n", {"field": "id"}, "in line 1: the field id"),
        (b"a,b\n1,2\n", {"column": "c"}, "in line 1: the header has no column c"),
        (b"", {"column": "c"}, "in line 1: the header has no column c"),
        (b"a,b\n1,2\n\n3\n", {"column": "b"}, "in line 4: the column b is empty"),
        (b"a,b\n1," + b"x" * 140_000 + b"\n", {"column": "b"}, "in line 2: field larger than"),
    ],
)
def test_a_bad_line_is_named_by_its_number(data: bytes, picking: dict[str, str], said: str) -> None:
    """What cannot be read as an id is an error with its line, after the ids before it."""
    with pytest.raises(CommandError, match=said):
        from_bytes(data, **picking)


def test_a_file_is_counted_for_the_bar_and_read_as_it_is_taken(tmp_path: Path) -> None:
    """The number of lines is known beforehand; a header is not one of the ids."""
    quiet = stop.Stop(lambda: None)
    file = tmp_path / "ids.csv"
    file.write_text("id\na\nb\n")
    with ids.open_ids(str(file), Picking(column="id"), quiet) as found:
        assert isinstance(found.items, Iterator)
        assert (found.about, list(found.items)) == (2, ["a", "b"])
    with ids.open_ids(str(file.rename(tmp_path / "ids.txt")), Picking(), quiet) as found:
        assert found.about == 3
    with (
        pytest.raises(CommandError, match="exclude each other"),
        ids.open_ids(str(file), Picking(column="id", field="id"), quiet),
    ):
        pass


@pytest.mark.asyncio
async def test_a_stream_is_read_in_a_thread_and_not_far_ahead() -> None:
    """A slow or endless producer never holds the loop, and a slow consumer holds the producer."""
    read = Counter[str]()

    def endless() -> Iterator[int]:
        for number in range(100_000):
            read["items"] = number + 1
            yield number

    asked = stop.Stop(lambda: None)
    feed = ids.Feed(endless(), asked, room=10)
    assert [await anext(feed) for _ in range(50)] == list(range(50))
    await asyncio.sleep(0.05)
    assert read["items"] <= 61
    asked.ask()
    with pytest.raises(StopAsyncIteration):
        await anext(feed)


@pytest.mark.asyncio
async def test_a_stream_gives_its_items_then_its_error() -> None:
    """An error of the input comes after every item before it."""

    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise CommandError("line 3")

    feed = ids.Feed(failing(), stop.Stop(lambda: None))
    assert [await anext(feed), await anext(feed)] == [1, 2]
    with pytest.raises(CommandError, match="line 3"):
        await anext(feed)
    whole = ids.Feed(iter("abc"), stop.Stop(lambda: None))
    assert [item async for item in whole] == ["a", "b", "c"]


@pytest.mark.asyncio
async def test_a_stop_wakes_who_waits_for_a_stream() -> None:
    """A stream that never says more does not keep a command from stopping."""
    gate = threading.Event()

    def silent() -> Iterator[int]:
        gate.wait(10)
        yield 1

    asked = stop.Stop(lambda: None)
    taking = stop.Taking(asked)

    async def take() -> list[int]:
        items = taking.items(ids.Feed(silent(), asked))
        assert isinstance(items, AsyncIterator)
        return [item async for item in items]

    taken = asyncio.create_task(take())
    await asyncio.sleep(0.01)
    asked.ask()
    assert await taken == []
    assert taking.cut
    gate.set()


# --- stopping -------------------------------------------------------------------------------------------------------


def test_taking_counts_and_ends_when_asked() -> None:
    """What was taken is counted; an input that ended by itself was not cut."""
    told: list[str] = []
    taking = stop.Taking(stop.Stop(lambda: told.append("told")))
    assert list(taking.items("ab")) == ["a", "b"]  # type: ignore[arg-type] # a plain iterable stays one
    assert (taking.taken, taking.cut) == (2, False)
    items = taking.items("cde")
    assert isinstance(items, Iterator)
    assert next(items) == "c"
    taking.stop.ask()
    taking.stop.ask()
    assert list(items) == []
    assert (taking.taken, taking.cut, told) == (3, True, ["told"])
    later: list[int] = []
    taking.stop.then(lambda: later.append(1))
    assert later == [1]


@pytest.mark.asyncio
async def test_the_first_signal_asks_the_second_cancels_the_third_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C has three steps, and the handlers before are put back."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGINT)
    asked = stop.Stop(lambda: None)

    async def stubborn() -> None:
        with stop.listening(asked):
            for step in range(3):
                os.kill(os.getpid(), signal.SIGINT)
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
                assert asked.asked
                assert bool(ended) is (step == 2)

    await asyncio.create_task(stubborn())
    assert ended == [130]
    assert signal.getsignal(signal.SIGINT) is before


# --- what is seen ---------------------------------------------------------------------------------------------------


def unavailable() -> ServiceUnavailableError:
    return ServiceUnavailableError("down", status=503, code="SYS_DEP_503")


def test_health_needs_several_failures_in_a_row() -> None:
    """A failure among successes is no trouble; three without an answer between are, since the first of them."""
    clock = FakeClock()
    monitor = progress.Monitor(clock)

    def failed(error: Exception) -> None:
        monitor(AttemptFailed(operation="o", path="/", attempt=1, error=error))
        clock.advance(1)

    for _ in range(2):
        failed(unavailable())
    assert monitor.state() == ("service ok", "green")
    failed(unavailable())
    assert re.fullmatch(r"unavailable since \d\d:\d\d:\d\d", monitor.state()[0])
    failed(TransportError("gone"))
    assert monitor.state()[0].startswith("no answer since")
    failed(OrderStatusError("later", status=422, code="ORDER_021"))
    assert monitor.state() == ("service ok", "green")
    failed(RateLimitError("slow", status=429))
    assert monitor.state() == ("rate limited", "yellow")
    clock.advance(progress.LIMITED_FOR)
    assert monitor.state() == ("service ok", "green")


def test_the_monitor_counts_retries() -> None:
    """Retries are counted, successes end trouble, and the note says both."""
    monitor = progress.Monitor(FakeClock())
    for _ in range(3):
        monitor(RequestStarted(operation="o", path="/", attempt=1))
        monitor(AttemptFailed(operation="o", path="/", attempt=1, error=unavailable()))
        monitor(RetryScheduled(operation="o", path="/", attempt=1, delay=1))
    assert "3 retries" in monitor.note().plain
    assert "unavailable" in monitor.note().plain
    monitor(RequestSucceeded(operation="o", path="/", attempts=2, elapsed=1))
    monitor(DocumentSaved(order_id="o", path=Path("o"), size=1))
    assert monitor.note().plain.endswith("service ok")


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.9, "3 s"), (61, "1:01"), (3_661, "1 h 01"), (90_000, "1 d 01"), (0, "0 s")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two units say enough."""
    assert progress.span(seconds) == text


@pytest.mark.asyncio
async def test_bars_show_counts_rates_and_the_service() -> None:
    """A picture has the title, done of total, and the note; nothing is drawn where nobody looks."""
    clock, done = FakeClock(), Counter[str]()
    bars = [
        progress.Bar("Documents", 1_200, lambda: done["n"], progress.Monitor(clock).note),
        progress.Bar("Unknown", None, lambda: 7),
    ]
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    async with progress.live(console, bars, shown=True):
        for _ in range(3):
            done["n"] += 400
            await asyncio.sleep(0.12)
    text = shown(console)
    assert "1,200/1,200" in text
    assert "Documents" in text
    assert "0 retries" in text
    silent = Console(file=io.StringIO(), force_terminal=True)
    async with progress.live(silent, bars, shown=False):
        done["n"] += 1
    assert shown(silent) == ""


def test_progress_is_for_a_person_at_a_terminal() -> None:
    """It is shown on a terminal only, never with --quiet, and not between JSON lines on the same one."""
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    assert Screen(out=pipe, err=terminal).lively
    assert Screen(out=pipe, err=terminal, json=True).lively
    assert not Screen(out=terminal, err=terminal, json=True).lively
    assert not Screen(out=terminal, err=pipe).lively
    assert not Screen(out=terminal, err=terminal, quiet=True).lively


def test_text_of_any_origin_cannot_move_the_cursor() -> None:
    """Escape sequences, line ends and markup come out as plain characters."""
    seen = screen()
    seen.problem("a\x1b[31mb\nc", "[bold]d[/bold]")
    assert (
        shown(seen.err)
        == "invoicing-async: a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c\n  [bold]d[/bold]\n"
    )
    assert plain("\ud800") == "\N{REPLACEMENT CHARACTER}"


def test_quiet_shows_only_trouble() -> None:
    """With --quiet there is no summary, but what went wrong is told."""
    quiet = screen(quiet=True)
    quiet.say("x")
    quiet.counts("t", [])
    quiet.facts([("a", "b")])
    assert shown(quiet.out) == ""
    quiet.problem("trouble")
    assert "trouble" in shown(quiet.err)


# --- rows and reports -----------------------------------------------------------------------------------------------

DOCUMENT = SavedDocument(order_id="o", path=Path("f/o.pdf"), size=9, sha256="ab", attempts=2, request_id="r")
REFUSED = OrderStatusError("later", status=422, code="ORDER_021", request_id="r-1")
DRAFT = drafts.example()
DONE = InvoiceRequest(request_id="q", status=RequestStatus.SUCCESS, data=InvoiceData(id="i", code="c"))


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Saved("o", DOCUMENT), {"outcome": "saved", "path": "f/o.pdf", "size": 9, "attempts": 2}),
        (Skipped("o", DOCUMENT), {"outcome": "skipped", "sha256": "ab"}),
        (Deferred("o", REFUSED), {"outcome": "deferred", "code": "ORDER_021", "request_id": "r-1"}),
        (Failed("o", OSError("disk")), {"outcome": "failed", "error": "disk"}),
        (Duplicate("o"), {"outcome": "duplicate"}),
        (NotStarted("o", KeyboardInterrupt()), {"outcome": "not_started", "error": "KeyboardInterrupt"}),
    ],
)
def test_a_download_is_one_flat_row(outcome: Any, expected: dict[str, Any]) -> None:
    """Every outcome has its word, and its kind has a column for all it says."""
    row = rows.download_row(outcome)
    assert row["order_id"] == "o"
    assert expected.items() <= row.items()
    assert row.keys() <= set(rows.DOWNLOADS.columns)
    assert row["outcome"] in rows.DOWNLOADS.outcomes


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Submitted(DRAFT, DONE), {"outcome": "success", "invoice_id": "i", "lookup_code": "c", "request_id": "q"}),
        (Submitted(DRAFT, InvoiceRequest(request_id="q", status="NEW")), {"outcome": "submitted", "status": "NEW"}),
        (Rejected(DRAFT, REFUSED), {"outcome": "rejected", "code": "ORDER_021"}),
        (NotSent(DRAFT, TransportError("x", sent="no")), {"outcome": "not_sent"}),
        (Invalid(DRAFT, ValueError("x")), {"outcome": "invalid"}),
        (InDoubt(DRAFT, SubmissionInDoubtError("x", body_sha256="ff")), {"outcome": "in_doubt", "body_sha256": "ff"}),
        (InDoubt(DRAFT, OSError("x")), {"outcome": "in_doubt"}),
    ],
)
def test_a_submission_is_one_flat_row(outcome: Any, expected: dict[str, Any]) -> None:
    """The states are those of the documentation; a refusal's own call id is not the invoice's request id."""
    row = rows.submission_row(outcome, line=4)
    assert (row["key"], row["line"]) == (DRAFT.key, 4)
    assert expected.items() <= row.items()
    assert row.keys() <= set(rows.SUBMISSIONS.columns)
    assert row["outcome"] in rows.SUBMISSIONS.outcomes


def test_a_wait_that_ended_first_stays_submitted() -> None:
    """The operation goes on at the service, and the row says why the wait did not."""
    row = rows.request_row(Unsettled("q", TransportError("gone")))
    assert (row["outcome"], row["error"], row["status"]) == ("submitted", "gone", "NEW")
    assert rows.request_row(InvoiceRequest(request_id="q", status=RequestStatus.FAILED))["outcome"] == "failed"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "message"), [("r.csv/r.csv", "cannot write the report"), ("r.txt", "must end in .csv or .json")]
)
async def test_a_report_that_cannot_be_is_told_before_the_work(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "r.csv").touch()
    with pytest.raises(CommandError, match=message):
        async with report.opened_report(tmp_path / name, rows.DOWNLOADS):
            raise AssertionError
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


# --- documents download -----------------------------------------------------------------------------------------------


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


# --- invoices -------------------------------------------------------------------------------------------------------


def test_every_fault_of_a_file_is_named_and_nothing_is_sent(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Faults carry line and path; a key that comes again with other content is one of them."""
    sandbox = services()
    good = dump_draft(drafts.example(1))
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


def test_csv_faults_of_one_invoice_stand_together(tmp_path: Path) -> None:
    """A key's rows are one draft, whatever lies between its faults; a row without a key stands alone."""
    file = tmp_path / "d.csv"
    rows_ = [
        f"A,{TEMPLATE},Lamp,piece,dear,2",
        "A,,Lamp,piece,1,2",
        'A,,"La\nmp",piece,1,many',
        f"B,{TEMPLATE},Lamp,piece,1,2",
        f",{TEMPLATE},Lamp,piece,1,2",
        f"C,{TEMPLATE},Lamp,piece,cheap,2",
    ]
    file.write_text("\n".join([CSV_HEAD, *rows_]) + "\n")
    found = drafts.read_drafts(str(file), WireNames())
    assert [(bad.line, bad.key, len(bad.faults)) for bad in found.bad] == [(2, "A", 2), (7, "", 1), (8, "C", 1)]
    assert [(fault.line, fault.column) for fault in found.bad[0].faults] == [(2, "price"), (4, "quantity")]
    assert (list(found.lines), found.head) == (["B"], False)
    file.write_text("key,price\nA,1")
    found = drafts.read_drafts(str(file), WireNames())
    assert found.head
    assert [bad.line for bad in found.bad] == [1]
    file.write_text("price;invoice_template_id\n" + "1;x\n")
    assert drafts.read_drafts(str(file), WireNames()).head


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
    """The faulty ones are outcomes like all others, so the books balance."""
    sandbox = services()
    file = write_drafts(tmp_path / "d.jsonl", 3)
    file.write_text(file.read_text() + "{}\n")
    assert run(["invoices", "submit", str(file), "--skip-invalid", "--report", "r.csv"]) == Exit.SOME_LEFT
    assert re.search(r"submitted +3 .*\n.*invalid +1 .*\n.*total +4 ", capsys.readouterr().out)
    assert len(sandbox.created) == 3
    with (tmp_path / "r.csv").open(newline="") as report_file:
        found = list(csv.DictReader(report_file))
    assert sorted(row["line"] for row in found) == ["1", "2", "3", "4"]


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
    """The screen names twenty; the rest is in the report."""

    async def doubt() -> accounts.Account:
        books = accounts.Account(rows.SUBMISSIONS, screen(), stop.Taking(stop.Stop(lambda: None)), None)
        settling = invoices.Settling(books, None, {})
        list(settling.begun([drafts.example(number) for number in range(25)]))

        async def cancelled() -> AsyncGenerator[Any]:
            nothing: tuple[Any, ...] = ()
            for outcome in nothing:
                yield outcome
            raise asyncio.CancelledError

        async with Session("http://127.0.0.1:9", auth=StaticToken("t")) as session:
            with pytest.raises(asyncio.CancelledError):
                await settling.run(AsyncInvoices(session), cancelled())
        return books

    books = asyncio.run(doubt())
    assert books.counts == {"in_doubt": 25}
    assert "and 5 more" in shown(books.screen.err)


def test_the_example_is_a_draft_that_is_taken(
    services: Callable[..., Sandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `invoices example` prints, `invoices submit` sends."""
    services()
    assert run(["invoices", "example", "--count", "2"]) == Exit.DONE
    (tmp_path / "d.jsonl").write_text(capsys.readouterr().out)
    assert run(["invoices", "submit", "d.jsonl"]) == Exit.DONE


def test_books_that_do_not_balance_are_an_error() -> None:
    """An item without an outcome is told and makes the exit code 1, whatever else went well."""

    async def close() -> tuple[Exit, str]:
        books = accounts.Account(rows.DOWNLOADS, screen(), stop.Taking(stop.Stop(lambda: None)), None)
        books.taking.taken = 2
        await books.add({"order_id": "a", "outcome": "saved"})
        return await accounts.closed(books, None, resume=""), shown(books.screen.err)

    code, said = asyncio.run(close())
    assert code == Exit.SOME_LEFT
    assert "the books do not balance: 2 taken, 1 outcomes" in said


# --- sign, doctor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_sign_shows_every_stage_of_the_vectors(
    vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Body hash, base string, digest and header are those another tool computed; secrets are masked."""
    names = ("secret_key", "partner_client_id", "store_client_id", "store_token")
    if any(not vector.get(name) for name in names):
        return
    for name, value in partner(**{name: vector[name] for name in names}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "body").write_bytes(vector["body"].encode())
    tokens = ["sign", "--path", vector["path"], "--method", vector["method"], "--body", str(tmp_path / "body")]
    tokens += ["--timestamp", str(vector["timestamp_ms"])]
    assert run([*tokens, "--json"]) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    token = vector["store_token"]
    masked = vector["base_string"].replace(token, f"**** ({len(token)} characters)")
    assert found["base_string"] == masked
    assert found["body_sha256"] == vector["body_sha256"]
    assert found["hmac_sha256"] == vector["signature_hex"]
    assert found["headers"]["x-signature"] == vector["header"]
    assert run(tokens) == Exit.DONE
    out = capsys.readouterr().out
    for line in masked.split("\n"):
        assert f"     {line}\n" in out
    assert token not in out
    assert vector["secret_key"] not in out


def test_sign_refuses_what_it_cannot_sign(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that is no path segment and a body that is not there are usage errors."""
    for name, value in partner(sign_full_path="true", signature_prefix="").items():
        monkeypatch.setenv(name, value)
    assert run(["sign", ".."]) == Exit.USAGE
    assert run(["sign", "--body", "absent"]) == Exit.USAGE
    assert run(["sign"]) == Exit.DONE
    out = capsys.readouterr().out
    assert "/api/v1/partner/stores/orders/" in out
    assert "no prefix" in out


def findings(values: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {found.subject: (found.grade, found.text) for found in doctor.findings(configured.Settings(values))}


def test_doctor_names_what_is_missing_and_what_is_misspelled() -> None:
    """Each variable is set or not; nothing of a value is shown."""
    assert findings({})["all"][0] == "bad"
    found = findings(partner(store_token="", secret_key=" padded ") | {"INVOICING_DOCUMENTS_STORE_TOKN": "x"})
    assert found["INVOICING_DOCUMENTS_STORE_TOKEN"] == ("bad", "not set: x-store-token")
    assert found["INVOICING_DOCUMENTS_SECRET_KEY"][0] == "note"
    assert found["INVOICING_DOCUMENTS_STORE_TOKN"][0] == "bad"
    assert found["all"] == ("note", "nothing of INVOICING_INVOICES_… is set")
    assert "settings" not in found
    assert findings(client())["settings"] == ("ok", "complete")
    assert findings(client(names="x=y"))["settings"][0] == "bad"
    for host, grade in (("127.0.0.1", "ok"), ("localhost", "ok"), ("h.test", "bad"), ("10.0.0.1", "bad")):
        found = findings(client(base_url=f"http://{host}/api"))
        assert found.get("base URL", found.get("settings", ("", "")))[0] == grade


@pytest.mark.parametrize(
    ("date", "apart"),
    [("Thu, 01 Jan 1970 00:01:40 GMT", 20.0), ("nonsense", None), (None, None)],
)
def test_clock_difference(date: str | None, apart: float | None) -> None:
    """The service's Date tells how far this machine's clock is ahead."""
    assert doctor.clock_difference(date, 120.0) == apart


@pytest.mark.parametrize(
    ("date", "grade"),
    [(None, "note"), ("Thu, 01 Jan 1970 00:02:00 GMT", "ok"), ("Thu, 01 Jan 1970 00:01:00 GMT", "bad")],
)
def test_a_clock_that_is_off_is_found(date: str | None, grade: str) -> None:
    """A few seconds do not matter; more spoil a signature's timestamp."""
    found = doctor._clocks(configured.DOCUMENTS, date, 120.0)
    assert found.grade == grade


def test_doctor_online(
    services: Callable[..., Sandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asks both base URLs and for a token; secrets are in nothing it says."""
    services()
    file = tmp_path / "env"
    file.write_text("# nothing\n")
    file.chmod(0o644)
    assert run(["doctor", "--online", "--env-file", str(file)]) == Exit.DONE
    out, err = capsys.readouterr()
    assert out.count("answers (404") == 2
    assert "the client is accepted" in out
    assert "others on this machine may read it" in out
    for secret in SECRETS:
        assert secret not in out + err
    monkeypatch.setenv("INVOICING_INVOICES_CLIENT_SECRET", "wrong")
    assert run(["doctor", "--online", "--json"]) == Exit.SOME_LEFT
    found = {row["subject"]: row for row in json_lines(capsys.readouterr().out)}
    assert found["token"]["grade"] == "bad"
    monkeypatch.setenv("INVOICING_INVOICES_TOKEN", "t")
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "http://127.0.0.1:9")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT
    assert "refused" in capsys.readouterr().out
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "http://127.0.0.1:abc/api")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT
    assert "base_url must have a port from 1 to 65535, got 'abc'" in capsys.readouterr().out
    monkeypatch.setenv("INVOICING_DOCUMENTS_BASE_URL", "nonsense")
    monkeypatch.setenv("INVOICING_INVOICES_NAMES", "nonsense")
    monkeypatch.delenv("INVOICING_INVOICES_TOKEN")
    assert run(["doctor", "--online"]) == Exit.SOME_LEFT


# --- demo and sandbox -----------------------------------------------------------------------------------------------


def test_the_demo_ends_as_scripted_and_leaves_whole_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first run saves, a second finds everything there; both show bars to a terminal and end with 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "LATENCY", 0.01)
    monkeypatch.setattr(demo, "SETTLING", (0.0, 0.2))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert run(["demo"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert "40/40" in err
    assert "25/25" in err
    assert str(tmp_path / "demo-invoices") in out
    pdfs = list((tmp_path / "demo-invoices").iterdir())
    assert len(pdfs) == 37
    assert all(whole(path) for path in pdfs)
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert run(["demo", "--invoices", "0"]) == Exit.DONE
    out, err = capsys.readouterr()
    assert re.search(r"skipped +37 ", out)
    assert err == ""
    assert ANSI not in out
    assert run(["demo", "--orders", "0", "--invoices", "0", "--quiet"]) == Exit.DONE
    assert capsys.readouterr() == ("", "")


def test_a_demo_that_cannot_write_or_is_stopped_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trouble with the disk is one line; Ctrl-C is exit code 3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert run(["demo", "--to", "file"]) == Exit.USAGE
    assert "file is not a folder" in capsys.readouterr().err
    assert run(["demo", "--to", "file/below", "--invoices", "0"]) == Exit.SOME_LEFT
    assert "Not a directory" in capsys.readouterr().err
    with signals((tmp_path / "out").exists, 1):
        assert run(["demo", "--to", "out", "--invoices", "2"]) == Exit.STOPPED


def test_a_demo_unlike_its_script_is_found() -> None:
    """What did not end as the sandbox meant it to is named, and the exit code is 1."""

    async def play() -> list[str]:
        script = demo._script(16, 1, 0)
        asked = stop.Stop(lambda: None)
        performance = demo._Play(script, script.sandbox(), screen(), stop.Taking(asked), stop.Taking(asked), Path())
        await performance.downloads.add({"order_id": script.orders[0], "outcome": "failed", "attempts": 1})
        await performance.downloads.add({"order_id": script.orders[7], "outcome": "saved", "attempts": 2})
        await performance.submissions.add({"key": "k", "outcome": "in_doubt"})
        assert performance._code() == Exit.SOME_LEFT
        performance._show(1.0)
        assert re.search(r"failed +1 ", shown(performance.screen.out))
        assert re.search(r"others +1 ", shown(performance.screen.out))
        return performance.unlike_script()

    wrong = asyncio.run(play())
    orders = demo._script(16, 1, 0).orders
    assert wrong == [orders[0], orders[7], "k", "14 without an outcome"]


def test_the_sandbox_prints_settings_and_serves_until_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a command of its own: its `export` lines are a settings file, and ids may come by stdin."""
    file = tmp_path / "env"
    with forked("sandbox", "--documents-port", "0", "--invoices-port", "0", "--quick") as served:
        while b"are up" not in served.said()[1]:
            assert served.poll() is None
            threading.Event().wait(0.01)
        file.write_bytes(served.said()[0])
        tokens = ("documents", "download", "-", "--to", tmp_path / "out", "--env-file", file, "--json")
        with write_ids(tmp_path / "few", 10).open() as given, forked(*tokens, stdin=given.fileno()) as done:
            out, err = done.communicate(60)
        assert done.returncode in {Exit.DONE, Exit.SOME_LEFT}, err
        assert len(out.splitlines()) == 10
        left_early(tokens, write_ids(tmp_path / "many", 5_000))
        served.send_signal(signal.SIGINT)
        assert served.wait(10) == Exit.DONE
    port = re.search(r":(\d+)/api", file.read_text())
    assert port is not None


def left_early(tokens: tuple[object, ...], given: Path) -> None:
    """A reader of stdout that leaves stops the command in good order."""
    with (
        given.open() as file,
        subprocess.Popen(command(*tokens), stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait(10) == Exit.STOPPED
    assert "whoever read stdout has left" in err
    assert "Traceback" not in err


def test_a_taken_port_is_told(capsys: pytest.CaptureFixture[str], services: Callable[..., Sandbox]) -> None:
    """The sandbox cannot be where somebody else is."""
    services()
    port = re.search(r":(\d+)/", os.environ["INVOICING_DOCUMENTS_BASE_URL"])
    assert port is not None
    assert run(["sandbox", "--documents-port", port[1], "--invoices-port", "0"]) == Exit.USAGE
    assert "cannot serve the sandbox" in capsys.readouterr().err


def test_the_options_screen_goes_to_the_real_streams() -> None:
    """Unless told otherwise, a command writes to stdout and stderr."""
    seen = Screen.of(Common(json=True, quiet=True, debug=True))
    assert (seen.json, seen.quiet, seen.debug, seen.err.stderr) == (True, True, True, True)
