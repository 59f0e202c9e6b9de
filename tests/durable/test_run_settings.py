"""What a run keeps: its pace and its export, which an option changes for good; and where its exports go."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field
from fakes import FakeClock, FakeResponse, FakeTransport
from forked import forked
from served import Cli, json_lines, whole, write_drafts, write_ids

from invoicing_async import AsyncInvoices, InvoiceDraft, InvoiceLine, Poller, RetryPolicy, Session, StaticToken
from invoicing_async._core.http import Request
from invoicing_async._durable.run_settings import ExportTo, RunPace, RunSettings, export_layout
from invoicing_async._files.names import file_name
from invoicing_async.cli.exits import Exit
from invoicing_async.policies import Limits
from invoicing_async.policies import RetryPolicy as Policy
from invoicing_async.runs import DocumentRun, InvoiceRun, Item
from invoicing_async.sandbox import Answer, Faults, Operation, Sandbox
from invoicing_async.settings import Settings

TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
PDF = b"%PDF-1.7\n" + b"x" * 900 + b"\nstartxref\n9\n%%EOF\n"


def test_what_was_asked_for_is_kept_and_the_rest_is_the_default() -> None:
    """A pace says only what somebody said; what it does not say is the version's own."""
    pace = RunPace(per_second=2.5)
    assert pace.limits == Limits(per_second=2.5)
    assert pace.retry == Policy()
    assert RunPace(stop_after=2).limits == Limits(stop_after=2)
    assert RunPace(stop_after=0).limits == Limits(stop_after=None)
    changed = pace.changed(RunPace(concurrency=4)).changed(RunPace(concurrency=8))
    assert changed == RunPace(concurrency=8, per_second=2.5)
    kept = RunSettings(pace=changed).written({"other": 1})
    assert kept == {"other": 1, "pace": {"concurrency": 8, "per_second": 2.5}}
    assert RunSettings.read(json.loads(json.dumps(kept))) == RunSettings(pace=changed)


@pytest.mark.parametrize(
    "wrong", [{"concurrency": 0}, {"per_second": -1}, {"attempts": 0}, {"deadline": 0.0}, {"stop_after": -1}]
)
def test_a_pace_has_the_limits_of_a_session(wrong: dict[str, Any]) -> None:
    """Nothing is kept that no session could be made with."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RunPace(**wrong)


def test_an_export_is_absolute_and_has_a_layout() -> None:
    """It holds wherever the next command is given."""
    to = ExportTo(folder=Path("out"))
    assert to.folder == Path.cwd() / "out"
    assert (to.format, to.layout) == ("pdf", "{key}")
    settings = RunSettings(export=evolve(to, layout="{date:%Y/%m}/{key}", format="xml"))
    assert RunSettings.read(json.loads(json.dumps(settings.written({})))) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings
    for wrong in ({"format": "doc"}, {"layout": "{order_id}"}, {"layout": "all.pdf"}, {"layout": "../{key}"}):
        with pytest.raises(ValueError, match=r"format must be|pattern"):
            evolve(to, **wrong)


def test_a_run_of_an_earlier_version_goes_on_as_it_began() -> None:
    """It named exports by the invoice's id; what a later version keeps beside is left alone."""
    kept = {"export": {"format": "pdf", "folder": "/out", "later": 1}, "pace": {"later": 2}}
    settings = RunSettings.read(kept)
    assert settings.export == ExportTo(folder=Path("/out"), layout="{invoice_id}")
    assert settings.pace == RunPace()


def test_a_layout_of_exports_knows_their_ids() -> None:
    """Any of the three tells documents apart; an order's id is none of them."""
    for pattern in ("{key}", "{request_id}", "{invoice_id}", "{shard}/{key}-{invoice_id}.pdf"):
        assert export_layout(pattern).pattern == pattern
    with pytest.raises(ValueError, match=r"must have \{key\} or \{request_id\} or \{invoice_id\}"):
        export_layout("{date}")
    with pytest.raises(ValueError, match=r"fields are \{key\}, \{request_id\}, \{invoice_id\}, \{date"):
        export_layout("{order_id}")


def number_of(key: str) -> str:
    return f"00000000-0000-4000-8000-{int.from_bytes(key.encode()[-4:], 'big'):012d}"


@define
class Service:
    """A service that answers SUCCESS when `ends` says so, and remembers which exports it was asked for."""

    ends: dict[str, asyncio.Event] = field(factory=dict)
    keys: dict[str, str] = field(factory=dict)
    exported: list[str] = field(factory=list)
    links: dict[str, int] = field(factory=dict)
    linkless: frozenset[str] = frozenset()

    async def answer(self, request: Request) -> FakeResponse:
        if request.operation == "create_invoice":
            key = json.loads(request.body)["invoice_data"]["invoice_lines"][0]["name"]
            self.keys[number_of(key)] = key
            return said({"request_id": number_of(key), "status": "NEW"})
        if request.operation == "download_export":
            key = self.keys[request.path.strip("/")]
            status = self.links.get(key, 200)
            kind = {"Content-Type": "application/pdf"}
            return FakeResponse(status=status, headers=kind, pieces=(PDF + b"%" + key.encode() + PDF[-20:],))
        number = next(part for part in request.path.split("/") if part in self.keys)
        if request.operation == "export_invoice":
            self.exported.append(self.keys[number])
            link = None if self.keys[number] in self.linkless else f"https://files.test/{number}"
            return said({"status": "DONE", "download_url": link})
        if self.keys[number] in self.ends and not self.ends[self.keys[number]].is_set():
            return said({"request_id": number, "status": "NEW"})
        return said({"request_id": number, "status": "SUCCESS", "data": {"id": number}})


def said(answer: object) -> FakeResponse:
    return FakeResponse(pieces=(json.dumps(answer).encode(),))


def draft(key: str) -> InvoiceDraft:
    line = InvoiceLine(name=key, unit="u", price=Decimal(1), quantity=Decimal(1))
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=(line,))


@asynccontextmanager
async def opened(service: Service, file: Path, *keys: str) -> AsyncIterator[tuple[InvoiceRun, AsyncInvoices]]:
    transport = FakeTransport(answers=[service.answer])
    session = Session(
        "https://api.test/api",
        auth=StaticToken("t"),
        transport=transport,
        clock=FakeClock(),
        retry=RetryPolicy(attempts=2, first=0),
    )
    async with session, InvoiceRun.open(file, clock=FakeClock()) as run:
        await run.add(map(draft, keys))
        yield run, AsyncInvoices(session)


async def finished(run: InvoiceRun, invoices: AsyncInvoices) -> None:
    async with aclosing(run.run(invoices, poller=Poller(first=1, factor=1, jitter=0))) as items:
        async for item in items:
            assert item.state == "success", item


async def exported(run: InvoiceRun, invoices: AsyncInvoices, folder: Path, **options: Any) -> dict[str, Item]:
    async with aclosing(run.export(invoices, folder, **options)) as items:
        return {item.key: item async for item in items}


@pytest.mark.asyncio
async def test_exports_are_named_by_their_keys(tmp_path: Path) -> None:
    """Also keys that no file system takes, and those that look alike: each has a file of its own."""
    keys = ("inv-1", "hóa đơn 2", "a/b", "a:b", "..", "con")
    async with opened(Service(), tmp_path / "r.db", *keys) as (run, invoices):
        await finished(run, invoices)
        items = await exported(run, invoices, tmp_path / "out")
        assert await exported(run, invoices, tmp_path / "out") == {}
    paths = {key: Path(item.path or "") for key, item in items.items()}
    assert {key: path.name for key, path in paths.items()} == {key: file_name(key) for key in keys}
    assert len(set(paths.values())) == len(keys)
    assert all(path.parent == tmp_path / "out" and key.encode() in path.read_bytes() for key, path in paths.items())


@pytest.mark.asyncio
async def test_a_layout_places_them(tmp_path: Path) -> None:
    """By the day each was sent, which stays, and by ids."""
    layout = "{date:%Y/%m}/{shard}/{key}-{invoice_id}"
    async with opened(Service(), tmp_path / "r.db", "k-1") as (run, invoices):
        await finished(run, invoices)
        [item] = (await exported(run, invoices, tmp_path, layout=layout)).values()
    where = Path(item.path or "").relative_to(tmp_path)
    assert where.parts[:2] == ("2025", "09")
    assert where.name == f"k-1-{number_of('k-1')}.pdf"


@pytest.mark.asyncio
async def test_an_export_that_was_not_recorded_is_found_again(tmp_path: Path) -> None:
    """Killed between file and record, the run leaves one file, not two, and asks for nothing."""
    service = Service()
    async with opened(service, tmp_path / "r.db", "k-1", "k-2") as (run, invoices):
        await finished(run, invoices)
    shutil.copy(tmp_path / "r.db", tmp_path / "before.db")
    async with opened(service, tmp_path / "r.db") as (run, invoices):
        first = await exported(run, invoices, tmp_path / "out")
    service.exported.clear()
    async with opened(service, tmp_path / "before.db") as (run, invoices):
        second = await exported(run, invoices, tmp_path / "out")
    assert {key: item.path for key, item in first.items()} == {key: item.path for key, item in second.items()}
    assert {item.sha256 for item in first.values()} == {item.sha256 for item in second.values()}
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert service.exported == []


@pytest.mark.asyncio
async def test_a_file_from_before_the_draft_was_sent_is_another_invoices(tmp_path: Path) -> None:
    """Last month's run may have had the same keys: its file stays, and is not recorded as this invoice."""
    out = tmp_path / "out"
    out.mkdir()
    older = out / "k-1.pdf"
    older.write_bytes(PDF)
    os.utime(older, (1_700_000_000, 1_700_000_000))
    async with opened(Service(), tmp_path / "r.db", "k-1") as (run, invoices):
        await finished(run, invoices)
        [item] = (await exported(run, invoices, out)).values()
    assert older.read_bytes() == PDF
    assert item.path != str(older)
    assert b"k-1" in Path(item.path or "").read_bytes()


@pytest.mark.asyncio
async def test_exports_begin_while_others_are_awaited(tmp_path: Path) -> None:
    """What finishes is handed on; what nobody hands on is found in the run file; nothing is exported twice."""
    service = Service(ends={"slow": asyncio.Event()})
    async with opened(service, tmp_path / "r.db", "k-1", "k-2", "slow") as (run, invoices):
        handed: asyncio.Queue[Item | None] = asyncio.Queue()

        async def later() -> AsyncIterator[Item]:
            while (item := await handed.get()) is not None:
                yield item

        async def settled() -> None:
            async with aclosing(run.run(invoices, poller=Poller(first=1, factor=1, jitter=0, timeout=None))) as items:
                async for item in items:
                    handed.put_nowait(item)
            handed.put_nowait(None)

        settling = asyncio.create_task(settled())
        exports: list[str] = []
        async with aclosing(run.export(invoices, tmp_path / "out", also=later())) as items:
            async for item in items:
                exports.append(item.key)
                if len(exports) == 2:
                    assert not settling.done()
                    service.ends["slow"].set()
        await settling
    assert exports[2:] == ["slow"]
    assert sorted(service.exported) == ["k-1", "k-2", "slow"]


@pytest.mark.asyncio
async def test_a_foreign_hosts_401_is_one_items_trouble(tmp_path: Path) -> None:
    """The others are exported, and the next try begins with that one."""
    service = Service(links={"k-3": 401})
    async with opened(service, tmp_path / "r.db", *(f"k-{n}" for n in range(12))) as (run, invoices):
        await finished(run, invoices)
        items = await exported(run, invoices, tmp_path / "out")
        assert {key for key, item in items.items() if item.path is None} == {"k-3"}
        assert "files.test" in str(items["k-3"].error)
        assert "401" in str(items["k-3"].error)
        assert items["k-3"].state == "success"
        service.links.clear()
        assert set(await exported(run, invoices, tmp_path / "out")) == {"k-3"}


@pytest.mark.asyncio
async def test_a_link_that_never_comes_holds_up_nobody_and_no_stop(tmp_path: Path) -> None:
    """It gives its place away while it waits, within the poller's time; a stop cuts that short and records nothing."""
    service = Service(linkless=frozenset({"k-0"}))
    async with opened(service, tmp_path / "r.db", *(f"k-{n}" for n in range(40))) as (run, invoices):
        await finished(run, invoices)
        given: list[str] = []
        poller = Poller(first=1, factor=1, jitter=0, timeout=None)
        async with aclosing(run.export(invoices, tmp_path / "out", poller=poller)) as items:
            async for item in items:
                given.append(item.key)
                if len(given) == 39:
                    assert "k-0" not in given
                    run.stop()
        assert given[-1] == "k-0"
        stopped = await run.ledger.get("k-0")
        assert stopped is not None
        assert (stopped.state, stopped.path, stopped.error) == ("success", None, None)
    async with opened(service, tmp_path / "r.db") as (run, invoices):
        [dead] = (await exported(run, invoices, tmp_path / "out", poller=Poller(first=1, timeout=5))).values()
        assert "DONE without a link after 5 s" in str(dead.error)


@pytest.mark.asyncio
async def test_a_run_keeps_its_settings(tmp_path: Path) -> None:
    """They are there when it is opened again, and to be changed."""
    file = tmp_path / "r.db"
    settings = RunSettings(pace=RunPace(concurrency=3), export=ExportTo(folder=tmp_path / "out"))
    async with InvoiceRun.open(file) as run:
        assert run.settings == RunSettings()
        await run.keep(settings)
    async with InvoiceRun.open(file) as run:
        assert run.settings == settings


@pytest.mark.asyncio
async def test_a_document_run_goes_elsewhere_when_it_is_told(tmp_path: Path) -> None:
    """Another folder by mistake is refused; what was saved is recorded where it is."""
    file = tmp_path / "d.db"
    async with DocumentRun.open(file, folder=tmp_path / "a") as run:
        await run.keep(RunSettings(pace=RunPace(per_second=5)))
        with pytest.raises(ValueError, match="export is for a run of e-invoices"):
            await run.keep(RunSettings(export=ExportTo(folder=tmp_path)))
        with pytest.raises(ValueError, match="pattern"):
            await run.move(layout="{key}")
    with pytest.raises(ValueError, match="folder must be"):
        async with DocumentRun.open(file, folder=tmp_path / "b"):
            raise AssertionError
    async with DocumentRun.open(file, folder=tmp_path / "b", move=True) as run:
        await run.move(layout="{shard}/{order_id}")
    async with DocumentRun.open(file) as run:
        assert (run.folder, run.layout.pattern) == (tmp_path / "b", "{shard}/{order_id}")
        assert run.settings.pace == RunPace(per_second=5)


@pytest.fixture
def paces(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """The limits of every session that a command makes, but for the one it tries its settings with."""
    seen: list[Limits] = []
    before = Settings.session

    def spied(self: Settings, name: Any, kind: type[Session], pace: Any, **options: Any) -> Session:
        if options.get("on_event") is not None:
            seen.append(pace.limits)
        return before(self, name, kind, pace, **options)

    monkeypatch.setattr(Settings, "session", spied)
    return seen


def kept(cli: Cli, file: str) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(cli("runs", "show", file, "--json")[1])["settings"]
    return settings


JSON = {"Content-Type": "application/json"}
QUICK = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0))


def test_resume_goes_on_at_the_runs_own_pace(services: Callable[..., Sandbox], cli: Cli, paces: list[Limits]) -> None:
    """Without options as it began; an option holds for good, and leaves the others alone."""
    services(QUICK)
    write_drafts(Path("d.jsonl"), 2)
    submit = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--concurrency", "3", "--per-second", "50")
    assert cli(*submit)[0] == Exit.DONE
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    assert cli("runs", "resume", "i.db", "--concurrency", "7")[0] == Exit.DONE
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    assert [(limits.concurrency, limits.per_second) for limits in paces] == [(3, 50.0)] * 2 + [(7, 50.0)] * 2
    assert "concurrency 7, per second 50" in cli("runs", "show", "i.db")[1]
    code, _, err = cli("runs", "resume", "i.db", "--per-second", "0")
    assert (code, "per_second must be a finite number above 0" in err) == (Exit.USAGE, True)
    assert kept(cli, "i.db")["pace"] == {"concurrency": 7, "per_second": 50.0}


def test_documents_do_too_and_move(services: Callable[..., Sandbox], cli: Cli, paces: list[Limits]) -> None:
    """A folder and a layout given to resume hold for what is not saved yet."""
    services(Faults(unavailable={"order-1": 9}))
    write_ids(Path("ids"), 3)
    tokens = ("documents", "download", "ids", "--to", "a", "--run", "m.db", "--concurrency", "2", "--attempts", "1")
    assert cli(*tokens)[0] == Exit.SOME_LEFT
    services()
    assert cli("runs", "resume", "m.db", "--to", "b", "--layout", "{shard}/{order_id}")[0] == Exit.DONE
    assert [limits.concurrency for limits in paces] == [2, 2]
    [moved] = list(Path("b").rglob("*.pdf"))
    assert moved.name == "order-1.pdf"
    assert len(list(Path("a").iterdir())) == 2
    assert cli("runs", "verify", "m.db")[0] == Exit.DONE
    assert cli("runs", "resume", "m.db")[0] == Exit.DONE
    assert kept(cli, "m.db")["folder"] == str(Path("b").absolute())
    shutil.rmtree("a")
    assert cli("runs", "resume", "m.db")[0] == Exit.DONE
    assert len(list(Path("b").rglob("*.pdf"))) == 3
    code, _, err = cli("runs", "resume", "m.db", "--layout", "{key}")
    assert (code, "--layout" in err) == (Exit.USAGE, True)


def test_an_export_goes_elsewhere_for_good(services: Callable[..., Sandbox], cli: Cli) -> None:
    """What has a file keeps it where it is recorded; what is gone with its folder is exported anew in the new one."""
    services(QUICK)
    write_drafts(Path("d.jsonl"), 3)
    submit = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "old")
    assert cli(*submit)[0] == Exit.DONE
    assert cli("runs", "resume", "i.db", "--to", "new", "--layout", "{invoice_id}")[0] == Exit.DONE
    assert kept(cli, "i.db")["export"] == {
        "format": "pdf", "folder": str(Path("new").absolute()), "layout": "{invoice_id}",
    }  # fmt: skip
    assert not Path("new").exists()
    shutil.rmtree("old")
    assert cli("runs", "verify", "i.db")[0] == Exit.SOME_LEFT
    assert cli("runs", "resume", "i.db")[0] == Exit.DONE
    rows = json_lines(cli("runs", "show", "i.db", "--items", "--json")[1])
    assert {Path(row["path"]).name for row in rows} == {f"{row['invoice_id']}.pdf" for row in rows}
    assert {Path(row["path"]).parent for row in rows} == {Path("new").absolute()}
    assert not Path("old").exists()
    assert cli("runs", "verify", "i.db")[0] == Exit.DONE


def test_a_folder_that_cannot_be_had_ends_the_exports_and_another_is_taken(
    services: Callable[..., Sandbox], cli: Cli
) -> None:
    """Everything is submitted and awaited all the same; the run then goes elsewhere."""
    sandbox = services(QUICK)
    write_drafts(Path("d.jsonl"), 3)
    Path("blocked").write_text("a file stands where the folder is wanted")
    submit = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "blocked/out")
    assert cli(*submit)[0] == Exit.STOPPED
    assert len(sandbox.created) == 3
    assert cli("runs", "resume", "i.db", "--to", "new")[0] == Exit.DONE
    assert len(list(Path("new").iterdir())) == 3
    assert len(sandbox.created) == 3


def test_why_an_invoice_has_no_file_is_said(services: Callable[..., Sandbox], cli: Cli) -> None:
    """In the summary, beside its key."""
    sandbox = services(QUICK)
    sandbox.script(Operation.EXPORT, [Answer(headers=JSON, body=b'{"status": "FAIL", "download_url": null}')])
    write_drafts(Path("d.jsonl"), 2)
    code, out, _ = cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "out")
    assert code == Exit.SOME_LEFT
    assert re.search(r"no file for ORDER-000[01]: the service could not build the pdf", out)


def test_no_kill_leaves_a_second_copy(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Killed with SIGKILL at any moment of its exports, a run ends with one whole file for each invoice."""
    sandbox = services(QUICK)
    write_drafts(Path("d.jsonl"), 24)
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait")[0] == Exit.DONE
    resume = ("runs", "resume", "i.db", "--export", "pdf", "--to", "out", "--concurrency", "4")
    for at in range(2, 20, 3):
        with forked(*resume) as running:
            while running.poll() is None and sandbox.calls(Operation.FILE) < at:
                threading.Event().wait(0.002)
            running.kill()
    assert cli(*resume)[0] == Exit.DONE
    files = list(Path("out").iterdir())
    assert len(files) == 24
    assert all(map(whole, files))
    assert cli("runs", "verify", "i.db")[0] == Exit.DONE


def test_a_first_export_needs_a_format_and_a_folder(services: Callable[..., Sandbox], cli: Cli) -> None:
    """Half of it is told before a run file is made, or its settings are changed."""
    services(QUICK)
    write_drafts(Path("d.jsonl"), 1)
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--to", "out")[0] == Exit.USAGE
    assert not Path("i.db").exists()
    assert cli("invoices", "submit", "d.jsonl", "--run", "i.db", "--wait")[0] == Exit.DONE
    code, _, err = cli("runs", "resume", "i.db", "--export", "pdf")
    assert (code, "go together" in err) == (Exit.USAGE, True)
    assert cli("runs", "resume", "i.db", "--export", "pdf", "--to", "out")[0] == Exit.DONE
    assert len(list(Path("out").iterdir())) == 1
    code, _, err = cli("runs", "resume", "i.db", "--layout", "{nonsense}")
    assert (code, "--layout" in err) == (Exit.USAGE, True)


def test_the_command_exports_what_finishes_while_it_waits_for_the_rest(
    services: Callable[..., Sandbox], cli: Cli
) -> None:
    """A file is fetched before the last invoice is done."""
    sandbox = services(Faults(seconds_until_done=(0.01, 3.0), exports_until_done=(0, 0)))
    write_drafts(Path("d.jsonl"), 8)
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", "out")
    assert cli(*tokens)[0] == Exit.DONE
    operations = [entry.operation for entry in sandbox.log]
    last_poll = len(operations) - 1 - operations[::-1].index(Operation.STATUS)
    assert operations.index(Operation.FILE) < last_poll
    assert len(list(Path("out").iterdir())) == 8
