"""What of a run needs a person, and the command that settles each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, field, frozen

from ..repair import too_early_for
from ..runs import Item, RunFigures, RunKind, State
from ._commands import answer_commands, command_line, doubt_commands, retry_command
from ._row_types import Row
from ._rows import item_row

__all__ = ["Task", "TaskItem", "spoken", "task_items", "tasks_of"]

LONGEST_KEY = 200
"""Characters of a key beyond which it is not typed: then the sheet of all doubts is the way."""


@frozen(kw_only=True)
class TaskItem:
    """One item that needs a person: since when, what was said of it, and the commands that settle it.

    `not_before` is the moment, in epoch seconds, from which the last of these may be given; None if that is any time.
    """

    key: str
    at: float | None
    said: tuple[str, ...]
    request_id: str | None = None
    commands: tuple[str, ...] = ()
    not_before: float | None = None


@frozen(kw_only=True)
class Task:
    """What a person has to do about `count` items: those that are listed, and `more` of them."""

    name: str
    title: str
    count: int
    what: str
    commands: tuple[str, ...] = ()
    items: tuple[TaskItem, ...] = field(default=(), repr=False)

    @property
    def more(self) -> int:
        """How many are not listed."""
        return self.count - len(self.items) if self.items else 0


_CLASS = re.compile(r"^[A-Z]\w*(?:Error|Exception): ")
_WHAT: Mapping[str, tuple[str, str]] = {
    "in_doubt": (
        "In doubt",
        "It left, and no usable answer came: it may have been made. Look each one up, then say what you found.",
    ),
    "refused": (
        "Refused by the tax authority",
        "The invoice was made and does not stand. See to it with the authority; the command asks how it stands now.",
    ),
    "rejected": (
        "Rejected",
        "The service refused it; no invoice was made. Mend the cause, then let it be sent again.",
    ),
    "failed": (
        "Failed",
        "The service took it and could not make it; that is final. Submit the corrected invoice under a new key.",
    ),
    "invalid": (
        "Invalid",
        "The draft breaks the documented limits and was never sent. Correct it and submit its file to this run again.",
    ),
    "not_exported": (
        "Without a file",
        "The invoice was made, and its document could not be saved. The command tries again.",
    ),
    "left": (
        "Not done yet",
        "Nothing of it was sent, or it was refused for now, or the service is at work on it. The command goes on.",
    ),
}
_OF_DOCUMENTS: Mapping[str, tuple[str, str]] = {
    "failed": ("Failed", "There is no document, and what was said is why. The command asks for it again."),
    "deferred": ("Deferred", "The order is not eligible yet (ORDER_021). The command asks for it again, later."),
    "left": ("Not done yet", "It was not asked for yet, or is to be fetched anew. The command goes on."),
}


def tasks_of(
    kind: RunKind, counts: Mapping[str, int], file: str, *, refused: int = 0, lost_exports: int = 0
) -> Iterator[Task]:
    """Yield what is to be done, the most urgent first; `counts` are the items by state as `Overview` has them.

    The tax authority refuses `refused` invoices, and the documents of `lost_exports` could not be saved.
    """
    numbers = {**counts, "refused": refused, "not_exported": lost_exports}
    numbers["left"] = sum(counts.get(state, 0) for state in ("planned", "not_sent", "submitted", "in_flight"))
    resume, submit = command_line("runs", "resume", file), command_line("invoices", "submit", "DRAFTS", "--run", file)
    known: Mapping[str, tuple[str, ...]] = {
        "in_doubt": tuple(doubt_commands(file)),
        "refused": (command_line("runs", "refresh", file),),
        "rejected": (command_line("runs", "retry", file, "--state", "rejected"),),
        "failed": (submit,),
        "invalid": (submit,),
        "not_exported": (resume,),
        "left": (resume,),
    }
    if kind is RunKind.DOCUMENTS:
        known = dict.fromkeys(("failed", "deferred", "left"), (resume,))
    words = _WHAT if kind is RunKind.INVOICES else _OF_DOCUMENTS
    for name, commands in known.items():
        if number := numbers.get(name, 0):
            title, what = words[name]
            yield Task(name=name, title=title, count=number, what=what, commands=commands)


def task_items(
    figures: RunFigures, name: str, file: str, *, late: float, now: float, is_held: bool
) -> Iterator[TaskItem]:
    """Yield the first items of a task, by its name.

    `late` is the run's `repair.lateness`, `now` is in epoch seconds, `is_held` says that a process is at work on it.
    """
    for item in _items(figures, name, is_held=is_held):
        row = item_row(item)
        named = str(row.get("request_ids") or "")
        left = too_early_for(item, late, now) if name == "in_doubt" else 0.0
        yield TaskItem(
            key=item.key,
            at=item.sent_at if item.sent_at is not None else item.updated,
            said=tuple(_said(name, row)),
            request_id=item.request_id,
            commands=tuple(_commands(name, file, item.key, named)),
            not_before=now + left if left > 0 else None,
        )


def _said(name: str, row: Row) -> Iterator[str]:
    """Yield what was said of an item, each thing once."""
    error = spoken(str(row["error"] or ""))
    status, named = row.get("http_status"), row.get("request_ids")
    more = [row["code"], f"HTTP {status}" if status else None]
    facts = [str(fact) for fact in more if fact and str(fact) not in error]
    if error or facts:
        yield f"{error} ({', '.join(facts)})" if error and facts else error or ", ".join(facts)
    if named:
        yield f"it named {named}"
    if row.get("answer"):
        yield f"answer: {row['answer']}"
    if name == "refused":
        yield ", ".join(str(row[fact]) for fact in ("authority_status", "lookup_code", "serial_number") if row[fact])


def spoken(text: str) -> str:
    """Return what was said without the name of the class of errors that it was said by."""
    return _CLASS.sub("", text, count=1)


def _items(figures: RunFigures, name: str, *, is_held: bool) -> Iterable[Item]:
    match name:
        case "refused":
            return figures.refused
        case "not_exported":
            return figures.not_exported
        case "in_doubt" if not is_held:
            # What was being sent when its process died is recorded as in doubt when the run is next opened.
            lost = [evolve(item, state=State.IN_DOUBT.value) for item in figures.listed["sending"]]
            return sorted([*lost, *figures.listed["in_doubt"]], key=lambda item: item.seq)
    return figures.listed.get(name, ())


def _commands(name: str, file: str, key: str, named: str) -> Iterator[str]:
    if not key.isprintable() or len(key) > LONGEST_KEY:
        return
    if name == "in_doubt":
        yield from answer_commands(file, key, named)
    elif name == "rejected":
        yield retry_command(file, key)
