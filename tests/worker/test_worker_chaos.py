"""Two workers of one run, killed and stopped at random moments: nothing is lost, and nothing made twice.

In full, 1,000 kills and 200 stops over runs of 2,000 invoices, about an hour:

    CHAOS_KILLS=1000 CHAOS_STOPS=200 pytest -s -m slow tests/worker/test_worker_chaos.py

`CHAOS_SEED` is another series of moments; without the numbers, or with `INVOICING_SHORT=1`, it is 20 kills and 6 stops.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest
from attrs import define, field
from postgres_server import Servers
from short_form import SHORT
from worker_chaos import Workers, crashed_of_owners, look, queued_database, settle_doubts, workers
from worker_chaos_work import LATE, PLACES

pytestmark = [pytest.mark.slow, pytest.mark.process]

KILLS = 20 if SHORT else int(os.environ.get("CHAOS_KILLS", "20"))
STOPS = 6 if SHORT else int(os.environ.get("CHAOS_STOPS", "6"))
SEED = int(os.environ.get("CHAOS_SEED", "13"))
KILLS_OF_A_RUN = 20
INVOICES = 2000
SECONDS = 0.08
"""Within which the service answers: long enough that a mishap finds most places taken."""

STANDS = (0.3, 1.2, LATE, LATE + 3.0)
"""Seconds for which a worker stands still: within its intent, within its attempt, and beyond both."""


@define
class Chaos:
    """One run: what is done to its workers, and what that may have left."""

    workers: Workers
    random: Random
    counted: Counter[str] = field(factory=Counter)

    def befall(self, kills: int, stops: int) -> None:
        """Kill and stop, spread over the run by how much of it is made."""
        mishaps = [self.kill] * kills + [self.stop] * stops
        self.random.shuffle(mishaps)
        self.workers.start()
        self.workers.start()
        for number, mishap in enumerate(mishaps, 1):
            self.workers.until_made(number * INVOICES // (len(mishaps) + 4), seconds=3)
            time.sleep(self.random.random() * 0.3)
            mishap()
            look(self.workers)

    def kill(self) -> None:
        """Kill -9; another takes its place."""
        self.counted["kills"] += 1
        self.workers.kill(self.random.choice(self.workers.lives))
        self.workers.start()

    def stop(self) -> None:
        """Stop one, and wake it; beyond every lease a person has settled its doubts meanwhile, and others sent them."""
        self.counted["stops"] += 1
        stopped = self.random.choice(self.workers.lives)
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(self.random.choice(STANDS))
        if self.random.random() < 0.5:
            self.counted.update(settle_doubts(self.workers, at_once=True))
            time.sleep(self.random.random() * 0.5)
        os.kill(stopped, signal.SIGCONT)

    def ends(self) -> None:
        """Left alone, and with every doubt settled by what the service made, each draft is one invoice."""
        begun = time.monotonic()
        self.workers.rest()
        self.counted["seconds to rest"] += round(time.monotonic() - begun)
        left = self.workers.in_states()
        assert set(left) <= {"success", "in_doubt"}, left
        look(self.workers)
        crashed = crashed_of_owners(self.workers)
        self.counted["put in doubt"] += sum(crashed.values())
        assert all(count <= PLACES * (1 + self.counted["stops"]) for count in crashed.values()), crashed
        assert sum(crashed.values()) <= PLACES * (self.counted["kills"] + self.counted["stops"])
        self.counted["in doubt at the end"] += left["in_doubt"]
        self.counted.update(settle_doubts(self.workers))
        self.workers.start()
        self.workers.rest()
        look(self.workers)
        assert self.workers.in_states() == {"success": INVOICES}
        assert len(self.workers.made()) == INVOICES


@pytest.mark.timeout(7200)
def test_no_kill_and_no_stop_makes_an_invoice_twice_or_loses_one(postgres_servers: Servers, tmp_path: Path) -> None:
    """No more are put in doubt than there were places in flight."""
    counted: Counter[str] = Counter()
    server = postgres_servers(fsync=True)
    for number in range(0, KILLS, KILLS_OF_A_RUN):
        kills = min(KILLS_OF_A_RUN, KILLS - number)
        stops = STOPS * (number + kills) // KILLS - STOPS * number // KILLS
        folder, database = tmp_path / str(number), queued_database(server)
        folder.mkdir()
        with workers(database, folder, drafts=INVOICES, seconds=SECONDS) as found:
            chaos = Chaos(found, Random(SEED + number))
            chaos.befall(kills, stops)
            chaos.ends()
        database.drop()
        counted.update(chaos.counted)
        print(number, dict(counted))  # noqa: T201 - what befell and what came of it, for whoever runs it with -s
    assert (counted["kills"], counted["stops"]) == (KILLS, STOPS)
