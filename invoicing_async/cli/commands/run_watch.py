"""What an operator watches of a run: what is wrong with it, who works on it, and how fast; most of it on a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attrs import asdict, frozen

from ...reports import duration_words, utc_time
from ...runs import Item, LaneStanding, LedgerReader, Standing, WorkerStanding, standing_of
from ...worker import ChunkStanding, chunk_standing
from ..run_summary import command
from ..terminal.output import Output, plain
from ..terminal.times import local_time, rate

__all__ = ["RunWatch"]

_MOMENTS_OF_LANE = ("free_at", "paused_since", "paused_until", "probe_until")

SHOWN = 10
"""Invoices that may be there twice, and are named one by one."""


@frozen
class Wrong:
    """What is wrong with a run, in one line, and the one command for it."""

    what: str
    command: str


@frozen
class RunWatch:
    """How a run stands for whoever watches over it. `standing` and `chunks` are of a run on a server."""

    standing: Standing | None
    chunks: ChunkStanding | None
    twice: tuple[Item, ...]
    """The first invoices of which the service accepted two attempts."""

    @classmethod
    async def of(cls, ledger: LedgerReader) -> RunWatch:
        """Look at a run, also while others work on it."""
        standing = await standing_of(ledger)
        chunks = None if standing is None else await chunk_standing(ledger)
        return cls(standing, chunks, tuple(await ledger.twice(limit=SHOWN)))

    @property
    def alive(self) -> list[WorkerStanding]:
        """The workers of a run on a server that were heard of in the last seconds."""
        return [] if self.standing is None else [worker for worker in self.standing.workers if worker.is_alive]

    @property
    def rate(self) -> float:
        """How many items all workers together do in a second."""
        return sum(worker.rate for worker in self.alive)

    @property
    def time_to_go(self) -> float | None:
        """In how many seconds all will be done at this rate; None if nothing is, or nothing is open."""
        return self.standing.open / self.rate if self.standing and self.standing.open and self.rate else None

    def wrong(self, file: str) -> Iterator[Wrong]:
        """Yield what is wrong, the worst first."""
        for item in self.twice:
            ids = f"{item.request_id} and {item.other_request_id}"
            text = f"TWO INVOICES may have been made of {item.key}: {ids}; have one of them cancelled"
            yield Wrong(text, command("invoices", "status", item.other_request_id))
        if (now := self.standing) is None:
            return
        if now.halted is not None:
            text = f"halted since {local_time(now.halted)}, nothing is sent: {now.halted_why}"
            yield Wrong(text, command("runs", "unhalt", file, "--doubt-since", "TIME"))
        if now.paused is not None:
            yield Wrong(f"paused since {local_time(now.paused)}, nothing is sent", command("runs", "unpause", file))
        yield from self._stuck(now, command("worker", "--run", file, "--until-done"))

    def _stuck(self, now: Standing, work: str) -> Iterator[Wrong]:
        """Yield what nobody goes on with though somebody should have."""
        if now.stuck:
            yield Wrong(f"{now.stuck:,} are being sent for longer than they can be, and no worker looked at them", work)
        if self.chunks is not None and self.chunks.silent:
            yield Wrong(f"{self.chunks.silent:,} pieces are in the hands of workers that are silent", work)
        elif self.chunks is not None and self.chunks.is_forgotten and self.alive and now.paused is None:
            yield Wrong("items wait for over a minute, and no worker was given them", work)

    def show(self, output: Output, file: str) -> None:
        """Show what is wrong, then the workers and what they share, if somebody is at work."""
        amiss = list(self.wrong(file))
        for wrong in amiss:
            output.amiss(f"\n {plain(wrong.what)}")
            output.say(f"   {wrong.command}")
        if self.standing is not None and (amiss or self.alive):
            output.say("")
            output.facts(self._facts(self.standing))

    def _facts(self, now: Standing) -> Iterator[tuple[str, str]]:
        oldest = ""
        if now.oldest is not None and now.oldest_age is not None:
            oldest = f", the oldest for {duration_words(max(0.0, now.oldest_age))}: {now.oldest.key}"
        yield "open", f"{now.open:,}, {now.in_flight:,} of them in flight{oldest}"
        if self.chunks is not None:
            todo, doing, silent = self.chunks.todo, self.chunks.doing, self.chunks.silent
            yield "pieces", f"{todo:,} to do, {doing:,} being done, {silent:,} silent"
        if self.time_to_go is not None:
            yield "to go", f"about {duration_words(self.time_to_go)} at {rate(self.rate)}"
        for worker in now.workers:
            yield f"worker {worker.worker}", _of_worker(worker)
        for lane in now.lanes:
            yield f"lane {lane.lane}", _of_lane(lane)
        for table in now.tables:
            when = local_time(table.vacuumed) or "never"
            yield f"table {table.table}", f"{table.rows:,} rows, {table.dead:,} dead, last vacuum {when}"

    def json(self, file: str) -> dict[str, Any]:
        """Return it as a part of one JSON object."""
        twice = [
            {"key": item.key, "request_id": item.request_id, "other_request_id": item.other_request_id}
            for item in self.twice
        ]
        wrong = [asdict(each) for each in self.wrong(file)]
        if (now := self.standing) is None:
            return {"twice": twice, "wrong": wrong, "standing": None}
        if now.open and not self.alive:  # people read that from what is next to be done
            text = f"{now.open:,} are not done, and nobody is at work"
            wrong.append({"what": text, "command": command("worker", "--run", file, "--until-done")})
        return {"twice": twice, "wrong": wrong, "standing": self._json(now)}

    def _json(self, now: Standing) -> dict[str, Any]:
        oldest = None
        if now.oldest is not None:
            oldest = {"key": now.oldest.key, "sent_at": utc_time(now.oldest.sent_at), "seconds": now.oldest_age}
        return {
            "at": utc_time(now.at),
            "open": now.open,
            "in_flight": now.in_flight,
            "in_doubt": now.doubts,
            "oldest": oldest,
            "stuck": now.stuck,
            "halted": utc_time(now.halted),
            "halted_why": now.halted_why,
            "paused": utc_time(now.paused),
            "per_second": self.rate,
            "seconds_to_go": self.time_to_go,
            "pieces": None if self.chunks is None else asdict(self.chunks),
            "workers": [
                asdict(worker) | {"started": utc_time(worker.started), "alive": worker.is_alive}
                for worker in now.workers
            ],
            "lanes": [
                asdict(lane) | {name: utc_time(getattr(lane, name)) for name in _MOMENTS_OF_LANE} for lane in now.lanes
            ],
            "tables": [asdict(table) | {"vacuumed": utc_time(table.vacuumed)} for table in now.tables],
        }


def _of_worker(worker: WorkerStanding) -> str:
    facts = [f"{worker.host} process {worker.pid}, {worker.version}", f"{worker.done:,} done"]
    facts += [rate(worker.rate)] if rate(worker.rate) else []
    facts += [worker.doing] if worker.doing else []
    heard = "heard of" if worker.is_alive else "SILENT, last heard of"
    return ", ".join([*facts, f"{heard} {duration_words(worker.silent)} ago"])


def _of_lane(lane: LaneStanding) -> str:
    facts = [] if lane.per_second is None else [f"{lane.per_second:g}/s together"]
    if lane.paused_since is None:
        return ", ".join([*facts, "open"])
    facts.append(f"paused since {local_time(lane.paused_since)}: the service is down")
    if lane.paused_until is not None:
        facts.append(f"asked again at {local_time(lane.paused_until, short=True)}")
    return ", ".join(facts)
