"""Every store creates and never replaces: a folder, objects in memory, and S3 as moto serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio
from object_servers import digest, moto_bucket

from invoicing_async._files.addresses import ObjectAddress
from invoicing_async._objects import open_objects
from invoicing_async.stores import FolderStore, Published, Spool, Store

pytestmark = pytest.mark.asyncio

BODY = b"%PDF-1.7\nsome text\nstartxref\n9\n%%EOF\n"
OTHER = BODY + b"another's"
NAMES = ["a.pdf", "2025/09/a (2).pdf", "đơn hàng/hóa đơn#1+%41 .pdf"]

_made = count()
Opened: TypeAlias = Callable[[], Store]
"""Another process's view of the same place."""


@asynccontextmanager
async def places(kind: str, folder: Path) -> AsyncIterator[Opened]:
    async with AsyncExitStack() as stack:
        scheme, bucket = "memory", f"m{next(_made)}"
        if kind == "s3":
            scheme, bucket = "s3", stack.enter_context(moto_bucket())

        def opened() -> Store:
            store: Any = (
                FolderStore(folder) if kind == "folder" else open_objects(ObjectAddress(scheme, bucket, "in/voices"))
            )
            stack.push_async_callback(store.close)
            return store  # type: ignore[no-any-return] # each is one, which the next line would not need to know

        yield opened


@pytest_asyncio.fixture(params=["folder", "memory", pytest.param("s3", marks=pytest.mark.process)])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opened]:
    async with places(request.param, tmp_path) as made:
        yield made


async def put(store: Store, name: str, body: bytes = BODY) -> Published:
    return await store.put(name, body, sha256=digest(body), size=len(body))


async def content(store: Store, name: str) -> bytes:
    return b"".join([piece async for piece in store.read(name)])


@pytest.mark.parametrize("name", NAMES)
async def test_a_document_is_kept_under_its_name(opened: Opened, name: str) -> None:
    store = opened()
    assert await store.find(name) is None
    assert "cannot be read" in (await store.compare(name, size=len(BODY), sha256=digest(BODY)) or "")
    published = await put(store, name)
    assert (published.size, published.sha256, published.kept) == (len(BODY), digest(BODY), False)
    assert published.path.as_posix().endswith(name)
    other = opened()
    assert other.address == store.address
    assert await content(other, name) == BODY
    found = await other.find(name)
    assert found is not None
    assert found.size == len(BODY)
    assert found.sha256 in {None, digest(BODY)}


async def test_the_same_content_is_its_own_whoever_put_it(opened: Opened) -> None:
    await put(opened(), "a.pdf")
    again = await put(opened(), "a.pdf")
    assert (again.kept, again.same, again.sha256) == (True, True, digest(BODY))


async def test_other_content_is_refused_and_stays(opened: Opened) -> None:
    await put(opened(), "a.pdf", OTHER)
    for body in (BODY, OTHER[:-1] + b"!"):  # one of the same size, too
        with pytest.raises(FileExistsError, match="another"):
            await put(opened(), "a.pdf", body)
    assert await content(opened(), "a.pdf") == OTHER


async def test_of_twenty_who_create_one_name_one_wins(opened: Opened) -> None:
    bodies = [BODY + b"%d" % number for number in range(20)]
    stores = [opened() for _ in range(4)]
    racing = [put(stores[number % 4], "a.pdf", body) for number, body in enumerate(bodies)]
    done = await asyncio.gather(*racing, return_exceptions=True)
    winners = [number for number, one in enumerate(done) if isinstance(one, Published)]
    assert len(winners) == 1
    assert all(isinstance(one, FileExistsError) for number, one in enumerate(done) if number not in winners)
    assert await content(opened(), "a.pdf") == bodies[winners[0]]


async def test_of_twenty_with_the_same_content_one_creates_and_all_have_it(opened: Opened) -> None:
    stores = [opened() for _ in range(4)]
    done = await asyncio.gather(*(put(stores[number % 4], "a.pdf") for number in range(20)))
    assert sorted(one.kept for one in done) == [False] + [True] * 19
    assert all(one.same for one in done if one.kept)


async def test_what_differs_is_said(opened: Opened) -> None:
    store = opened()
    await put(store, "a.pdf")
    assert await store.compare("a.pdf", size=len(BODY), sha256=digest(BODY)) is None
    assert await store.compare("a.pdf", size=1, sha256=digest(BODY)) == f"has {len(BODY)} bytes where 1 were saved"
    assert await store.compare("a.pdf", size=len(BODY), sha256=digest(OTHER)) == "has other content than was saved"


async def spooled(store: Store, body: bytes) -> Spool:
    spool = await store.spool()
    for at in range(0, len(body), 2**20):
        await spool.write([body[at : at + 2**20]])
    return spool


async def test_a_large_body_is_put_by_way_of_a_spool(opened: Opened) -> None:
    store, body = opened(), BODY * 60_000
    spool = await spooled(store, body)
    assert (spool.size, spool.sha256) == (len(body), digest(body))
    published = await store.put("a.pdf", spool, sha256=spool.sha256, size=spool.size)
    await store.discard(spool)
    assert (published.size, published.sha256) == (len(body), digest(body))
    assert await content(store, "a.pdf") == body


async def test_a_spool_that_is_discarded_leaves_nothing(opened: Opened, tmp_path: Path) -> None:
    store = opened()
    await store.discard(await spooled(store, BODY))
    assert await store.find("a.pdf") is None
    assert list(tmp_path.iterdir()) == []


async def test_a_name_that_leaves_a_folder_is_refused(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "in")
    for name in ("../a.pdf", "/a.pdf", "", "b/../../a.pdf"):
        with pytest.raises(ValueError, match="name must be a path below the store"):
            await put(store, name)
    await store.close()
    assert list(tmp_path.iterdir()) == []
