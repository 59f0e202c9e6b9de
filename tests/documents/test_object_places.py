"""Order documents and exports saved into an object store, or into a store of the user's own."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from fakes import FakeClock
from object_servers import moto_bucket, objects_in, peer
from order_documents import LARGE, ORDER, client, gathered, kinds, made, pdf, whole
from run_services import draft

from invoicing_async._files.addresses import ObjectAddress
from invoicing_async._objects import open_objects
from invoicing_async.auth import StaticToken
from invoicing_async.events import DocumentSaved, Event
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import NotStarted, Saved, Skipped
from invoicing_async.sandbox import Faults, Sandbox, SandboxSettings, demo_orders
from invoicing_async.session import Session
from invoicing_async.stores import FolderStore, Found, Published, Spool

pytestmark = pytest.mark.asyncio

_buckets = count()


@pytest.fixture
def bucket() -> Iterator[str]:
    with moto_bucket() as name:
        yield name


@pytest.fixture
def memory() -> str:
    return f"memory://documents{next(_buckets)}/in"


@pytest.mark.process
async def test_documents_are_saved_whole_under_their_names(bucket: str) -> None:
    ids, place = demo_orders(12), f"s3://{bucket}/in/voices"
    async with client(made()) as documents:
        outcomes, error = await gathered(documents.download_many(ids, place, layout="{date:%Y}/{order_id}"))
        assert (kinds(outcomes), error) == ({"Saved": 12}, None)
        again, _ = await gathered(documents.download_many(ids, place, layout="{date:%Y}/{order_id}"))
        assert kinds(again) == {"Skipped": 12}
    found = objects_in(bucket)
    for outcome in outcomes:
        assert isinstance(outcome, Saved)
        document = outcome.document
        assert document.store == place
        assert document.address == f"{place}/{document.path.as_posix()}"
        body = found.pop(document.address.removeprefix(f"s3://{bucket}/"))
        assert (document.size, document.sha256) == (len(body), sha256(body).hexdigest())
    assert found == {}


async def test_a_large_document_passes_through_the_disk_and_is_one_object() -> None:
    sandbox = made()
    sandbox.script(ORDER, [whole(LARGE)])
    async with peer() as (found, store), client(sandbox) as documents:
        saved = await documents.download(ORDER, store)
    assert {key: body for key, (body, _) in found.held.items()} == {f"/bucket/pre/{ORDER}.pdf": LARGE}
    assert found.puts == 1
    assert (saved.size, saved.name_taken) == (len(LARGE), False)


@pytest.mark.parametrize("body", [pdf(), LARGE], ids=["small", "large"])
async def test_what_is_broken_never_becomes_an_object(memory: str, body: bytes) -> None:
    sandbox = made()
    sandbox.script(ORDER, [whole(body[:-10])] * 3)
    async with client(sandbox) as documents:
        outcomes, _ = await gathered(documents.download_many([ORDER], memory))
        assert kinds(outcomes) == {"Failed": 1}
        store = open_objects(ObjectAddress.read(memory))
        assert await store.find(f"{ORDER}.pdf") is None
        await store.close()


async def test_an_object_of_somebody_elses_is_kept_if_it_is_whole_and_stays_if_it_is_not() -> None:
    """What bears no hash of ours is read before it is believed."""
    async with peer() as (found, store), client(made()) as documents:
        found.held["/bucket/pre/a.pdf"] = pdf(), None
        found.held["/bucket/pre/b.pdf"] = b"somebody's notes", None
        outcomes, error = await gathered(documents.download_many(["a", "b"], store))
    assert error is None
    by_id = {outcome.order_id: outcome for outcome in outcomes}
    assert isinstance(by_id["a"], Skipped)
    assert isinstance(saved := by_id["b"], Saved)
    assert saved.document.path == Path("b (2).pdf")
    assert saved.document.name_taken
    assert found.held["/bucket/pre/b.pdf"] == (b"somebody's notes", None)


async def test_a_store_that_refuses_the_credential_ends_the_batch() -> None:
    ids = demo_orders(40)
    sandbox = made()
    async with peer([403] * 100) as (found, store), client(sandbox) as documents:
        outcomes, error = await gathered(documents.download_many(ids, store, concurrency=4))
    assert isinstance(error, PermissionError)
    assert error.errno == errno.EACCES
    assert kinds(outcomes) == {"NotStarted": 40}
    assert {outcome.error for outcome in outcomes if isinstance(outcome, NotStarted)} == {error}
    assert sandbox.calls("document") <= 8
    assert found.held == {}


async def test_nothing_is_replaced_in_a_store(memory: str) -> None:
    sandbox = made()
    async with client(sandbox) as documents:
        with pytest.raises(ValueError, match="on_existing must be 'keep' or 'new name': nothing is replaced at memory"):
            await documents.download(ORDER, memory, on_existing="replace")
    assert sandbox.calls("document") == 0


@pytest.mark.parametrize("text", ["s3://key:planted-secret@bucket/in", "ftp://host/in", "s3://"])
async def test_an_address_that_is_none_is_refused_before_anything_is_asked(text: str) -> None:
    sandbox = made()
    async with client(sandbox) as documents:
        with pytest.raises(ValueError, match=r"store|address") as caught:
            await documents.download(ORDER, text)
        outcomes, error = await gathered(documents.download_many([ORDER], text))
        assert (outcomes, str(error)) == ([], str(caught.value))
        assert "planted" not in str(error)
    assert sandbox.calls("document") == 0


async def test_the_next_name_is_told_in_the_event(memory: str) -> None:
    heard: list[Event] = []
    sandbox = made()
    async with client(sandbox, on_event=heard.append) as documents:
        sandbox.script(ORDER, [whole(pdf(60)), whole(pdf(70))])
        await documents.download(ORDER, memory, on_existing="new name")
        second = await documents.download(ORDER, memory, on_existing="new name")
    assert second.path.name == f"{ORDER} (2).pdf"
    told = [(event.store, event.path, event.name_taken) for event in heard if isinstance(event, DocumentSaved)]
    assert told == [(memory, Path(f"{ORDER}.pdf"), False), (memory, second.path, True)]


class Shelf:
    """A store of a user's own, with nothing of this library's."""

    address = "shelf://mine"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def put(self, name: str, body: bytes | Spool, *, sha256: str, size: int) -> Published:
        content = body if isinstance(body, bytes) else await body.content()
        if self.held.setdefault(name, content) != content:
            raise FileExistsError(name)
        return Published(Path(name), size, sha256)

    async def find(self, name: str) -> Found | None:
        return Found(size=len(self.held[name]), modified=0.0) if name in self.held else None

    async def read(self, name: str) -> AsyncIterator[bytes]:
        yield self.held[name]

    async def compare(self, name: str, *, size: int | None, sha256: str | None) -> str | None:
        return None

    async def spool(self) -> Spool:
        raise NotImplementedError

    async def discard(self, spool: Spool) -> None:
        raise NotImplementedError


async def test_a_store_of_the_users_own_is_saved_into(tmp_path: Path) -> None:
    shelf = Shelf()
    async with client(made()) as documents:
        outcomes, error = await gathered(documents.download_many(demo_orders(3), shelf))
        assert (kinds(outcomes), error) == ({"Saved": 3}, None)
        folder = FolderStore(tmp_path)
        outcomes, error = await gathered(documents.download_many(demo_orders(3), folder))
        await folder.close()
        assert (kinds(outcomes), error) == ({"Saved": 3}, None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == shelf.held


@pytest.mark.parametrize("kind", ["pdf", "xml"])
async def test_an_invoices_document_is_exported_into_a_store(kind: str) -> None:
    service = Sandbox(SandboxSettings(), clock=FakeClock(), faults=Faults(polls_until_done=(0, 0)))
    auth = StaticToken(service.credentials.token)
    session = Session("https://api.test/api", auth=auth, transport=service, clock=FakeClock())
    async with peer() as (found, _), session:
        invoices, place = AsyncInvoices(session), "s3://bucket/out"
        done = await invoices.status((await invoices.create(draft("K 1"))).request_id)
        assert done.data is not None
        number = done.data.id
        saved = await invoices.export(number, place, format=kind, name=f"2025/K 1.{kind}")
        assert saved.address == f"{place}/2025/K 1.{kind}"
        again = await invoices.export(number, place, format=kind, name=f"2025/K 1.{kind}")
        assert again.attempts == 0
        with pytest.raises(ValueError, match="nothing is replaced"):
            await invoices.export(number, place, on_existing="replace")
    [(key, (body, _))] = found.held.items()
    assert key == f"/bucket/out/2025/K%201.{kind}"
    assert sha256(body).hexdigest() == saved.sha256
