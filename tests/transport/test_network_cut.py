"""A submission that was given up while the network was cut never arrives, however it was given up.

Two network namespaces and a bridge between them, which needs root; everything is in one test, as it has to wait.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme
from attrs import define, field, frozen
from cables import NAMESPACES, ip
from network_work import ADDRESS, GIVEN_UP, PORTS
from places import SUPPORT
from short_form import SHORT

HEALED = 12.0 if SHORT else 30.0
"""Seconds to wait after the network is whole again: a kernel would send again within ten."""

PATIENCE = 60.0
WORK = SUPPORT / "network_work.py"


@frozen
class Way:
    """One way to give a submission up."""

    scheme: str
    end: str
    flavour: str = "asyncio"

    @property
    def key(self) -> str:
        return f"{self.scheme} {self.end} {self.flavour}"


ENDS = ("time-out", "cancellation", "kill -9")
WAYS = [
    *[Way(scheme, end) for scheme in PORTS for end in ENDS],
    *[Way(scheme, "time-out", flavour) for scheme in PORTS for flavour in ("uvloop", "client")],
    *[Way(scheme, "kill -9", "uvloop") for scheme in PORTS],
]
CONTROLS = [Way("http", end, "plain") for end in ENDS]
"""The same with sockets as others make them: what these send does arrive, so that the wait is long enough to tell."""


@frozen
class Network:
    """Three namespaces: a client's, a service's, and a bridge that holds them together."""

    client: str
    service: str
    bridge: str

    def cut(self) -> None:
        ip("-n", self.bridge, "link", "set", "to-client", "nomaster")

    def heal(self) -> None:
        ip("-n", self.bridge, "link", "set", "to-client", "master", "bridge")


@contextmanager
def network() -> Iterator[Network]:
    made = Network(*(f"invoicing-{part}-{os.getpid()}" for part in ("client", "service", "bridge")))
    names = (made.client, made.service, made.bridge)
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("-n", made.bridge, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
        ip("-n", made.bridge, "link", "set", "bridge", "up")
        for name, port, address in ((made.client, "to-client", "10.77.0.1"), (made.service, "to-service", ADDRESS)):
            ip("-n", name, "link", "add", "wire", "type", "veth", "peer", "name", port, "netns", made.bridge)
            ip("-n", name, "address", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "wire", "up")
            ip("-n", made.bridge, "link", "set", port, "master", "bridge", "up")
        yield made
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True, timeout=20)


@define
class Process:
    """A process of `network_work` in a namespace, and the lines it said."""

    process: subprocess.Popen[str]
    lines: list[str] = field(factory=list)

    def follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def await_line(self, line: str) -> None:
        until = time.monotonic() + PATIENCE
        while line not in self.lines:
            assert time.monotonic() < until, f"{line!r} did not come; there was {self.lines}"
            time.sleep(0.01)

    def tell(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextmanager
def started(namespace: str, *words: str) -> Iterator[Process]:
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, WORK, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    made = Process(process)
    follower = threading.Thread(target=made.follow)
    follower.start()
    try:
        yield made
    finally:
        process.kill()
        process.wait()
        follower.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def certificate(folder: Path) -> str:
    authority = trustme.CA()
    path = folder / "service.pem"
    authority.issue_cert(ADDRESS).private_key_and_cert_chain_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(path), append=True)
    return str(path)


def give_up(clients: dict[Way, Process]) -> None:
    """Have each client submit into the cut, and wait until all of them have given up."""
    for client in clients.values():
        client.tell()
    time.sleep(GIVEN_UP)
    for way, client in clients.items():
        if way.end == "kill -9":
            client.process.kill()
    for way, client in clients.items():
        if way.end != "kill -9":
            client.await_line("in doubt" if way.end == "time-out" else "cancelled")


@pytest.mark.slow
@pytest.mark.timeout(240)
@NAMESPACES
def test_what_was_given_up_while_the_network_was_cut_never_arrives(tmp_path: Path) -> None:
    """Nothing arrives after the end, by time-out, cancellation or kill -9; with sockets of others all of it does."""
    pem = certificate(tmp_path)
    with ExitStack() as stack:
        net = stack.enter_context(network())
        service = stack.enter_context(started(net.service, "service", pem))
        service.await_line("ready")
        clients = {way: stack.enter_context(started(net.client, *words(way, pem))) for way in (*WAYS, *CONTROLS)}
        for word in ("ready", "warm"):
            for client in clients.values():
                client.await_line(word)
            if word == "ready":
                for client in clients.values():
                    client.tell()
        net.cut()
        give_up(clients)
        net.heal()
        time.sleep(HEALED)
        arrived = {line.removeprefix("arrived ") for line in service.lines if line.startswith("arrived ")}
    assert {f"{way.key} before" for way in clients} <= arrived
    assert {way.key for way in CONTROLS} <= arrived, "the network was not cut, or the wait is too short to tell"
    assert arrived & {way.key for way in WAYS} == set()


def words(way: Way, pem: str) -> tuple[str, ...]:
    url = f"{way.scheme}://{ADDRESS}:{PORTS[way.scheme]}"
    return "client", url, way.key, way.end, way.flavour, pem
