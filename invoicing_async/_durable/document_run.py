"""The durable download of many documents: each order's outcome is recorded with path, size and hash."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import date, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self

from .._core.clock import Clock, RealClock
from .._core.order_ids import OrderId, texts
from .._core.ramp import Cause, Verdict
from .._files.layout import Layout
from .._files.publish import OnExisting
from ..documents import DownloadOutcome, OrderDocuments
from ..documents._client import work_of
from ..documents._saving import BatchSaver, judged
from ..documents._work import DocumentWork
from ..models import Failed, NotStarted, Skipped
from ..session import Sleep
from .checking import Checked, Comparing, compare_files
from .document_records import DocumentRecords
from .items import absolute_place, is_below, page_items, recorded_path, saved_document
from .kept_paths import STORE
from .ledgers import open_ledger
from .paced_run import PacedRun
from .pauses import PauseLog
from .protocol import Ledger
from .records import Intake, Item
from .run_settings import RunSettings
from .states import DocumentState, RunKind
from .stop import StoppedError, StopToken

__all__ = ["DocumentRun"]


class DocumentRun(PacedRun):
    """The durable download of many order documents. `ledger` is where it is recorded.

    `place` is where it saves: the absolute path of a folder, or the address of an object store; `folder` is that path.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._stop = StopToken()
        self._records = DocumentRecords(ledger)
        self._placed()

    def _placed(self) -> None:
        settings: Mapping[str, Any] = self.ledger.settings
        self.place: str = settings["folder"]
        self.folder: Path = Path(self.place)
        self.layout: Layout = Layout(settings["layout"])
        self.day: date = date.fromisoformat(settings["day"])
        self.served_name: bool = settings["served_name"]
        self.durable: bool = settings["durable"]
        # Runs of before have no `on_existing`.
        self.on_existing: OnExisting = OnExisting(settings.get("on_existing", OnExisting.KEEP))

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        file: str | PathLike[str],
        *,
        folder: str | PathLike[str] | None = None,
        layout: str = "{order_id}",
        day: date | None = None,
        served_name: bool = False,
        durable: bool = False,
        on_existing: OnExisting | str = OnExisting.KEEP,
        move: bool = False,
        clock: Clock | None = None,
    ) -> AsyncIterator[Self]:
        """Open a run file and hold it; with `folder`, make it if it is not there.

        `folder` may be the address of an object store, as text. `layout`, `day`, `served_name`, `durable` and
        `on_existing` are as for `download_many`. The settings are those of the first time: later only `folder` is
        compared, and `move` changes it; `differing` compares others. Raises `RunLockedError` if another process holds
        the file, `RunFileError` if it is something else, `FileNotFoundError`, `ValueError` for another folder than the
        recorded one, text that names no file, or an address that is none.
        """
        where = None if folder is None else absolute_place(folder)
        today = datetime.fromtimestamp((clock or RealClock()).now()).date()  # noqa: DTZ006 - where whoever runs it is
        settings = {
            "folder": where,
            STORE: where,
            "layout": Layout(layout).pattern,
            "day": (day or today).isoformat(),
            "served_name": served_name,
            "durable": durable,
            "on_existing": _checked(OnExisting(on_existing), where).value,
        }
        async with open_ledger(
            file, kind=RunKind.DOCUMENTS, settings=settings, create=where is not None, clock=clock
        ) as ledger:
            recorded = ledger.settings["folder"]
            is_other = where is not None and recorded != where
            if is_other and not move:
                raise ValueError(f"folder must be {recorded}, which this run was begun with, got {where}")
            run = cls(ledger)
            if is_other:
                await run.move(folder=where)
            yield run

    def differing(self, wanted: Mapping[str, object]) -> Mapping[str, object]:
        """Return which of these settings of `open` the run has otherwise, each as recorded; None is not compared."""
        begun = {"on_existing": self.on_existing.value, **self.ledger.settings}
        given = {name: value.value if isinstance(value, OnExisting) else value for name, value in wanted.items()}
        return {name: begun[name] for name, value in given.items() if value not in (None, begun[name])}

    async def keep(self, settings: RunSettings) -> None:
        """Keep other settings from now on. Raises `ValueError` for an export, which is for e-invoices."""
        if settings.export is not None:
            raise ValueError("export is for a run of e-invoices")
        await self.ledger.update_settings(settings.written(self.ledger.settings))

    async def move(self, *, folder: str | PathLike[str] | None = None, layout: str | None = None) -> None:
        """Save what is still to be had elsewhere, or under other names, from now on.

        What was saved stays where it is and is verified there; what of it is missing or broken is fetched anew into
        the new place. Raises `ValueError` for a layout that is none.
        """
        changed = {
            "folder": self.place if folder is None else absolute_place(folder),
            "layout": self.layout.pattern if layout is None else Layout(layout).pattern,
        }
        _checked(self.on_existing, changed["folder"])
        await self.ledger.update_settings({**self.ledger.settings, **changed})
        self._placed()

    def stop(self) -> None:
        """Let what is in flight finish and begin nothing more; `Session.stop_waiting` ends what waits in an outage."""
        self._stop.ask()

    async def add(self, order_ids: Iterable[OrderId] | AsyncIterable[OrderId]) -> Intake:
        """Take in ids, all of them or, after an error or a crash, none. One that is known or comes again counts once.

        Raises `ValueError` for one that is not text, a UUID or an int.
        """
        return await self.ledger.add_ids(texts(order_ids))

    async def verify(self, documents: OrderDocuments) -> AsyncGenerator[Checked]:
        """Hash every recorded file; one that is missing or broken is planned again."""
        async with aclosing(self._verified(work_of(documents))) as verified:
            async for item, fault in verified:
                yield Checked.of(item, fault)

    async def _verified(self, work: DocumentWork) -> AsyncGenerator[tuple[Item, str | None]]:
        comparing = Comparing(work.disk, work.stores)
        async with aclosing(compare_files(self.ledger, comparing, self._stop)) as compared:
            async for item, fault in compared:
                if fault is None or await self._records.plan_again(item, fault):
                    yield item, fault

    async def download(
        self, documents: OrderDocuments, *, concurrency: int | None = None, verify: bool = True
    ) -> AsyncGenerator[DownloadOutcome]:
        """Download what is left and yield an outcome for each id, as `download_many`, once it is on disk.

        With `verify` what was saved before is hashed first and yielded as `Skipped`; what is missing or broken is
        fetched anew and put in its place. Without, it is left out. Ends with `BatchStoppedError` as `download_many`
        does; what failed in an earlier command and fails again does not count, so that it never keeps the rest back.
        """
        work, failed = work_of(documents), set[str]()
        places = work.places(concurrency)

        def judge(outcome: DownloadOutcome) -> Cause | Verdict:
            if isinstance(outcome, Failed) and outcome.order_id in failed:
                failed.discard(outcome.order_id)
                return Verdict.SILENT
            return judged(outcome)

        async def fetched(item: Item, sleep: Sleep) -> DownloadOutcome:
            if item.state == DocumentState.FAILED:
                failed.add(item.key)
            return await self._fetched(saver, item, sleep)

        saver = await work.saver(
            self.place,
            on_existing=self.on_existing,
            durable=self.durable,
            layout=self.layout,
            served_name=self.served_name,
            day=self.day,
            shared=True,
        )
        if verify:
            async with aclosing(self._verified(work)) as verified:
                async for item, fault in verified:
                    if fault is None:
                        yield Skipped(item.key, saved_document(item))
        async with aclosing(page_items(self.ledger.pending, self._stop)) as items:
            outcomes = work.each(
                items,
                fetched,
                concurrency=places,
                on_not_started=lambda item, error: NotStarted(item.key, error),
                judge=judge,
            )
            async with PauseLog(self.ledger).of(work), aclosing(outcomes):
                async for outcome in outcomes:
                    yield outcome

    async def _fetched(self, saver: BatchSaver, item: Item, sleep: Sleep) -> DownloadOutcome:
        # A path of ours whose file is gone or broken: nobody else's is replaced, nor anything where the run was before.
        is_here = item.path is not None and is_below(item.path, self.place)
        outcome = await saver.outcome(item.key, self._stop.sleep(sleep), replace=self._below(item) if is_here else None)
        if isinstance(outcome, Failed) and isinstance(outcome.error, StoppedError):
            return NotStarted(item.key, outcome.error)
        return await self._records.record(item, outcome)

    def _below(self, item: Item) -> Path:
        """Return where the file of an item is, in the words of the run's place."""
        return Path((item.path or "")[len(self.place) + 1 :]) if "://" in self.place else recorded_path(item)


def _checked(on_existing: OnExisting, place: str | None) -> OnExisting:
    if on_existing is OnExisting.REPLACE and place is not None and "://" in place:
        raise ValueError(f"on_existing must be 'keep' or 'new name': nothing is replaced at {place}")
    return on_existing
