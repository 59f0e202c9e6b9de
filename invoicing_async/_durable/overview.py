"""The state of a run, as any process sees it: its counts, who works on it, what is to be exported, the authority."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Protocol, runtime_checkable

from attrs import field, frozen

from .._core.clock import Clock, RealClock
from ..models import AuthorityStatus
from .answers import authority_status
from .protocol import LedgerReader
from .records import Holder, Item
from .states import DocumentState, RunKind, State

__all__ = ["Authority", "Overview", "apparent_state", "count_without_file", "follow", "own_counts"]


def apparent_state(state: str, *, held: bool) -> str:
    """Return the state that a recorded one is: what was being sent is `in_flight`, or in doubt if its process is gone.

    `held` says that a process is at work on the run.
    """
    if state != State.SENDING:
        return state
    return "in_flight" if held else str(State.IN_DOUBT)


@frozen
class Authority:
    """How the finished invoices of a run stand with the tax authority: how many by status, and the first refused."""

    counts: Mapping[str, int] = field(factory=dict)
    refused: int = 0
    first: tuple[Item, ...] = ()

    @classmethod
    async def of(cls, ledger: LedgerReader, *, first: int = 10) -> Authority:
        """Look at every finished invoice; keep the `first` that are refused."""
        counts: Counter[str] = Counter()
        kept: list[Item] = []
        async with aclosing(ledger.items((State.SUCCESS,))) as items:
            async for item in items:
                status = authority_status(item)
                if status is not None:
                    counts[status] += 1
                if AuthorityStatus.refuses(status) and len(kept) < first:
                    kept.append(item)
        refused = sum(number for status, number in counts.items() if AuthorityStatus.refuses(status))
        return cls(dict(counts), refused, tuple(kept))


async def count_without_file(ledger: LedgerReader) -> int:
    """Count the finished invoices of a run that have not been exported."""
    return await ledger.count_without_file()


async def own_counts(ledger: LedgerReader) -> Mapping[str, int]:
    """Return by how many each state grew by what this process did; nothing of a file, which nobody shares."""
    return await ledger.own_counts() if isinstance(ledger, _Shared) else {}


@runtime_checkable
class _Shared(Protocol):
    async def own_counts(self) -> Mapping[str, int]: ...


@frozen
class Overview:
    """The counts of a run by state, zeros included, and who works on it: `holder` is the first, None if nobody does.

    `holders` are all of them: of a run in a file one at most, of one on a server any number. `in_flight` is what is
    being sent at this moment; without a holder it is in doubt.
    """

    kind: RunKind
    counts: Mapping[str, int]
    holder: Holder | None
    holders: tuple[Holder, ...] = ()

    @classmethod
    async def of(cls, ledger: LedgerReader) -> Overview:
        """Look at a run file, also while another process works on it."""
        # First the counts: what was being sent then, and has no holder now, is in doubt for good.
        recorded = await ledger.counts()
        holders = await ledger.holders()
        return cls(ledger.kind, cls.apparent(recorded, held=bool(holders)), next(iter(holders), None), holders)

    @staticmethod
    def apparent(recorded: Mapping[str, int], *, held: bool) -> dict[str, int]:
        """Return the counts of a file as they appear; `held` says that a process is at work on the run."""
        counts: Counter[str] = Counter()
        for state, number in recorded.items():
            counts[apparent_state(state, held=held)] += number
        return dict(counts)

    def recorded(self, states: Iterable[str]) -> list[str]:
        """Return the states of the file that appear as these: what `LedgerReader.items` takes."""
        wanted = frozenset(map(str, states))
        every = tuple(State) if self.kind is RunKind.INVOICES else tuple(DocumentState)
        return [state for state in every if apparent_state(state, held=self.holder is not None) in wanted]


async def follow(ledger: LedgerReader, *, every: float = 1.0, clock: Clock | None = None) -> AsyncGenerator[Overview]:
    """Follow a run that another process works on: how it stands now and after `every` seconds, until nobody holds it.

    The last is how it was left.
    """
    ticks = clock or RealClock()
    while True:
        seen = await Overview.of(ledger)
        yield seen
        if seen.holder is None:
            return
        await ticks.sleep(every)
