"""What a run keeps for whoever goes on with it: its pace, and where finished invoices are exported to.

Kept as JSON in the run file, without secrets. Of the pace only what was asked for is kept; what was not is the default
of the version that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from attrs import AttrsInstance, asdict, evolve, field, fields_dict, frozen

from .._files.layout import EXPORT, Layout
from ..invoices import ExportFormat
from ..policies import Limits, RetryPolicy
from .items import absolute_place
from .kept_paths import STORE

__all__ = ["BY_KEY", "ExportTo", "RunPace", "RunSettings", "export_layout", "named"]

FORMATS: tuple[str, ...] = get_args(ExportFormat)
BY_KEY = "{key}"
BEFORE = "{invoice_id}"
"""How exports were named before a run kept a layout; such a run goes on so."""


@lru_cache(maxsize=16)
def export_layout(pattern: str) -> Layout:
    """Read a layout of exports: `{key}`, `{request_id}`, `{invoice_id}`, `{date:…}`, `{shard}`, `{shard2}`.

    The date is the UTC day on which the draft was sent. Raises `ValueError` as `Layout` does.
    """
    return Layout(pattern, ids=EXPORT)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@frozen(kw_only=True)
class RunPace:
    """How hard a run presses the service; None for the default. Raises `ValueError` as `Limits`, `RetryPolicy` do.

    A `stop_after` of 0 goes on whatever comes, as `Limits.stop_after` of None does.
    """

    concurrency: int | None = None
    per_second: float | None = None
    attempts: int | None = None
    deadline: float | None = None
    stop_after: int | None = None

    def __attrs_post_init__(self) -> None:
        _ = self.limits, self.retry

    @property
    def limits(self) -> Limits:
        """The limits of a session that keeps this pace."""
        stop: dict[str, Any] = {} if self.stop_after is None else {"stop_after": self.stop_after or None}
        return Limits(**_given(concurrency=self.concurrency, per_second=self.per_second), **stop)

    @property
    def retry(self) -> RetryPolicy:
        """The retry policy of a session that keeps this pace."""
        return RetryPolicy(**_given(attempts=self.attempts, deadline=self.deadline))

    def changed(self, other: RunPace) -> RunPace:
        """Return this pace with everything that the other one says."""
        return evolve(self, **_given(**asdict(other)))


def _place(where: str | PathLike[str]) -> Path | str:
    text = absolute_place(where)
    return text if "://" in text else Path(text)


@frozen(kw_only=True)
class ExportTo:
    """What finished invoices are saved as, and where: `layout` names the file below `folder`.

    That is a folder, made absolute, or the address of an object store, which stays text.
    """

    folder: Path | str = field(converter=_place)
    format: str = "pdf"
    layout: str = BY_KEY

    def __attrs_post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {self.format!r}")
        export_layout(self.layout)


def named(ids: Mapping[str, str], *, sent_at: float, to: ExportTo) -> PurePosixPath:
    """Return the file of an export below its folder; the same whenever it is asked for."""
    day = datetime.fromtimestamp(sent_at, tz=UTC).date()
    return export_layout(to.layout).relative(ids["key"], day=day, suffix=f".{to.format}", others=ids)


def _known(kept: Mapping[str, Any], kind: type[AttrsInstance]) -> dict[str, Any]:
    """Return what this version knows of; a later one may keep more."""
    return {name: kept[name] for name in fields_dict(kind) if name in kept}


@frozen(kw_only=True)
class RunSettings:
    """What a run keeps: its pace, and for e-invoices what is exported; None for no export."""

    pace: RunPace = RunPace()
    export: ExportTo | None = None

    @classmethod
    def read(cls, kept: Mapping[str, object]) -> RunSettings:
        """Read what a run file holds, also one of an earlier version."""
        held: Mapping[str, Any] = kept
        export = held.get("export")
        return cls(
            pace=RunPace(**_known(held.get("pace", {}), RunPace)),
            export=None if export is None else ExportTo(**{"layout": BEFORE, **_known(export, ExportTo)}),
        )

    def written(self, kept: Mapping[str, object]) -> dict[str, object]:
        """Return what the run file is to hold; what it holds beside these settings stays."""
        written = {**kept, "pace": _given(**asdict(self.pace))}
        if self.export is not None:
            place = str(self.export.folder)
            written["export"] = {**asdict(self.export), "folder": place}
            # The first place stays what names are below; what is saved elsewhere is kept whole.
            written.setdefault(STORE, place)
        return written
