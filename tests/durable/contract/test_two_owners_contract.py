"""Two who work on one run, whose moves interleave anyhow and who crash anywhere: never twice, and no answer is lost.

Each does what a submission does: it reads an item, records the intent of its next attempt, sends it if that is fresh,
and records the answer, which may come at any time later. Beside them what was being sent for too long is swept into
doubt, and a person settles doubts, rightly or wrongly. After any number of moves both crash, and it is all finished.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeAlias

import pytest
from attrs import define, field
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from ledger_places import Place, Places
from ledgers import INVOICES, Item, draft
from run_services import KEYS, Service, invoices, listed
from run_services import draft as invoice

from invoicing_async._durable.protocol import Ledger
from invoicing_async._durable.records import Change, SupersededError
from invoicing_async._durable.states import SENDABLE, Event, State, replay
from invoicing_async.runs import InvoiceRun

Move: TypeAlias = Callable[[], Awaitable[None]]


@define
class Books:
    """Of one item: what the service has made, which requests were recorded, and how often a person was wrong."""

    key: str
    created: list[str] = field(factory=list)
    answered: set[str] = field(factory=set)
    wrong_words: int = 0


@define
class Held:
    """An attempt that an owner has begun: whether it has been sent, what was made of it, and whether it was swept."""

    attempt: int
    is_sent: bool = False
    request_id: str | None = None
    is_swept: bool = False


@define
class Owner:
    """One who sends an item, with what it last read of it and the attempt that it has begun."""

    ledger: Ledger
    books: Books
    read: Item | None = None
    held: Held | None = None

    def moves(self) -> list[tuple[Move, int]]:
        """Return what it can do now, each as often as it is to be drawn."""
        if self.held is None:
            can_send = self.read is not None and self.read.state in SENDABLE
            return [(self.look, 2), (self.intend, 5 * can_send)]
        if self.held.is_sent:
            return [(self.answer, 4), (self.wait, 12), (self.lose, 1), (self.crash, 1)]
        fresh = not self.held.is_swept
        return [
            (self.send, 8 * fresh),
            (self.be_refused, 4 * fresh),
            (self.wait, 6),
            (self.give_up, 2),
            (self.crash, 1),
        ]

    async def look(self) -> None:
        self.read = await self.ledger.get(self.books.key)

    async def intend(self) -> None:
        item, self.read = self.read, None
        assert item is not None
        if await self.is_made(Change(ref=item.seq, event=Event.INTENT, attempt=item.attempt)):
            self.held = Held(item.attempt + 1)

    async def send(self) -> None:
        assert self.held is not None
        self.held.is_sent, self.held.request_id = True, f"{self.books.key}-{len(self.books.created)}"
        self.books.created.append(self.held.request_id)

    async def be_refused(self) -> None:
        assert self.held is not None
        self.held.is_sent = True

    async def answer(self) -> None:
        assert self.held is not None
        request_id = self.held.request_id
        await self.end(Event.REFUSED_FOR_NOW if request_id is None else Event.ACCEPTED_NEW, request_id)
        self.books.answered |= {request_id} if request_id is not None else set()

    async def give_up(self) -> None:
        await self.end(Event.NOT_SENT)

    async def lose(self) -> None:
        await self.end(Event.LOST)

    async def end(self, event: Event, request_id: str | None = None) -> None:
        held, self.held = self.held, None
        assert held is not None
        await self.is_made(Change(ref=self.books.key, event=event, attempt=held.attempt, request_id=request_id))

    async def crash(self) -> None:
        self.held = None

    async def wait(self) -> None:
        """Do nothing while the others do something."""

    async def is_made(self, change: Change) -> bool:
        try:
            await self.ledger.transition_many([change])
        except SupersededError:
            return False
        return True


@define
class Others:
    """The sweep, and a person who settles doubts."""

    ledger: Ledger
    books: Books
    owners: tuple[Owner, Owner]

    async def item(self) -> Item:
        item = await self.ledger.get(self.books.key)
        assert item is not None
        return item

    async def sweep(self) -> None:
        """Put it in doubt if it is being sent: so long after its intent that nothing leaves or arrives any more."""
        item = await self.item()
        if item.state == State.SENDING:
            await self.ledger.transition(item.seq, Event.CRASHED)
            for owner in self.owners:
                if owner.held is not None and owner.held.attempt == item.attempt:
                    owner.held.is_swept = True

    async def settle(self, *, wrongly: bool = False, number: int = 0) -> None:
        """Say of a doubt what the service's books say, or that nothing is there though something is."""
        item, made = await self.item(), self.books.created
        if item.state != State.IN_DOUBT:
            return
        said, request_id = Event.RESOLVED_NOT_CREATED, None
        if made and not wrongly:
            said, request_id = Event.RESOLVED_CREATED, made[number % len(made)]
        self.books.wrong_words += bool(made) and wrongly
        await self.ledger.transition_many([Change(ref=item.seq, event=said, request_id=request_id)])


async def check_item(ledger: Ledger, item: Item, books: Books) -> None:
    assert len(books.created) <= 1 + books.wrong_words, "sent twice without a person's word"
    history = await ledger.history(item.seq)
    assert books.answered <= {entry.detail.get("request_id") for entry in history}, "an answer is lost"
    if books.wrong_words <= 1:  # of three invoices the item can name two, and the journal all
        assert books.answered <= {item.request_id, item.other_request_id}, "an answer is lost"
    assert replay([entry.event for entry in history]) == item.state


async def play(ledgers: tuple[Ledger, Ledger], key: str, chance: Random) -> None:
    """Do any number of moves with one item, let both owners crash, and finish it; look at it both times."""
    books = Books(key)
    owners = Owner(ledgers[0], books), Owner(ledgers[1], books)
    others = Others(ledgers[1], books, owners)
    for _ in range(chance.randint(1, 30)):
        if chance.random() < 0.3:
            await others.sweep()
            if chance.random() < 0.8:
                await others.settle(wrongly=chance.random() < 0.7, number=chance.randint(0, 1))
            continue
        owner = chance.choice(owners)
        for _ in range(chance.randint(1, 4)):
            moves, often = zip(*owner.moves(), strict=True)
            [move] = chance.choices(moves, often)
            await move()
    await check_item(ledgers[0], await others.item(), books)
    await finish(owners, others)
    item = await others.item()
    await check_item(ledgers[1], item, books)
    assert item.state == State.SUBMITTED or item.other_request_id is not None
    if not books.wrong_words:
        assert ([item.request_id], item.other_request_id) == (books.created, None)


async def finish(owners: tuple[Owner, Owner], others: Others) -> None:
    """Let both owners crash, and what is left be done by one of them and a person who looks everything up."""
    for owner in owners:
        await owner.crash()
    await others.sweep()
    await others.settle()
    last = owners[1]
    await last.look()
    if last.read is not None and last.read.state in SENDABLE:
        await last.intend()
        if last.held is not None:
            await last.send()
            await last.answer()


ITEMS = 25


@examples(14)
@given(seed=st.integers(0, 2**32))
def test_two_who_crash_anywhere_send_nothing_twice_and_lose_no_answer(places: Places, seed: int) -> None:
    """Many items at once, so that their changes share commits, each with moves of its own."""
    place = places()

    async def run() -> None:
        async with place.open(INVOICES) as ledger, place.beside(ledger) as second:
            keys = [f"k{number}" for number in range(ITEMS)]
            await ledger.add_drafts(map(draft, keys))
            await asyncio.gather(*(play((ledger, second), key, Random(f"{seed} {key}")) for key in keys))
            assert sum((await second.counts()).values()) == ITEMS

    asyncio.run(run())


@pytest.mark.asyncio
async def test_of_two_runs_at_work_at_once_each_item_is_sent_by_one(place: Place) -> None:
    """Each yields every item that it has read, as it then stands, whoever has sent it."""
    services = Service(), Service()
    async with (
        place.open(INVOICES) as ledger,
        place.beside(ledger) as second,
        invoices(services[0]) as client,
        invoices(services[1]) as other_client,
    ):
        await InvoiceRun(ledger).add(map(invoice, KEYS))
        runs = zip((InvoiceRun(ledger), InvoiceRun(second)), (client, other_client), strict=True)
        told = await asyncio.gather(*(listed(run.submit(through)) for run, through in runs))
        assert services[0].submissions + services[1].submissions == dict.fromkeys(KEYS, 1)
        assert [item.state for item in await ledger.rows()] == ["submitted"] * len(KEYS)
        assert {item.key for items in told for item in items} == {*KEYS}
