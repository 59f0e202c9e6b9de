"""Two workers save the same documents into one place and are killed: 0 doubles and 0 missing, in a folder and on S3.

In full (100 kills on each), in some minutes:

    pytest -m slow tests/durable/test_kill_sharing.py

`INVOICING_SHORT=1` before it gives the short form. Each worker has a run of its own, so that both want every document.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Protocol

import kill_work
import pytest
from attrs import define, field, frozen
from forked import python
from object_servers import moto_bucket, objects_in
from run_services import ORDERS, counted, documents, kinds, listed, sandbox
from short_form import IN_FULL, SHORT
from test_kill import ON_DISK, Lives, process, recorded

from invoicing_async._files.names import is_temp
from invoicing_async.runs import DocumentRun
from invoicing_async.sandbox import Operation

pytestmark = pytest.mark.process

KILLS = 10 if SHORT else 100
KILLS_OF_A_RUN = 10


class Shared(Protocol):
    """A place that two workers save into."""

    @property
    def address(self) -> str: ...

    def bodies(self) -> dict[str, bytes]:
        """What is there by its name, whatever it is."""


@frozen
class Folder:
    address: str

    def bodies(self) -> dict[str, bytes]:
        files = [path for path in Path(self.address).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.address)): path.read_bytes() for path in files}


@frozen
class Bucket:
    name: str

    @property
    def address(self) -> str:
        return f"s3://{self.name}/in"

    def bodies(self) -> dict[str, bytes]:
        return {key.removeprefix("in/"): body for key, body in objects_in(self.name).items()}


@contextmanager
def shared(kind: str, folder: Path) -> Iterator[Shared]:
    if kind == "folder":
        yield Folder(str(folder / "pdf"))
        return
    with moto_bucket() as name:
        yield Bucket(name)


@define
class TwoWorkers:
    """Two workers, each killed at random moments while the other goes on."""

    place: Shared
    folder: Path
    mode: str
    count: int
    workers: list[Lives] = field(factory=list)

    def run(self, kills: int, most: float) -> int:
        """Live until there were so many kills, then to the end; give how many there were."""
        with ThreadPoolExecutor(2) as pool:
            while self.killed < kills:
                if all(pool.map(lambda number: self.live(number, most), range(2))):
                    break
            assert all(pool.map(lambda number: self.live(number, None), range(2)))
        self.check_end()
        return self.killed

    def live(self, number: int, most: float | None) -> bool:
        worker = self.workers[number]
        seconds = None if most is None else worker.random.random() * most
        return worker.order([worker.url, self.file(number), self.count, 12, self.place.address, self.mode], seconds)

    def file(self, number: int) -> str:
        return str(self.folder / f"run{number}.db")

    @property
    def killed(self) -> int:
        return sum(worker.killed for worker in self.workers)

    def check_end(self) -> None:
        """Every document is there once, whole, and both runs know it."""
        wanted = {kill_work.order(number) for number in range(self.count)}
        bodies = {name: body for name, body in self.place.bodies().items() if not is_temp(Path(name).name)}
        assert sorted(Path(name).stem for name in bodies) == sorted(wanted)
        for number in range(2):
            items = recorded(Path(self.file(number)))
            assert set(items) == wanted
            for key, item in items.items():
                assert item.state in ON_DISK
                name = (item.path or "").removeprefix(f"{self.place.address}/")
                assert bodies[name] == kill_work.pdf(key)
                assert item.sha256 == sha256(bodies[name]).hexdigest()


@contextmanager
def two_workers(kind: str, folder: Path, mode: str, seed: int, count: int) -> Iterator[TwoWorkers]:
    log = folder / "service.log"
    with (
        shared(kind, folder) as place,
        process("documents", str(log)) as service,
        process("lives", stdin=subprocess.PIPE) as one,
        process("lives", stdin=subprocess.PIPE) as other,
    ):
        assert service.stdout is not None
        url = f"http://127.0.0.1:{int(service.stdout.readline())}"
        found = [Lives("documents", url, log, lives, Random(seed + at), 12) for at, lives in enumerate((one, other))]
        yield TwoWorkers(place, folder, mode, count, found)


def kill_workers(kind: str, folder: Path, *, kills: int, count: int, most: float) -> None:
    killed = run = 0
    while killed < kills:
        run += 1
        at = folder / f"{run}"
        at.mkdir()
        with two_workers(kind, at, ("keep", "new name")[run % 2], run, count) as workers:
            killed += workers.run(min(KILLS_OF_A_RUN, kills - killed), most)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_workers_survive_a_few_kills(tmp_path: Path, kind: str) -> None:
    """The short form of the long test below."""
    kill_workers(kind, tmp_path, kills=3, count=60, most=0.3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["folder", pytest.param("s3", marks=IN_FULL)])
def test_two_workers_survive_kills_at_random_moments(tmp_path: Path, kind: str) -> None:
    """In the end each document is there once, whole, and known to both."""
    kill_workers(kind, tmp_path, kills=KILLS, count=300, most=0.8)


DYING = """
import asyncio, os, signal, sys
from contextlib import aclosing
from run_services import DAY, ORDERS, documents, sandbox
from invoicing_async._durable.ledger import SqliteLedger
from invoicing_async.runs import DocumentRun

async def record(self, *args, **named):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    SqliteLedger.record_document = record
    async with documents(sandbox()) as found, DocumentRun.open(sys.argv[1], folder=sys.argv[2], day=DAY) as run:
        await run.add(ORDERS[:3])
        async with aclosing(run.download(found)) as outcomes:
            async for _ in outcomes:
                pass

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_what_was_put_and_not_recorded_is_found_and_recorded_by_the_next_attempt(tmp_path: Path, kind: str) -> None:
    """A kill between the two leaves the document; it is neither doubled nor fetched again."""
    with shared(kind, tmp_path) as place:
        with python(DYING, tmp_path / "run.db", place.address) as dying:
            out, err = dying.communicate(60)
        assert dying.returncode == -signal.SIGKILL, (out, err)
        left = {name for name in place.bodies() if not is_temp(name)}
        assert len(left) == 1
        service = sandbox()

        async def go_on() -> None:
            async with documents(service) as found, DocumentRun.open(tmp_path / "run.db") as run:
                assert await counted(run) == {"planned": 3}
                assert kinds(await listed(run.download(found))) == {"Skipped": 1, "Saved": 2}
                assert await counted(run) == {"skipped": 1, "saved": 2}
                paths = {item.path for item in await run.ledger.rows()}
                assert paths == {f"{place.address}/{order}.pdf" for order in ORDERS[:3]}

        asyncio.run(go_on())
        assert set(place.bodies()) == {f"{order}.pdf" for order in ORDERS[:3]}
        assert service.calls(Operation.DOCUMENT) == 2
