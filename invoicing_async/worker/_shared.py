"""What a worker needs of the ledger of a run that others work on too."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from .._durable.address import ServerAddress
from .._durable.protocol import Ledger

__all__ = ["Orders", "SharedLedger"]


class Orders(Protocol):
    """What a worker is told with its heartbeat."""

    @property
    def paused(self) -> bool:
        """Whether nothing of the run is to be sent for now."""

    @property
    def halted(self) -> bool:
        """Whether nothing of it is to be sent until a person has looked."""


@runtime_checkable
class SharedLedger(Ledger, Protocol):
    """A ledger of a run on a server: `run` is the run's number in the database."""

    run: int
    address: ServerAddress

    @property
    def worker_id(self) -> int:
        """The number that this process is registered with."""

    async def beat(self, doing: str | None = None, slots: int = 0) -> Orders:
        """Say that this worker lives, and return what it is told."""

    async def select(self, sql: str, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a statement; `run` is among its values."""

    async def sweep(self) -> int:
        """Put in doubt what was sent too long ago; return how many there were."""
