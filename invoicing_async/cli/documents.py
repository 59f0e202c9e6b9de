"""`documents download`: the invoices of any number of orders, whole, into a folder."""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from .._naming import Layout
from ..documents import OrderDocuments
from .account import Account, carry_out
from .exits import CommandError
from .ids import open_ids
from .options import FLAG, Common, Pace, Picking
from .progress import Bar, live
from .rows import DOWNLOADS, download_row
from .screen import Screen
from .settings import load

__all__ = ["app"]

app = App(name="documents", help="The invoices of marketplace orders as PDFs.")
RESUME = "Give the same ids and folder again: what is whole there is kept, only the rest is asked for."


@app.command
async def download(
    ids: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    to: Path,
    on_existing: Literal["keep", "new-name", "replace"] = "keep",
    layout: str = "{order_id}",
    served_name: Annotated[bool, FLAG] = False,
    durable: Annotated[bool, FLAG] = False,
    report: Path | None = None,
    picking: Picking | None = None,
    pace: Pace | None = None,
    common: Common | None = None,
) -> int:
    """Download the invoice of every order, each whole or not at all.

    Exit code 0: all done; 1: some failed or were deferred; 2: usage or input; 3: stopped, go on with the same
    command; 130: interrupted.

    Parameters
    ----------
    ids
        A file with one order id a line, or - for stdin; CSV with --column, JSONL with --field.
    to
        The folder for the documents.
    on_existing
        When the name is taken: keep a whole PDF and ask for nothing, take a new name, or replace it.
    layout
        The file below the folder: {order_id}, {date:%Y/%m}, {shard}.
    served_name
        Take the file's name from the service.
    durable
        Wait for every file to be on the disk before it counts as saved.
    report
        Write every outcome to this file, CSV or JSON by its ending.
    """
    common, pace, picking = common or Common(), pace or Pace(), picking or Picking()
    screen = Screen.of(common)
    settings = load(common.env_file, os.environ)
    where = _layout(layout)

    async def work(account: Account) -> None:
        session = settings.documents(limits=pace.limits, retry=pace.retry, on_event=account.monitor)
        with open_ids(ids, picking, account.taking.stop) as found:
            bar = Bar("Order documents", found.about, lambda: account.settled, account.monitor.note)
            async with session, live(screen.err, [bar], shown=screen.lively):
                outcomes = OrderDocuments(session).download_many(
                    account.taking.items(found.items),
                    to,
                    on_existing=on_existing.replace("-", " "),
                    durable=durable,
                    layout=where,
                    served_name=served_name,
                )
                async with aclosing(outcomes):
                    async for outcome in outcomes:
                        await account.add(download_row(outcome))

    return await carry_out(DOWNLOADS, screen, work, report=report, resume=RESUME)


def _layout(pattern: str) -> Layout:
    try:
        return Layout(pattern)
    except ValueError as error:
        raise CommandError(f"--layout: {error}") from None
