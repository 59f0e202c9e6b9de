"""The export of a run's finished e-invoices, as options ask for it."""

from __future__ import annotations

from pathlib import Path

from attrs import asdict, evolve, frozen

from ...invoices import ExportFormat
from ...runs import ExportTo, FileAddress, RunAddress, export_layout
from ..exits import CommandError, checked
from .options import place_of

__all__ = ["AskedExport", "ExportFormat"]


@frozen(kw_only=True)
class AskedExport:
    """What a command says of the export; None for what it leaves as the run has it."""

    format: ExportFormat | None = None
    folder: str | Path | None = None
    layout: str | None = None

    @classmethod
    def of(cls, form: ExportFormat | None, to: str | Path | None, layout: str | None) -> AskedExport:
        """Take the options. Raises `CommandError` for a layout or an address that is none."""
        if layout is not None:
            checked(lambda: export_layout(layout), "--layout")
        return cls(format=form, folder=None if to is None else place_of(to), layout=layout)

    def __bool__(self) -> bool:
        return any((self.format, self.folder is not None, self.layout))

    def check_for(self, run: RunAddress | None) -> None:
        """Raise `CommandError` if there is no run to keep it, or its file will be new and it is not whole.

        Whether a server has the run is known only when that is asked, and then `applied` says it.
        """
        if run is None or (isinstance(run, FileAddress) and not run.path.exists()):
            self.check_whole()
        if run is None and self:
            raise CommandError("--export is for --run FILE")

    def check_whole(self) -> None:
        """Raise `CommandError` unless it says all that a first export needs."""
        if self and (self.format is None or self.folder is None):
            raise CommandError("--export and --to DIR go together")

    def applied(self, kept: ExportTo | None) -> ExportTo | None:
        """Return the export of a run from now on. Raises `CommandError` for the first one if it is not whole."""
        if not self:
            return kept
        if kept is None:
            self.check_whole()
        said = {name: value for name, value in asdict(self).items() if value is not None}
        return ExportTo(**said) if kept is None else evolve(kept, **said)
