"""A host of its own, a network namespace, with a cable to the database and one to the service, which may be cut.

It needs root. There are two ways to lose a cable, and nobody is told of either. It is taken out of its bridge, so that
nothing comes through. Or what is sent goes to a link that ends nowhere: the other side is heard, and never hears.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from attrs import frozen

NAMESPACES = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="a network is cut by root, with ip"
)
"""Marks the tests that need networks of their own."""

NUMBER = int("0" + re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")))
"""Tests that run side by side have a network each."""

NOBODY = "02:00:00:00:00:01"
"""The neighbour at the end of a link that ends nowhere: no link has this address."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@frozen
class Cable:
    """From a host to one of ours; `near` is our end's address, `far` the host's."""

    namespace: str
    number: int

    @property
    def near(self) -> str:
        return f"10.{80 + NUMBER}.{self.number}.1"

    @property
    def far(self) -> str:
        return f"10.{80 + NUMBER}.{self.number}.2"

    @property
    def bridge(self) -> str:
        return f"cb{self.number}-{os.getpid()}"

    @property
    def port(self) -> str:
        return f"cp{self.number}-{os.getpid()}"

    def lay(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge", "forward_delay", "0")
        ip("link", "set", self.bridge, "up")
        ip("address", "add", f"{self.near}/24", "dev", self.bridge)
        ip("link", "add", self.port, "type", "veth", "peer", "name", self.bridge, "netns", self.namespace)
        ip("-n", self.namespace, "address", "add", f"{self.far}/24", "dev", self.bridge)
        ip("-n", self.namespace, "link", "set", self.bridge, "up")
        ip("link", "set", self.port, "master", self.bridge, "up")

    def cut(self) -> None:
        """Let nothing through in either direction."""
        ip("link", "set", self.port, "nomaster")

    def mend(self) -> None:
        ip("link", "set", self.port, "master", self.bridge)

    def swallow(self) -> None:
        """Lose what is sent from there, silently; what is sent to there arrives."""
        dead = f"dead{self.number}"
        ip("-n", self.namespace, "link", "add", dead, "type", "veth", "peer", "name", f"{dead}-end")
        for link in (dead, f"{dead}-end"):
            ip("-n", self.namespace, "link", "set", link, "up")
        ip("-n", self.namespace, "neighbour", "add", self.near, "lladdr", NOBODY, "dev", dead, "nud", "permanent")
        ip("-n", self.namespace, "route", "add", f"{self.near}/32", "dev", dead, "src", self.far)

    def pass_on(self) -> None:
        """Lose nothing more of what is sent from there."""
        ip("-n", self.namespace, "link", "delete", f"dead{self.number}")


@frozen
class Elsewhere:
    """A host, and its cables."""

    namespace: str
    database: Cable
    service: Cable


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Make a host; nothing is left of it at the end."""
    name = f"cables-{os.getpid()}"
    made = Elsewhere(name, Cable(name, 1), Cable(name, 2))
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
        for cable in (made.database, made.service):
            cable.lay()
        yield made
    finally:
        gone = [("netns", "delete", name)]
        gone += [
            ("link", "delete", link) for cable in (made.database, made.service) for link in (cable.port, cable.bridge)
        ]
        for words in gone:
            subprocess.run(["ip", *words], check=False, capture_output=True, timeout=20)
