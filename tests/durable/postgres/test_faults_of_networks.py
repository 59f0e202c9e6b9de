"""A worker on a host of its own, which is cut off from the database or from the service while it works.

The host is a network namespace, which needs root. A cable is cut by taking it out of its bridge: nobody is told, and
whoever sends hears nothing.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import fault_work
import pytest
from attrs import frozen
from cables import NAMESPACES, ip
from ledger_faults import PLACES, Service, all_made_once, eventually, remembering, states, working
from postgres_server import Database, Servers
from short_form import IN_FULL

pytestmark = [
    pytest.mark.process,
    pytest.mark.asyncio,
    NAMESPACES,
]

DRAFTS = 300
DATABASE, SERVICE = "10.79.1", "10.79.2"
KEEPALIVE = "&tcp_user_timeout=2000&keepalives_idle=1&keepalives_interval=1&keepalives_count=2&connect_timeout=2"
"""Those of a connection, made short: the rule is the same, and the test need not last as long."""


@frozen
class Cable:
    """From the worker's host to one of ours."""

    bridge: str
    port: str

    def cut(self) -> None:
        ip("link", "set", self.port, "nomaster")

    def mend(self) -> None:
        ip("link", "set", self.port, "master", self.bridge)


@frozen
class Host:
    """The worker's host, and its cables."""

    name: str
    database: Cable
    service: Cable


@contextmanager
def host() -> Iterator[Host]:
    name = f"invoicing-{os.getpid()}"
    cables = {
        net: Cable(f"br{number}-{os.getpid()}", f"po{number}-{os.getpid()}")
        for number, net in enumerate((DATABASE, SERVICE))
    }
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        for net, cable in cables.items():
            ip("link", "add", cable.bridge, "type", "bridge", "forward_delay", "0")
            ip("link", "set", cable.bridge, "up")
            ip("address", "add", f"{net}.1/24", "dev", cable.bridge)
            ip("link", "add", cable.port, "type", "veth", "peer", "name", cable.bridge, "netns", name)
            ip("-n", name, "address", "add", f"{net}.2/24", "dev", cable.bridge)
            ip("-n", name, "link", "set", cable.bridge, "up")
            ip("link", "set", cable.port, "master", cable.bridge, "up")
        yield Host(name, cables[DATABASE], cables[SERVICE])
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)
        for cable in cables.values():
            for link in (cable.port, cable.bridge):
                subprocess.run(["ip", "link", "delete", link], check=False, capture_output=True, timeout=20)


@pytest.fixture
def elsewhere() -> Iterator[Host]:
    with host() as made:
        yield made


@pytest.fixture
def database(elsewhere: Host, postgres_servers: Servers) -> Database:
    """On a server that listens on the cable."""
    server = postgres_servers(settings={"listen_addresses": f"{DATABASE}.1"})
    with (server.pgdata / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {DATABASE}.0/24 trust\n")
    server.psql("SELECT pg_reload_conf()")
    return server.database()


@asynccontextmanager
async def worker(there: Host, database: Database, service: Service, log: Path) -> AsyncIterator[None]:
    """Start a worker there, and wait for its end; what it says is in the file."""
    address = database.address(port=database.server.port, host=f"{DATABASE}.1") + KEEPALIVE
    words = ("ip", "netns", "exec", there.name, sys.executable, fault_work.__file__, address, service.url, "0")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(*words, env=environment, stderr=said)
    try:
        yield
        await asyncio.wait_for(process.wait(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


@IN_FULL
async def test_a_worker_that_is_cut_off_from_the_database_finds_out_and_goes_on(
    elsewhere: Host, database: Database, tmp_path: Path
) -> None:
    """It sends nothing meanwhile. What is swept as its own is settled by its late answers."""
    log = tmp_path / "said"
    async with (
        remembering(0.03, host=f"{SERVICE}.1") as service,
        working(database.address(), service, drafts=DRAFTS, timeouts=fault_work.TIMEOUTS) as here,
    ):
        async with worker(elsewhere, database, service, log):
            await service.until_made(DRAFTS // 4)
            elsewhere.database.cut()
            await eventually(lambda: "waits until it is back" in log.read_text(), seconds=8)
            before = len(service.made)
            assert before < DRAFTS
            await asyncio.sleep(fault_work.LATE)
            await here.ledger.sweep()
            assert len(service.made) == before
            elsewhere.database.mend()
        await all_made_once(here, service, DRAFTS)


async def test_a_worker_that_is_cut_off_from_the_service_has_no_more_in_doubt_than_was_on_its_way(
    elsewhere: Host, database: Database, tmp_path: Path
) -> None:
    async with (
        remembering(0.03, host=f"{SERVICE}.1") as service,
        working(database.address(), service, drafts=DRAFTS, timeouts=fault_work.TIMEOUTS) as here,
    ):
        async with worker(elsewhere, database, service, tmp_path / "said"):
            await service.until_made(DRAFTS // 4)
            elsewhere.service.cut()
            await asyncio.sleep(2 * fault_work.TIMEOUTS.attempt)
            elsewhere.service.mend()
        assert service.twice == []
        found = await states(here.ledger)
        assert found.get("in_doubt", 0) <= PLACES
        assert found["success"] + found.get("in_doubt", 0) == DRAFTS
