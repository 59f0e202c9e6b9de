"""Everything at once: kills, stops, and operators who remove locks, move files and lose logs, at random.

In full (300 mishaps over runs of 500 drafts), in some minutes:

    pytest -m slow tests/durable/test_chaos.py

`INVOICING_SHORT=1` before it gives the short form.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import chaos_work
import kill_work
import pytest
from attrs import define, field
from fakes import LaterClock
from short_form import SHORT

from invoicing_async._durable.integrity import expects_log
from invoicing_async._durable.lock import holder_of
from invoicing_async.runs import InvoiceRun, Item, RunFileError, SqliteReader, State

MISHAPS = 12 if SHORT else 300
MISHAPS_OF_A_RUN = 12
DRAFTS = 500
REACHED = {"sending", "in_doubt", "submitted", "success"}
"""Where an invoice that was made may stand; everywhere else it would be lost, or made a second time."""

SIDE = ("", "-wal", "-shm", "-journal", ".lock")
"""What belongs to a run file."""


@define
class Lives:
    """Lives of one run against one service that notes what it makes."""

    url: str
    log: Path
    server: subprocess.Popen[str]

    def order(self, **words: object) -> list[object] | int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(words) + "\n")
        self.server.stdin.flush()
        answer: list[object] | int = json.loads(self.server.stdout.readline())
        return answer

    def start(self, file: Path) -> int:
        pid = self.order(start=[self.url, str(file), DRAFTS, 40])
        assert isinstance(pid, int)
        return pid

    def wait(self, pid: int) -> tuple[int, str]:
        answer = self.order(wait=pid)
        assert isinstance(answer, list)
        return int(str(answer[0])), str(answer[1])

    def created(self) -> dict[str, str]:
        """What the service made, by key. No key twice."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        made = [line.split()[1:] for line in lines if line.startswith("created ")]
        twice = [key for key, count in Counter(key for key, _ in made).items() if count > 1]
        assert not twice, f"created twice: {twice}"
        return {words[0]: words[1] for words in made}


@contextmanager
def living(folder: Path) -> Iterator[Lives]:
    log = folder / "service.log"
    with (
        _process(kill_work.__file__, "invoices", str(log)) as service,
        _process(chaos_work.__file__, str(folder / "said"), stdin=subprocess.PIPE) as server,
    ):
        assert service.stdout is not None
        yield Lives(f"http://127.0.0.1:{int(service.stdout.readline())}", log, server)


@contextmanager
def _process(*arguments: str | None, stdin: int | None = None) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, *(word for word in arguments if word)]
    started = subprocess.Popen(words, stdin=stdin, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


LEFT = {"in_doubt", "sending", "invalid"}


@define
class Chaos:
    """One run: what is done to it, how that is done, and what must hold all the same."""

    lives: Lives
    file: Path
    random: Random
    stops: list[str] = field(factory=list)

    def killed(self) -> None:
        """Kill -9 at a random moment."""
        self.cut(self.begun())

    def paused(self) -> None:
        """SIGSTOP for longer than the time-outs of the session, then go on for a moment."""
        pid = self.begun()
        self.signal(pid, signal.SIGSTOP)
        time.sleep(self.random.choice((0.05, 0.5, 2.5)))
        self.signal(pid, signal.SIGCONT)
        time.sleep(self.random.random() * 0.3)
        self.cut(pid)

    def lock_removed(self) -> None:
        """Somebody removes what looks like a stale lock, and starts a second process."""
        pid = self.begun()
        self.side(".lock").unlink(missing_ok=True)
        self.second(self.file)
        self.cut(pid)

    def linked(self) -> None:
        """A second process on a hard link to the file."""
        pid = self.begun()
        if self.file.exists():
            link = self.file.with_name("link.db")
            os.link(self.file, link)
            self.second(link)
            self.cut(pid)
            self.second(link)
            for suffix in SIDE:
                link.with_name(link.name + suffix).unlink(missing_ok=True)
        else:
            self.cut(pid)

    def moved(self) -> None:
        """The file is moved while its run is at work, and a second process finds it under the new name."""
        pid = self.begun()
        if not self.is_at_work():
            # Moved before it was opened, it would be another run: a new one under the old name.
            self.cut(pid)
            return
        old, new = self.file, self.file.with_name(f"moved-{self.random.randrange(10**9)}.db")
        old.rename(new)
        self.second(new)
        self.cut(pid)
        self.second(new)
        for suffix in SIDE[1:]:
            if old.with_name(old.name + suffix).exists():
                old.with_name(old.name + suffix).replace(new.with_name(new.name + suffix))
        self.file = new

    def log_lost(self) -> None:
        """The log is gone after a kill; a process that finds the file so must not send from it."""
        self.killed()
        log, kept = self.side("-wal"), self.file.with_name("kept")
        if not log.exists() or not expects_log(self.file):
            return  # nothing was sent, or all of it is in the file
        shutil.copy(log, kept)
        before = self.file.read_bytes()
        log.unlink()
        self.side("-shm").unlink(missing_ok=True)
        self.second(self.file)
        assert self.file.read_bytes() == before, "a file without its log was changed"
        shutil.copy(kept, log)
        kept.unlink()

    def bytes_flipped(self) -> None:
        """Some bytes of the file or its log are others after a kill: it is refused, or what it says is the same."""
        self.killed()
        if not self.file.exists():
            return
        kept = {suffix: self.side(suffix).read_bytes() for suffix in SIDE[:2] if self.side(suffix).exists()}
        known = self.items()
        where = self.random.choice([suffix for suffix, content in kept.items() if content])
        damaged = bytearray(kept[where])
        for _ in range(self.random.choice((1, 3, 200))):
            damaged[self.random.randrange(len(damaged))] ^= 1 << self.random.randrange(8)
        self.side(where).write_bytes(damaged)
        status, why = self.lives.wait(self.lives.start(self.file))
        self.lives.created()
        if status == 0:
            assert set(self.items()) == set(known) or not known, "another set of invoices"
            return
        assert (status, bool(why)) == (chaos_work.EXPLAINED, True), f"a stop without a reason: {status} {why}"
        self.stops.append(why)
        for suffix in SIDE[1:4]:
            self.side(suffix).unlink(missing_ok=True)
        for suffix, content in kept.items():
            self.side(suffix).write_bytes(content)

    def side(self, suffix: str) -> Path:
        return self.file.with_name(self.file.name + suffix)

    def begun(self) -> int:
        """Start a life and wait a random moment of it."""
        pid = self.lives.start(self.file)
        time.sleep(self.random.random() * 0.6)
        return pid

    def is_at_work(self) -> bool:
        """Tell whether a life holds the file, giving it a moment to come to that."""
        for _ in range(100):
            # With its log it is open: one that only holds it may yet make another file under the old name.
            if self.file.exists() and holder_of(self.file) is not None and self.side("-wal").exists():
                return True
            time.sleep(0.005)
        return False

    def signal(self, pid: int, number: int) -> None:
        os.kill(pid, number)  # it is nobody else's before it was waited for

    def cut(self, pid: int) -> None:
        """Kill a life; one that had ended before must have come to its end, or say why not."""
        self.signal(pid, signal.SIGKILL)
        status, why = self.lives.wait(pid)
        assert status in {0, -signal.SIGKILL} or (status == chaos_work.EXPLAINED and why), (status, why)

    def second(self, file: Path) -> None:
        """Let another life try: it is refused with a reason, or finds the run at rest and ends it."""
        status, why = self.lives.wait(self.lives.start(file))
        assert status == 0 or (status == chaos_work.EXPLAINED and why), (status, why)
        if why:
            self.stops.append(why)

    def items(self) -> dict[str, Item]:
        """What the run file says, as another process sees it."""

        async def read() -> dict[str, Item]:
            async with SqliteReader.read(self.file) as reader:
                return {item.key: item for item in await reader.rows(limit=1_000_000)}

        try:
            return asyncio.run(read())
        except (FileNotFoundError, RunFileError):
            return {}  # killed before it was made

    def look(self) -> None:
        """What was made is known or in doubt, and nothing was made twice."""
        items = self.items()
        for key, request_id in self.lives.created().items():
            assert key in items, f"{key} was made and is not known"
            assert items[key].state in REACHED, f"{key} was made and is {items[key].state}"
            known = items[key].request_id or ""
            assert items[key].state in {"sending", "in_doubt"} or known.lower() == request_id

    def ends(self) -> None:
        """Left alone, and every doubt settled by what the service made, each draft is one invoice."""
        self.second(self.file)
        # A draft that was found damaged is mended when it is given once more, which every life does.
        for _ in range(5):
            left = {key: item.state for key, item in self.items().items() if item.state in LEFT}
            if not left:
                break
            asyncio.run(self.settled([key for key, state in left.items() if state != "invalid"]))
            status, why = self.lives.wait(self.lives.start(self.file))
            assert status == 0, why
        assert {item.state for item in self.items().values()} == {State.SUCCESS.value}
        assert set(self.lives.created()) == {f"K-{number}" for number in range(DRAFTS)}

    async def settled(self, doubts: list[str]) -> None:
        created = self.lives.created()
        async with InvoiceRun.open(self.file, clock=LaterClock()) as run:
            for key in doubts:
                await run.resolve(key, created=key in created, request_id=created.get(key))


BEFALLS = (
    Chaos.killed,
    Chaos.paused,
    Chaos.lock_removed,
    Chaos.linked,
    Chaos.moved,
    Chaos.log_lost,
    Chaos.bytes_flipped,
)


def befall(folder: Path, mishaps: int, seed: int) -> Counter[str]:
    """Run after run with so many mishaps each; count what befell and how lives were stopped."""
    counted: Counter[str] = Counter()
    for number in range(0, mishaps, MISHAPS_OF_A_RUN):
        place = folder / str(number)
        place.mkdir()
        with living(place) as lives:
            chaos = Chaos(lives, place / "run.db", Random(seed + number))
            for _ in range(min(MISHAPS_OF_A_RUN, mishaps - number)):
                mishap = chaos.random.choice(BEFALLS)
                counted[mishap.__name__] += 1
                mishap(chaos)
                chaos.look()
            chaos.ends()
            counted.update(why.split(":")[0] for why in chaos.stops)
    return counted


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_mishap_makes_an_invoice_twice_or_loses_one(tmp_path: Path) -> None:
    """Kills, stops, lost locks and logs, moves, links and flipped bytes: each draft is one invoice in the end."""
    counted = befall(tmp_path, MISHAPS, seed=8)
    assert sum(counted[mishap.__name__] for mishap in BEFALLS) == MISHAPS
    print(dict(counted))  # noqa: T201 - how often what befell and how it was explained, for whoever runs it with -s
