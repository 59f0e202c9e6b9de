"""Kill -9 at random moments: no document is half-written or fetched twice, no invoice is lost or made twice.

In full (100 kills of 2,000-document runs, 200 of 1,000-draft runs), in some minutes:

    pytest -m slow tests/durable/test_kill.py

`INVOICING_SHORT=1` before it gives the short form. The default test run kills a few times.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random

import kill_work
import pytest
from attrs import define, field
from fakes import LaterClock
from short_form import SHORT

from invoicing_async._files.names import is_temp
from invoicing_async._files.pdf import fault_of
from invoicing_async.runs import InvoiceRun, Item, SqliteReader, State

pytestmark = pytest.mark.process

WORK = Path(kill_work.__file__)
DOCUMENT_KILLS, INVOICE_KILLS = (8, 12) if SHORT else (100, 200)
KILLS_OF_A_RUN = 10
ON_DISK = {"saved", "skipped"}


@contextmanager
def process(*arguments: str, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen([sys.executable, str(WORK), *arguments], stdin=stdin, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@define
class Lives:
    """Lives of one kind against one service, each in a process of its own."""

    kind: str
    url: str
    log: Path
    server: subprocess.Popen[str]
    random: Random
    concurrency: int
    killed: int = 0

    def live(self, file: Path, count: int, *, most: float | None) -> bool:
        """Live once, for at most so many seconds, a random share of them; true if it came to its end."""
        seconds = None if most is None else self.random.random() * most
        return self.order([self.url, str(file), count, self.concurrency], seconds)

    def order(self, arguments: list[object], seconds: float | None) -> bool:
        """Live once with these arguments, for at most so many seconds; true if it came to its end."""
        order = {"life": self.kind, "arguments": arguments, "seconds": seconds}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        status = json.loads(self.server.stdout.readline())
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            self.killed += 1
            return False
        assert os.WEXITSTATUS(status) == 0, "a life ended with an error, which stands above"
        return True

    def noted(self, word: str) -> list[list[str]]:
        """What the service noted under a word: the rest of each line."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [words[1:] for line in lines if (words := line.split())[0] == word]


@contextmanager
def lives(kind: str, folder: Path, seed: int, concurrency: int = 24) -> Iterator[Lives]:
    log = folder / "service.log"
    with process(kind, str(log)) as service, process("lives", stdin=subprocess.PIPE) as server:
        assert service.stdout is not None
        url = f"http://127.0.0.1:{int(service.stdout.readline())}"
        yield Lives(kind, url, log, server, Random(seed), concurrency)


def recorded(file: Path) -> dict[str, Item]:
    """What is on disk of a run, as another process sees it."""
    if not file.exists():
        return {}

    async def read() -> dict[str, Item]:
        async with SqliteReader.read(file) as reader:
            return {item.key: item for item in await reader.rows(limit=1_000_000)}

    return asyncio.run(read())


@define
class DocumentsKilled:
    """One document run with what is known of it after each kill."""

    lives: Lives
    file: Path
    count: int
    fetches: dict[str, int] = field(factory=dict)
    """How often an order had been fetched when it was first seen recorded as whole."""

    def run(self, kills: int, most: float) -> None:
        for _ in range(kills):
            ended = self.lives.live(self.file, self.count, most=most)
            self.look()
            if ended:
                break
        self.lives.live(self.file, self.count, most=None)
        self.look()
        self.check_end()

    def look(self) -> None:
        """Every file under a final name is whole, and nothing recorded as whole was fetched again."""
        fetched = Counter(key for [key] in self.lives.noted("fetched"))
        for path in self.files():
            assert is_temp(path.name) or fault_of(path.read_bytes()) is None, path
        for key, item in recorded(self.file).items():
            if item.state in ON_DISK:
                assert fetched[key] == self.fetches.setdefault(key, fetched[key]), f"{key} was fetched again"

    def files(self) -> list[Path]:
        return [path for path in self.file.with_suffix("").rglob("*") if path.is_file()]

    def check_end(self) -> None:
        items = recorded(self.file)
        assert set(items) == {kill_work.order(number) for number in range(self.count)}
        for key, item in items.items():
            assert item.state in ON_DISK
            body = Path(item.path or "").read_bytes()
            assert body == kill_work.pdf(key)
            assert (item.size, item.sha256) == (len(body), sha256(body).hexdigest())
        assert sorted(map(str, self.files())) == sorted(item.path or "" for item in items.values())


def kill_documents(folder: Path, *, kills: int, count: int, most: float, seed: int) -> None:
    """Run after run, each killed some times and then left to its end, until there were so many kills."""
    killed = run = 0
    while killed < kills:
        run += 1
        place = folder / f"{run}"
        place.mkdir()
        with lives("documents", place, seed + run) as lived:
            DocumentsKilled(lived, place / "run.db", count).run(min(KILLS_OF_A_RUN, kills - killed), most)
            killed += lived.killed


def test_documents_survive_a_few_kills(tmp_path: Path) -> None:
    """The short form of the long test below."""
    kill_documents(tmp_path, kills=4, count=400, most=0.3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_documents_survive_kills_at_random_moments(tmp_path: Path) -> None:
    """In the end every document is whole, none recorded as whole was fetched again, no temporary file is left."""
    kill_documents(tmp_path, kills=DOCUMENT_KILLS, count=2_000, most=0.6, seed=2)


REACHED = {"sending", "in_doubt", "submitted", "success"}
"""The states of an invoice that was made; in every other it would be lost, or made a second time."""


@define
class InvoicesKilled:
    """One invoice run with what is known of it after each kill."""

    lives: Lives
    file: Path
    count: int
    items: dict[str, Item] = field(factory=dict)

    def run(self, kills: int, most: float) -> None:
        for _ in range(kills):
            ended = self.lives.live(self.file, self.count, most=most)
            self.look()
            if ended:
                break
        self.lives.live(self.file, self.count, most=None)
        self.look()
        while self.resolved():
            self.lives.live(self.file, self.count, most=None)
            self.look()
        self.check_end()

    def created(self) -> dict[str, str]:
        """What the service made, by key. No key twice."""
        made = self.lives.noted("created")
        assert len({key for key, _ in made}) == len(made), "a key was created twice"
        return {words[0]: words[1] for words in made}

    def look(self) -> None:
        """What was made is known or in doubt, and in doubt is exactly what was in flight."""
        before, self.items = self.items, recorded(self.file)
        created = self.created()
        for key, request_id in created.items():
            item = self.items[key]
            assert item.state in REACHED, f"{key} was made and is {item.state}"
            assert item.state in {"sending", "in_doubt"} or item.request_id == request_id
        for key, item in self.items.items():
            if item.state in {"submitted", "success"}:
                assert key in created, f"{key} was never made"
        self.look_at_doubts(before)

    def look_at_doubts(self, before: dict[str, Item]) -> None:
        was, now = (in_state(items, "in_doubt") for items in (before, self.items))
        in_flight = in_state(before, "sending")
        assert was <= now, "a doubt went away by itself"
        assert len(in_state(self.items, "sending")) <= self.most_in_flight(), "more is in flight than may be"
        cut = {key for [key] in self.lives.noted("cut")}
        # A life that did not come to opening the file leaves them as they were.
        allowed = [was] if in_flight & in_state(self.items, "sending") else [was | in_flight]
        assert now - cut in [doubts - cut for doubts in allowed], "in doubt is what was not in flight"

    def most_in_flight(self) -> int:
        """The session's places and, where they are many, a quarter more that were next to leave."""
        places = self.lives.concurrency
        return places + places // 4 if places > 32 else places

    def resolved(self) -> bool:
        """Settle every doubt by what the service made; true if there was any."""
        doubts = in_state(self.items, "in_doubt")
        created = self.created()

        async def resolve() -> None:
            async with InvoiceRun.open(self.file, clock=LaterClock()) as run:
                for key in doubts:
                    await run.resolve(key, created=key in created, request_id=created.get(key))

        asyncio.run(resolve())
        self.items = recorded(self.file)
        return bool(doubts)

    def check_end(self) -> None:
        keys = {f"K-{number}" for number in range(self.count)}
        assert {key: item.state for key, item in self.items.items()} == dict.fromkeys(keys, State.SUCCESS.value)
        assert set(self.created()) == keys


def in_state(items: dict[str, Item], state: str) -> set[str]:
    return {key for key, item in items.items() if item.state == state}


def kill_invoices(folder: Path, *, kills: int, count: int, most: float, seed: int) -> None:
    """Run after run, each killed some times, then left to its end and resolved, until there were so many kills."""
    killed = run = 0
    while killed < kills:
        run += 1
        place = folder / f"{run}"
        place.mkdir()
        with lives("invoices", place, seed + run, concurrency=40 if run % 2 else 24) as lived:
            InvoicesKilled(lived, place / "run.db", count).run(min(KILLS_OF_A_RUN, kills - killed), most)
            killed += lived.killed


def test_invoices_survive_a_few_kills(tmp_path: Path) -> None:
    """The short form of the long test below."""
    kill_invoices(tmp_path, kills=4, count=150, most=0.3, seed=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_invoices_survive_kills_at_random_moments(tmp_path: Path) -> None:
    """No key is created twice, none is lost, and in doubt is exactly what was in flight."""
    kill_invoices(tmp_path, kills=INVOICE_KILLS, count=1_000, most=0.6, seed=4)
