"""The options that commands share, as values that cyclopts fills in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from attrs import field, frozen
from cyclopts import Group, Parameter

from ...policies import Limits, RetryPolicy
from ..exits import CommandError, checked
from ..logs import LOG, begin_logging

if TYPE_CHECKING:
    from ...runs import RunPace
    from ...settings import Settings

__all__ = [
    "FLAG",
    "SOURCE",
    "STREAM",
    "Common",
    "IdSource",
    "Local",
    "Place",
    "PlaceOption",
    "RateOptions",
    "ReportFile",
    "RunFile",
    "RunOption",
    "Seconds",
    "place_of",
]

FLAG: Parameter = Parameter(negative="", show_default=False)
"""An option that is there or not."""

STREAM = "-"


def _no_option(_: object, where: str | Path | None) -> None:
    """Refuse an option where a file must be."""
    if where is not None and str(where).startswith("-") and str(where) != STREAM:
        raise ValueError("It is an option or, as ./NAME, a file.")


SOURCE: Parameter = Parameter(allow_leading_hyphen=True, validator=_no_option)
"""A file that is read, or - for stdin; one that is written, or - for stdout."""

RunFile = Annotated[str, Parameter(help="The run file, or postgresql://HOST/DATABASE?run=NAME.")]
RunOption = Annotated[str | Path | None, Parameter(metavar="PATH")]
"""Where a run is kept, as `run_address` takes it. It is always text, the first of the union, which a path would not
leave as it is; that it may be a path is for the shells, which then complete the names of files.
"""
Place = Annotated[str | Path, Parameter(metavar="PATH")]
PlaceOption = Annotated[str | Path | None, Parameter(metavar="PATH")]
"""Where documents are saved, a folder or the address of an object store; always text, as `RunOption`."""


def place_of(to: str | Path) -> str | Path:
    """Return the folder or the address that `--to` names. Raises `CommandError` for an address that cannot be used."""
    from ...stores import checked_place  # help is shown without it

    try:
        return checked(lambda: checked_place(to), "--to")
    except ImportError as error:
        raise CommandError(f"--to: {error}") from error


ReportFile = Annotated[
    Path | None,
    SOURCE,
    Parameter(help="Write what became of each item to this file, CSV or JSON by its ending."),
]
Seconds = Annotated[float, Parameter(help="Seconds to wait for each e-invoice.")]

_OUTPUT = Group("Output and settings", sort_key=8)
_PACE = Group("Rate and retries", sort_key=7)
_INPUT = Group("Input", sort_key=6)


@Parameter(name="*", group=_OUTPUT)
@frozen(kw_only=True)
class Local:
    """What every command takes."""

    env_file: Annotated[
        Path | None,
        Parameter(help="Read settings from this file of NAME=VALUE lines (or name it in INVOICING_ENV_FILE)."),
    ] = None
    json: Annotated[bool, FLAG, Parameter(help="Print one JSON line for each outcome on stdout.")] = False
    quiet: Annotated[bool, FLAG, Parameter(help="Show no progress and no summary.")] = False
    debug: Annotated[bool, FLAG, Parameter(help="Show tracebacks.")] = False
    verbose: Annotated[
        int,
        Parameter(
            name=("--verbose", "-v"),
            count=True,
            negative="",
            show_default=False,
            help="Log retries, pauses and failures to stderr; -vv every attempt (or INVOICING_LOG=LEVEL[:FILE]).",
        ),
    ] = 0

    def settings(self) -> Settings:
        """Gather the settings, and log as they say. Raises `SettingsError` as `Settings.load` does."""
        from ...settings import Settings  # help is shown without what a session needs

        return self._logged(Settings.load(self.env_file))

    def _logged(self, settings: Settings) -> Settings:
        begin_logging(self.verbose, settings.values.get(LOG))
        return settings


@Parameter(name="*", group=_OUTPUT)
@frozen(kw_only=True)
class Common(Local):
    """What every command that calls a service takes."""

    proxy: Annotated[
        str | None,
        Parameter(
            help="Go through this HTTP proxy, http://HOST:PORT, for every host; one with a password stands in "
            "INVOICING_PROXY. Without either, HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY are followed."
        ),
    ] = field(default=None, repr=False)
    ca_file: Annotated[
        Path | None,
        Parameter(
            help="Trust the authorities in this PEM file and no others (or name it in INVOICING_CA_FILE). "
            "Without either, SSL_CERT_FILE and SSL_CERT_DIR are followed."
        ),
    ] = None

    def settings(self) -> Settings:
        """Gather the settings, and log as they say.

        Raises `SettingsError` as `Settings.load` does, `CommandError` for a wrong option.

        A proxy's password among the arguments of a process is there for everybody to see, and refused.
        """
        from ...settings import PROXY, Settings, trust_only  # help is shown without what a session needs
        from ...transport import has_credential, proxy_fault

        if self.proxy and has_credential(self.proxy):
            raise CommandError(
                "--proxy must hold no user or password: everybody on this machine sees the arguments of a process",
                hint=f"Set {PROXY} or HTTPS_PROXY in the environment, or {PROXY} in the file of --env-file, instead.",
            )
        if self.proxy and (fault := proxy_fault(self.proxy)):
            raise CommandError(f"--proxy {fault}")
        file = self.ca_file
        ca = None if file is None else checked(lambda: trust_only(file), "--ca-file")
        return self._logged(Settings.load(self.env_file, proxy=self.proxy, ca=ca))

    @property
    def again(self) -> tuple[str, ...]:
        """The options that a command has to be given again to find its settings and the network."""
        given = {"--env-file": self.env_file, "--proxy": self.proxy, "--ca-file": self.ca_file}
        return tuple(str(token) for option, value in given.items() if value is not None for token in (option, value))


@Parameter(name="*", group=_PACE)
@frozen(kw_only=True)
class RateOptions:
    """How hard the service is pressed; a run file keeps what is given."""

    concurrency: Annotated[int | None, Parameter(help="Calls under way at once; 32 by default.")] = None
    per_second: Annotated[float | None, Parameter(help="Calls begun in a second at most.")] = None
    attempts: Annotated[int | None, Parameter(help="Tries of one call, the first one included; 5 by default.")] = None
    deadline: Annotated[
        float | None, Parameter(help="Seconds for one call with all its tries and waits; 300 by default.")
    ] = None
    stop_after: Annotated[
        int | None,
        Parameter(help="End the batch when its first so many items fail for one cause; 5 by default, 0 to go on."),
    ] = None

    @property
    def given(self) -> RunPace:
        """Return what was asked for. Raises `ValueError` for a value outside its limits."""
        from ...runs import RunPace  # help is shown without what a run needs

        return RunPace(
            concurrency=self.concurrency,
            per_second=self.per_second,
            attempts=self.attempts,
            deadline=self.deadline,
            stop_after=self.stop_after,
        )

    @property
    def limits(self) -> Limits:
        """Return the session's limits. Raises `ValueError` for a value outside its own."""
        return self.given.limits

    @property
    def retry(self) -> RetryPolicy:
        """Return the session's retry policy. Raises `ValueError` for a value outside its limits."""
        return self.given.retry


@Parameter(name="*", group=_INPUT)
@frozen(kw_only=True)
class IdSource:
    """Where in each record of a file the id stands."""

    column: Annotated[str | None, Parameter(help="The input is CSV with a header; the id is in this column.")] = None
    field: Annotated[str | None, Parameter(help="The input is JSONL; the id is in this field.")] = None
