"""How a run stands, on a terminal: its states with what happened when, and what is to be done about each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from ...reports import duration_words, sparkline, tasks_of
from ...runs import Pause, Timeline
from ..summary import authority_note, style_of, words
from ..terminal.output import Output, plain
from ..terminal.times import local_time
from .run_view import RunView

__all__ = ["show_table", "show_tasks"]

NARROW, WIDE = 16, 40
"""The least and the most columns of a line of blocks."""

BESIDE = 66
"""Columns that stand beside it."""


async def show_table(view: RunView, output: Output) -> None:
    """Show the states of a run as a table, and what happened when if that can be drawn here."""
    timeline, pauses = await view.ledger.timeline(), await view.ledger.pauses()
    width = max(NARROW, min(WIDE, output.out.width - BESIDE))
    draws = output.out.encoding.lower().startswith("utf") and bool(timeline.stretches)
    names = {*timeline.stretches[0].bars} if draws else set[str]()
    rows = [
        [
            Text(f"   {words(state)}", style_of(view.row_type, state)),
            Text(f"{count:,}"),
            Text(sparkline(timeline, state, pauses, width=width) if state in names else ""),
            Text(meaning, "dim"),
        ]
        for state, meaning in view.row_type.outcomes.items()
        if (count := view.counts.get(state))
    ]
    total = f"{sum(view.counts.values()):,}"
    rows.append([Text("   total", "bold"), Text(total, "bold"), Text(), Text()])
    output.say(f"\n {view.row_type.title} of {view.file}", "bold")
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, number, line, meaning in rows if not output.quiet else ():
        name.pad_right(wide[0] - len(name))
        number.pad_left(wide[1] - len(number))
        line.pad_right(wide[2] - len(line))
        output.out.print(Text("  ").join((name, number, line, meaning)), no_wrap=True, overflow="ellipsis")
    for note in _notes(view, timeline, pauses):
        output.say(f"   {note}", "dim", cut=True)


def _notes(view: RunView, timeline: Timeline, pauses: Sequence[Pause]) -> Iterator[str]:
    if timeline.stretches:
        last = timeline.stretches[-1]
        ended = last.begun + last.length * timeline.step
        times = len(timeline.stretches)
        apart = f", at work {times} times" if times > 1 else ""
        yield f"from {local_time(timeline.stretches[0].begun)} to {local_time(ended)}{apart}"
    if pauses:
        longest = max(pause.until - pause.begun for pause in pauses)
        several = "s" if len(pauses) > 1 else ""
        yield f"{len(pauses):,} pause{several}, {duration_words(longest)} at most: the service was down"
    if view.authority.counts:
        yield authority_note(view.authority.counts)


def show_tasks(view: RunView, output: Output) -> None:
    """Show what is left to do, and the commands for it."""
    tasks = (
        [] if view.moved else list(tasks_of(view.ledger.kind, view.counts, view.file, refused=view.authority.refused))
    )
    steps = list(view.steps(each=False)) if not tasks else []
    if tasks or steps:
        output.say("\n Next")
    for task in tasks:
        output.say(f"   {task.count:,} {task.title[0].lower()}{plain(task.title[1:])}", "yellow")
        output.say(f"     {task.what}", "dim")
        for command in task.commands:
            output.say(f"     {command}")
    for step in steps:
        output.say(f"   {step}")
