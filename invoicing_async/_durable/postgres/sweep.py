"""What is put in doubt since nobody can say what became of it: old intents, and after a halt all that may have left."""

from __future__ import annotations

from functools import partial

from ..records import Change
from ..states import Event
from .arrays import array
from .recorder import Recorder
from .session import Session
from .statements import DOUBTFUL, HALT, HALTED, LEFT_NOW, OUTDATED, UNHALT
from .transitions import TOGETHER, Refusal, change_in_turn, change_items

__all__ = ["sweep_part", "unhalt_run"]


async def sweep_part(session: Session) -> tuple[int, bool]:
    """Put in doubt what is being sent for longer than it may still arrive.

    Return how many there were, and whether more may be left. Whoever sent one may still record what became of it.
    """
    found = await session.rows(OUTDATED, session.run, session.clock.parameter(), TOGETHER)
    if not found:
        return 0, False
    said = "whoever sent this has not said in time what became of it"
    changes = [Change(ref=seq, event=Event.CRASHED, error=said, attempt=attempt) for seq, attempt in found]
    told = await change_items(session, [seq for seq, _ in found], changes, within=True)
    return sum(not isinstance(one, Refusal) for one in told), len(found) == TOGETHER


async def unhalt_run(recorder: Recorder, doubt_since: float, *, restored: bool) -> int:
    """Let a halted run go on, when all that may have been sent since then is in doubt; return how many those are.

    With `restored` one that nobody has halted is halted first.
    """
    if restored:
        await recorder.do(halt)
    halted: float | None = await recorder.do(halted_at)
    doubts, after, count = 0, 0, 1
    while halted is not None and doubt_since <= halted and count:
        count, after = await recorder.do(partial(doubt_part, before=halted, after=after))
        doubts += count
    await recorder.do(unhalt)
    return doubts


async def doubt_part(session: Session, *, before: float, after: int) -> tuple[int, int]:
    """Put in doubt some of what may have been sent before a time; return how many, and the number of the last one."""
    found = [seq for (seq,) in await session.rows(DOUBTFUL, session.run, before, after, TOGETHER)]
    if not found:
        return 0, after
    said = "the database came back older, and with it whether this was sent is lost"
    await change_in_turn(session, [Change(ref=seq, event=Event.LOG_LOST, error=said) for seq in found])
    await session.rows(LEFT_NOW, session.run, array(found))
    return len(found), found[-1]


async def halted_at(session: Session) -> float | None:
    """Return when the run was halted, None if it is not."""
    row = await session.row(HALTED, session.run)
    return None if row is None else row[0]


async def halt(session: Session) -> None:
    await session.rows(HALT, session.run, session.clock.parameter(), "its database was restored")


async def unhalt(session: Session) -> None:
    await session.rows(UNHALT, session.run)
