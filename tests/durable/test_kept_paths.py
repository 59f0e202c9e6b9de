"""A run keeps its files by their names below its store; runs of before, and what lies elsewhere, stay whole."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import obstore
import pytest
from attrs import evolve
from fakes import FakeClock
from object_servers import digest
from run_services import DAY, ORDERS, counted, documents, kinds, listed, sandbox
from services import draft

from invoicing_async._durable.kept_paths import KeptPaths
from invoicing_async._files.addresses import ObjectAddress
from invoicing_async._objects import open_objects
from invoicing_async.auth import StaticToken
from invoicing_async.documents import OrderDocuments
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import Saved, Skipped
from invoicing_async.repair import export_again
from invoicing_async.reports import check_row, document_row, download_row
from invoicing_async.runs import DocumentRun, ExportTo, InvoiceRun, check_files, read_run
from invoicing_async.sandbox import Faults, Operation, Sandbox
from invoicing_async.session import Session

pytestmark = pytest.mark.asyncio

_buckets = count()


@pytest.fixture(params=["folder", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a run saves: a folder, or a store of objects."""
    return str(tmp_path / "pdf") if request.param == "folder" else f"memory://runs{next(_buckets)}/in/voices"


@asynccontextmanager
async def run_at(
    folder: Path, service: Sandbox, place: str | None, **options: Any
) -> AsyncIterator[tuple[DocumentRun, OrderDocuments]]:
    async with (
        documents(service) as found,
        DocumentRun.open(folder / "run.db", folder=place, day=DAY, **options) as run,
    ):
        yield run, found


def kept(file: Path) -> list[str | None]:
    """The paths as they stand in the run file."""
    with sqlite3.connect(file) as connection:
        found = [path for (path,) in connection.execute("SELECT path FROM items ORDER BY seq")]
    connection.close()
    return found


async def put(place: str, name: str, body: bytes) -> None:
    """Put somebody's file there."""
    if "://" in place:
        store = open_objects(ObjectAddress.read(place))
        await store.put(name, body, sha256=digest(body), size=len(body))
        await store.close()
    else:
        (Path(place) / name).write_bytes(body)


async def lose(place: str, name: str) -> None:
    if "://" in place:
        store: Any = open_objects(ObjectAddress.read(place))
        await obstore.delete_async(store._store, store._key(name))
        await store.close()
    else:
        (Path(place) / name).unlink()


async def test_a_name_below_the_store_is_kept_and_the_whole_place_is_given(tmp_path: Path, place: str) -> None:
    service = sandbox()
    async with run_at(tmp_path, service, place, layout="{date:%Y}/{order_id}") as (run, found):
        await run.add(ORDERS[:3])
        outcomes = await listed(run.download(found))
        assert kinds(outcomes) == {"Saved": 3}
        wholes = {order: f"{place}/2025/{order}.pdf" for order in ORDERS[:3]}
        assert {one.order_id: one.document.address for one in outcomes if isinstance(one, Saved)} == wholes
        assert {one.order_id: download_row(one)["path"] for one in outcomes if isinstance(one, Saved)} == wholes
        assert {item.key: item.path for item in await run.ledger.rows()} == wholes
        assert [document_row(item)["path"] for item in await run.ledger.rows()] == list(wholes.values())
    assert kept(tmp_path / "run.db") == [f"2025/{order}.pdf" for order in ORDERS[:3]]
    async with run_at(tmp_path, service, None) as (run, found):
        again = await listed(run.download(found))
        assert {one.order_id: one.document.address for one in again if isinstance(one, Skipped)} == wholes
    async with read_run(tmp_path / "run.db") as ledger:
        checked = [one async for one in check_files(ledger)]
        assert [(check_row(one)["path"], one.fault) for one in checked] == [(path, None) for path in wholes.values()]
    assert service.calls(Operation.DOCUMENT) == 3


async def test_what_is_missing_comes_back_under_its_name(tmp_path: Path, place: str) -> None:
    service = sandbox()
    async with run_at(tmp_path, service, place) as (run, found):
        await run.add(ORDERS[:3])
        await listed(run.download(found))
        before = [item.path for item in await run.ledger.rows()]
        await lose(place, f"{ORDERS[1]}.pdf")
        assert [one.key for one in await listed(run.verify(found)) if one.fault] == [ORDERS[1]]
        assert await counted(run) == {"saved": 2, "planned": 1}
        assert kinds(await listed(run.download(found))) == {"Skipped": 2, "Saved": 1}
        assert [item.path for item in await run.ledger.rows()] == before
        assert await listed(run.verify(found))
        assert await counted(run) == {"saved": 3}


async def test_in_a_store_nothing_is_replaced_and_what_is_other_stays_beside(tmp_path: Path) -> None:
    place, service = f"memory://runs{next(_buckets)}/in/voices", sandbox()
    async with run_at(tmp_path, service, place) as (run, found):
        await run.add(ORDERS[:2])
        await listed(run.download(found))
        await lose(place, f"{ORDERS[0]}.pdf")
        await put(place, f"{ORDERS[0]}.pdf", b"somebody's notes")
        assert kinds(await listed(run.download(found))) == {"Skipped": 1, "Saved": 1}
        assert (await run.ledger.rows())[0].path == f"{place}/{ORDERS[0]} (2).pdf"
        assert kinds(await listed(run.download(found))) == {"Skipped": 2}
    with pytest.raises(ValueError, match=r"on_existing must be 'keep' or 'new name': nothing is replaced at memory"):
        async with DocumentRun.open(tmp_path / "other.db", folder=place, on_existing="replace"):
            pass
    assert not (tmp_path / "other.db").exists()


async def test_what_was_there_before_is_skipped(tmp_path: Path, place: str) -> None:
    service = sandbox()
    async with run_at(tmp_path, service, place) as (run, found):
        await run.add(ORDERS[:1])
        await listed(run.download(found))
    (tmp_path / "run.db").unlink()
    async with run_at(tmp_path, service, place) as (run, found):
        await run.add(ORDERS[:2])
        assert kinds(await listed(run.download(found))) == {"Skipped": 1, "Saved": 1}
        assert await counted(run) == {"skipped": 1, "saved": 1}
    assert service.calls(Operation.DOCUMENT) == 2


async def test_what_was_saved_before_a_move_stays_and_is_verified_there(tmp_path: Path, place: str) -> None:
    """From a folder or a store to another place, and back."""
    service, elsewhere = sandbox(), str(tmp_path / "else")
    async with run_at(tmp_path, service, place) as (run, found):
        await run.add(ORDERS[:1])
        await listed(run.download(found))
        await run.move(folder=elsewhere)
        await run.add(ORDERS[1:2])
        await listed(run.download(found))
        await run.move(folder=f"memory://third{next(_buckets)}/x")
        third = run.place
        await run.add(ORDERS[2:3])
        await listed(run.download(found))
    wholes = [f"{place}/{ORDERS[0]}.pdf", f"{elsewhere}/{ORDERS[1]}.pdf", f"{third}/{ORDERS[2]}.pdf"]
    assert kept(tmp_path / "run.db") == [f"{ORDERS[0]}.pdf", *wholes[1:]]
    async with run_at(tmp_path, service, None) as (run, found):
        assert [item.path for item in await run.ledger.rows()] == wholes
        assert kinds(await listed(run.download(found))) == {"Skipped": 3}
        await run.move(folder=place)
        await run.add(ORDERS[3:4])
        await listed(run.download(found))
    assert kept(tmp_path / "run.db")[3] == f"{ORDERS[3]}.pdf"


async def test_a_run_of_before_keeps_whole_paths_and_goes_on(tmp_path: Path) -> None:
    service, folder = sandbox(), tmp_path / "pdf"
    async with run_at(tmp_path, service, str(folder)) as (run, found):
        await run.add(ORDERS[:2])
        await listed(run.download(found))
        # As the version before this one wrote it.
        settings = {name: value for name, value in run.ledger.settings.items() if name != "store"}
        await run.ledger.update_settings(settings)
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE items SET path = ? || '/' || path", (str(folder),))
    connection.close()
    async with run_at(tmp_path, service, str(folder)) as (run, found):
        (folder / f"{ORDERS[0]}.pdf").unlink()
        await run.add(ORDERS[:3])
        assert kinds(await listed(run.download(found))) == {"Skipped": 1, "Saved": 2}
        await run.move(folder=tmp_path / "else")
        assert kinds(await listed(run.download(found))) == {"Skipped": 3}
    assert kept(tmp_path / "run.db") == [str(folder / f"{order}.pdf") for order in ORDERS[:3]]


async def test_a_copy_of_a_folder_is_found_by_a_run_whose_store_is_told_anew(tmp_path: Path) -> None:
    """Names say nothing of a host: what is kept is right wherever the folder is."""
    async with run_at(tmp_path, sandbox(), str(tmp_path / "pdf")) as (run, found):
        await run.add(ORDERS[:2])
        await listed(run.download(found))
        shutil.move(tmp_path / "pdf", tmp_path / "mounted")
        moved = str(tmp_path / "mounted")
        await run.ledger.update_settings({**run.ledger.settings, "folder": moved, "store": moved})
        assert [one.fault for one in await listed(run.verify(found))] == [None, None]


@pytest.mark.parametrize(
    ("store", "whole", "name"),
    [
        ("/in", "/in/a.pdf", "a.pdf"),
        ("/in", "/in/b/c d.pdf", "b/c d.pdf"),
        ("/in", "/inn/a.pdf", "/inn/a.pdf"),
        ("/in", "/in", "/in"),
        ("/", "/a.pdf", "a.pdf"),
        ("s3://b", "s3://b/a.pdf", "a.pdf"),
        ("s3://b/p", "s3://b/q/a.pdf", "s3://b/q/a.pdf"),
        ("s3://b/p", "/p/a.pdf", "/p/a.pdf"),
        ("", "/in/a.pdf", "/in/a.pdf"),
        (None, "/in/a.pdf", "/in/a.pdf"),
    ],
)
async def test_a_path_is_kept_and_given_back(store: str | None, whole: str, name: str) -> None:
    paths = KeptPaths.of({"store": store})
    assert paths.kept(whole) == name
    assert paths.whole(name) == whole
    assert paths.whole(None) is paths.kept(None) is None


@asynccontextmanager
async def invoice_run(file: Path) -> AsyncIterator[tuple[InvoiceRun, AsyncInvoices]]:
    service = Sandbox(clock=FakeClock(), faults=Faults(polls_until_done=(0, 0)))
    auth = StaticToken(service.credentials.token)
    async with (
        Session("https://api.test/api", auth=auth, transport=service, clock=FakeClock()) as session,
        InvoiceRun.open(file, clock=FakeClock()) as run,
    ):
        await run.add([draft("k0"), draft("k1")])
        yield run, AsyncInvoices(session)


async def test_exports_are_kept_by_their_names_and_come_back(tmp_path: Path, place: str) -> None:
    async with invoice_run(tmp_path / "run.db") as (run, invoices):
        to = ExportTo(folder=place)
        await run.keep(evolve(run.settings, export=to))
        await listed(run.run(invoices))
        exported = await listed(run.export(invoices, to.folder))
        assert {item.key: item.path for item in exported} == {key: f"{place}/{key}.pdf" for key in ("k0", "k1")}
        assert kept(tmp_path / "run.db") == ["k0.pdf", "k1.pdf"]
        assert run.settings.export == to
        await lose(place, "k0.pdf")
        assert [one.key async for one in check_files(run.ledger) if one.fault] == ["k0"]
        assert await export_again(run, invoices, "k0", to)
        assert [one.fault async for one in check_files(run.ledger)] == [None, None]
        assert kept(tmp_path / "run.db") == ["k0.pdf", "k1.pdf"]


async def test_exports_of_a_run_that_keeps_none_are_kept_whole(tmp_path: Path, place: str) -> None:
    """Only what a run keeps is its store: another process would not know what a name is below."""
    async with invoice_run(tmp_path / "run.db") as (run, invoices):
        await listed(run.run(invoices))
        await listed(run.export(invoices, place))
    assert kept(tmp_path / "run.db") == [f"{place}/{key}.pdf" for key in ("k0", "k1")]


async def test_an_export_moves_from_a_folder_that_is_gone_to_a_store(tmp_path: Path) -> None:
    async with invoice_run(tmp_path / "run.db") as (run, invoices):
        await run.keep(evolve(run.settings, export=ExportTo(folder=tmp_path / "then")))
        await listed(run.run(invoices))
        await listed(run.export(invoices, tmp_path / "then"))
        shutil.rmtree(tmp_path / "then")
        to = ExportTo(folder=f"memory://exports{next(_buckets)}")
        assert await export_again(run, invoices, "k0", to)
        item = await run.ledger.get("k0")
        assert item is not None
        assert item.path == f"{to.folder}/k0.pdf"
