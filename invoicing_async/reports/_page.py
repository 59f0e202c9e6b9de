"""A run as one page for people: totals, what needs a person, what happened when, how long it took, and why it failed.

The page is made from a template (`templates/run.html`) that escapes whatever it is given. It loads nothing, runs
nothing, and its policy lets a browser do neither.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from errno import EEXIST
from functools import cache, partial
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from .. import VERSION
from .._core.clock import Clock, RealClock
from .._files.publish import Destination, OnExisting
from .._files.writer import DiskWriter
from .._values.characters import spelled_out
from ..repair import lateness
from ..runs import Holder, LedgerReader, Overview, RunFigures, RunKind, read_run
from ._charts import TALL, TimeAxis, share
from ._commands import command_line, next_commands
from ._filters import duration_words, moment, number, outside, percent
from ._row_types import DOCUMENT_ITEMS, INVOICE_ITEMS
from ._spared import spare_runs
from ._tasks import spoken, task_items, tasks_of

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["RunPage", "environment", "write_run_page"]


@frozen(kw_only=True)
class RunPage:
    """A run as it is shown on its page: `file` as commands name it, who holds it, and its figures at `now`.

    `created` and `now` are in epoch seconds; `settings` are those of the run, `late` is its `repair.lateness`.
    """

    file: str
    figures: RunFigures
    created: float
    now: float
    holder: Holder | None = None
    settings: Mapping[str, object]
    late: float

    @classmethod
    async def of(cls, ledger: LedgerReader, file: str, *, clock: Clock | None = None) -> RunPage:
        """Read what the page of a run says, also while another process works on it."""
        figures = await ledger.figures()
        # Asked for afterwards: what was being sent then, and has no holder now, is in doubt for good.
        return cls(
            file=file,
            figures=figures,
            created=ledger.created,
            now=(clock or RealClock()).now(),
            holder=next(iter(await ledger.holders()), None),
            settings=ledger.settings,
            late=lateness(ledger),
        )

    @property
    def counts(self) -> Mapping[str, int]:
        """How many items stand in each state, as `Overview.counts` has them."""
        return Overview.apparent(self.figures.counts, held=self.holder is not None)

    def html(self) -> str:
        """Return the page. Raises `ImportError` if the extra `report` is not installed."""
        figures, counts = self.figures, self.counts
        listed = partial(
            task_items, figures, file=self.file, late=self.late, now=self.now, is_held=self.holder is not None
        )
        kind = INVOICE_ITEMS if figures.kind is RunKind.INVOICES else DOCUMENT_ITEMS
        refused, lost = figures.refused_count, figures.lost_exports
        tasks = [
            evolve(task, items=tuple(listed(name=task.name)))
            for task in tasks_of(figures.kind, counts, self.file, refused=refused, lost_exports=lost)
        ]
        steps = next_commands(
            self.file,
            figures.kind,
            counts,
            without_file=figures.without_file if self.settings.get("export") else 0,
            exports=bool(self.settings.get("export")),
            each=False,
        )
        style = environment().get_template("run.css").render()
        return (
            environment()
            .get_template("run.html")
            .render(
                page=self,
                figures=figures,
                kind=kind,
                counts=counts,
                states=[state for state in kind.outcomes if counts.get(state)],
                tasks=tasks,
                steps=list(steps),
                axis=TimeAxis(figures.timeline),
                tall=TALL,
                see=partial(command_line, "runs", "show", self.file, "--state"),
                version=VERSION,
                style=style,
                style_hash=b64encode(sha256(style.encode()).digest()).decode(),
            )
        )


async def write_run_page(
    file: str | PathLike[str], out: str | PathLike[str], *, replace: bool = False, clock: Clock | None = None
) -> Path:
    """Write the page of a run file to a new file, whole or not at all, and return its path.

    It is one page of HTML that needs nothing else, and shows the run as it stood at one moment, also while another
    process works on it. What is shown of times is local to this machine. The extra `report` must be installed.

    Raises `FileExistsError` if there is a file, unless `replace`; `OSError`, also for the place of a run file, which is
    never replaced; `RunFileError`, and `ImportError` without the extra.
    """
    target, disk = Path(out), DiskWriter()
    environment()
    try:
        if not replace and await disk.run(partial(os.path.lexists, target)):
            raise FileExistsError(EEXIST, os.strerror(EEXIST), str(target))
        await disk.run(partial(spare_runs, target))
        async with read_run(file) as ledger:
            page = await RunPage.of(ledger, os.fspath(file), clock=clock)
        text = (await disk.run(page.html)).encode("utf-8", "backslashreplace")
        spool = await disk.spool(target.parent)
        try:
            await spool.write([text])
            on_existing = OnExisting.REPLACE if replace else OnExisting.NEW_NAME
            published = await spool.publish(Destination(target=target, on_existing=on_existing, durable=True))
        finally:
            await spool.discard()
    finally:
        await disk.close()
    return published.path


@cache
def environment() -> Environment:
    """Return what makes pages of templates. Raises `ImportError` if the extra `report` is not installed."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ImportError("a page needs the package jinja2: install invoicing-async[report]") from None
    made = Environment(
        loader=PackageLoader("invoicing_async.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "number": number,
        "outside": outside,
        "plain": spelled_out,
        "moment": moment,
        "duration": duration_words,
        "words": lambda name: str(name).replace("_", " "),
        "share": share,
        "percent": percent,
        "said": spoken,
    }
    return made
