"""What is recorded of a run beside its items, and what is done with many of them: each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from ..records import Change, Pause, json_text
from ..states import RESOLUTIONS, Event
from . import statements
from .session import Session
from .transitions import change_in_turn, find_seq

__all__ = ["RunOrders", "beat", "keep_late", "pause_run", "undo", "unpause_run", "update_settings", "write_pause"]


@frozen
class RunOrders:
    """What a worker is told with its heartbeat: to send nothing while the run is paused, or halted."""

    paused: bool
    halted: bool


async def update_settings(session: Session, settings: Mapping[str, object]) -> None:
    await session.rows(statements.UPDATE_SETTINGS, session.run, json_text(settings))


async def keep_late(session: Session, late: float) -> float:
    """Keep the longest, and return it."""
    row = await session.row(statements.KEEP_LATE, session.run, late)
    return late if row is None else float(row[0])


async def write_pause(session: Session, pause: Pause) -> None:
    values = (pause.operation, pause.begun, pause.until, str(pause.is_over).lower())
    await session.rows(statements.WRITE_PAUSE, session.run, *values)


async def undo(session: Session, ref: int | str) -> None:
    """Take back how a doubt was settled, if nothing has followed from it."""
    seq = await find_seq(session, ref)
    if await session.row(statements.LOCK_ITEM, session.run, seq) is None:
        raise ValueError(f"this run has no item {ref!r}")
    last = await session.row(statements.LAST_EVENT, session.run, seq, Event.POLL_NEW.value)
    if last is None or last[0] not in {event.value for event in RESOLUTIONS}:
        raise ValueError(f"{ref!r} was not settled by hand, or has been sent or answered since")
    said = "how it was settled was taken back"
    await change_in_turn(session, [Change(ref=seq, event=Event.RESOLUTION_UNDONE, error=said)])
    await session.rows(statements.FORGET_REQUEST, session.run, seq)


async def beat(session: Session, doing: str | None, slots: int) -> RunOrders:
    """Say that a worker lives, and what it does."""
    now = session.clock.parameter()
    row = await session.row(statements.BEAT, session.run, session.worker, now, doing, slots)
    return RunOrders(paused=bool(row and row[0]), halted=bool(row and row[1]))


async def pause_run(session: Session) -> None:
    await session.rows(statements.PAUSE_RUN, session.run, session.clock.parameter())


async def unpause_run(session: Session) -> None:
    await session.rows(statements.UNPAUSE_RUN, session.run)
