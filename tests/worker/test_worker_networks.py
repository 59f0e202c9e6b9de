"""Two workers of one run, of which one is on a host of its own that loses the database, the service, or both.

The other one, and a service that remembers for which host it made what, are here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from cables import NAMESPACES, Cable, Elsewhere, elsewhere
from postgres_server import Database, Servers
from short_form import IN_FULL
from worker_chaos import Host, Workers, eventually, host, look, queued_database, settle_doubts, workers
from worker_chaos_work import LATE, PLACES, TIMEOUTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.process,
    pytest.mark.timeout(300),
    NAMESPACES,
]

DRAFTS = 600
OPTIONS = {"every": 0.5, "chunk": 10}
KEEPALIVE = "&tcp_user_timeout=2000&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&connect_timeout=2"
"""Those of a connection, made short: the rule is the same, and the test need not last as long."""

SILENCE = 1.0
"""Seconds that the tests allow for what was under way on this machine when a cable was cut."""


@frozen
class Scene:
    """A worker here, one there, and the cables of that."""

    here: Workers
    there: Host
    cables: Elsewhere
    number: int
    """The worker's there, as it is registered."""

    @property
    def database(self) -> Database:
        return self.here.database

    def made_there(self, begun: float, ended: float) -> int:
        return len(self.here.made_between(begun, ended, host=self.cables.service.far))

    def made_here(self, begun: float, ended: float) -> int:
        return len(self.here.made_between(begun, ended, host=self.cables.service.near))

    def oldest_there(self) -> float:
        """Return for how many seconds the worker there has had the oldest of what it is sending."""
        [(seconds,)] = self.database.psql(
            "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(sent_at)), 0)::float8 FROM invoicing.items"
            " WHERE owner = %s AND state = 'sending'",
            self.number,
        )
        return float(seconds)

    def in_doubt(self) -> int:
        return self.here.in_states()["in_doubt"]

    def back_within(self, seconds: float, *, since: float, least: int) -> None:
        """Wait until the worker there has made so many since it may again."""
        eventually(lambda: self.made_there(since, time.time()) >= least, seconds=seconds)

    def rests(self) -> None:
        self.there.rest()
        self.here.rest()
        look(self.here)


@pytest.fixture
def scene(postgres_servers: Servers, tmp_path: Path) -> Iterator[Scene]:
    with elsewhere() as cables:
        server = postgres_servers(fsync=True, settings={"listen_addresses": cables.database.near})
        with (server.pgdata / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {cables.database.far}/32 trust\n")
        server.psql("SELECT pg_reload_conf()")
        database = queued_database(server)
        address = database.address(port=server.port, host=cables.database.near) + KEEPALIVE
        (tmp_path / "there").mkdir()
        with (
            workers(database, tmp_path, drafts=DRAFTS, seconds=0.3, at=cables.service.near) as here,
            host(tmp_path / "there", address, here.url, namespace=cables.namespace) as there,
        ):
            pid = there.start(**OPTIONS)
            here.start(**OPTIONS)
            known = "SELECT worker FROM invoicing.workers WHERE pid = %s"
            eventually(lambda: len(here.made()) >= DRAFTS // 10 and database.psql(known, pid), seconds=30)
            [(number,)] = database.psql(known, pid)
            yield Scene(here, there, cables, number)


WAYS = pytest.mark.parametrize(
    ("lose", "find"),
    [
        pytest.param(Cable.cut, Cable.mend, id="cut"),
        pytest.param(Cable.swallow, Cable.pass_on, id="half-open", marks=IN_FULL),
    ],
)
Loses = Callable[[Cable], None]


@contextmanager
def lost(lose: Loses, find: Loses, *cables: Cable) -> Iterator[float]:
    """Lose cables for a while; the time is that of the loss."""
    for cable in cables:
        lose(cable)
    try:
        yield time.time()
    finally:
        for cable in cables:
            find(cable)


@WAYS
def test_cut_off_from_the_database_it_sends_nothing_and_its_late_answers_settle_its_doubts(
    scene: Scene, lose: Loses, find: Loses
) -> None:
    """What it has in flight is put in doubt by the other one; when it is back, nothing is in doubt."""
    with lost(lose, find, scene.cables.database) as begun:
        eventually(lambda: scene.in_doubt() or not scene.oldest_there(), seconds=LATE + 3)
        doubts = scene.in_doubt()
        assert doubts <= PLACES
        time.sleep(6)
        now = time.time()
        assert scene.made_there(begun + TIMEOUTS.intent + SILENCE, now) == 0
        assert scene.made_here(now - 2, now) > 0
    back = time.time()
    scene.back_within(15, since=back, least=5)
    print(f"{doubts} were in doubt, and there was the first after {time.time() - back:.1f} s")  # noqa: T201 - with -s
    scene.rests()
    assert scene.here.in_states() == {"success": DRAFTS}


@IN_FULL
@WAYS
def test_cut_off_from_the_service_it_waits_no_longer_than_an_attempt(scene: Scene, lose: Loses, find: Loses) -> None:
    """No more is in doubt than it had in flight, and by its own word; the other one goes on."""
    with lost(lose, find, scene.cables.service) as begun:
        until = time.monotonic() + 6
        while time.monotonic() < until:
            assert scene.oldest_there() <= TIMEOUTS.attempt + SILENCE
            time.sleep(0.1)
        now = time.time()
        assert scene.made_there(begun + SILENCE, now) == 0
        assert scene.made_here(now - 2, now) > 0
    back = time.time()
    scene.back_within(15, since=back, least=5)
    scene.rests()
    doubts = scene.in_doubt()
    assert doubts <= PLACES
    assert scene.here.in_states() == Counter(success=DRAFTS - doubts, in_doubt=doubts)
    assert scene.database.psql("SELECT count(*) FROM invoicing.journal WHERE event = 'crashed'") == [(0,)]
    settle_doubts(scene.here)
    scene.here.start()
    scene.here.rest()
    look(scene.here)
    assert scene.here.in_states() == {"success": DRAFTS}


@IN_FULL
def test_cut_off_from_both_it_leaves_its_work_to_the_other_and_comes_back(scene: Scene) -> None:
    """Longer than its chunks are kept for it: the other one has taken them over."""
    with lost(Cable.cut, Cable.mend, scene.cables.database, scene.cables.service) as begun:
        eventually(lambda: set(scene.here.in_states()) <= {"success", "in_doubt"}, seconds=60)
        assert scene.in_doubt() <= PLACES
        assert scene.made_there(begun + SILENCE, time.time()) == 0
    scene.rests()
    doubts = scene.in_doubt()
    assert doubts <= PLACES
    settle_doubts(scene.here)
    scene.here.start()
    scene.here.rest()
    look(scene.here)
    assert scene.here.in_states() == {"success": DRAFTS}
