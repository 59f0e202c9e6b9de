"""The library's log on the command line: to stderr, above the progress that is shown there, and to a file."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from pathlib import Path

from attrs import frozen

from .exits import CommandError

__all__ = ["LOG", "LogTarget", "begin_logging", "end_logging", "log_target"]

LOG = "INVOICING_LOG"
LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
NAME = "invoicing_async"

OTHERS = ("procrastinate", "psycopg")
"""The loggers of packages whose warnings would reach stderr by themselves."""

_SILENT = logging.NullHandler()

OF_ITEMS = frozenset({"CallFailed", "SubmissionInDoubt"})
"""Events of single items, which a command counts and reports by itself."""


@frozen
class LogTarget:
    """What `INVOICING_LOG` asks for: from which level on, and into which file, stderr where there is none."""

    level: int
    file: Path | None = None


def log_target(value: str) -> LogTarget:
    """Read the value of `INVOICING_LOG`: a level, or a level, a colon and a file. Raises `CommandError`."""
    name, colon, file = value.partition(":")
    level = LEVELS.get(name.strip().upper())
    if level is None or (colon and not file.strip()):
        raise CommandError(
            f"{LOG} must be {', '.join([*LEVELS][:-1])} or {[*LEVELS][-1]}, or one of these, a colon and a file",
            hint=f"As in {LOG}=INFO or {LOG}=DEBUG:/var/log/invoicing.log.",
        )
    return LogTarget(level, Path(file.strip()).expanduser() if colon else None)


def begin_logging(verbose: int, variable: str | None) -> None:
    """Log as the option and the variable say, and without them only the warnings that no summary counts.

    Raises `CommandError` for a variable that is wrong, or a file that cannot be written.
    """
    end_logging()
    target = log_target(variable) if variable else None
    handlers: list[logging.Handler] = []
    if target is not None and target.file is not None:
        handlers.append(_opened(target.file, target.level))
    if verbose:
        handlers.append(_ToStderr(logging.INFO if verbose == 1 else logging.DEBUG))
    elif target is not None and target.file is None:
        handlers.append(_ToStderr(target.level))
    else:
        handlers.append(_ToStderr(logging.WARNING))
        handlers[-1].addFilter(lambda record: getattr(record, "event", None) not in OF_ITEMS)
    logger = logging.getLogger(NAME)
    for handler in handlers:
        handler.setFormatter(_Line())
        logger.addHandler(handler)
    logger.setLevel(min(handler.level for handler in handlers))
    for name in OTHERS:  # what they have to say of a database that is away is said by us, once
        logging.getLogger(name).addHandler(_SILENT)


def end_logging() -> None:
    """Take back what `begin_logging` did."""
    logger = logging.getLogger(NAME)
    for handler in [each for each in logger.handlers if isinstance(each.formatter, _Line)]:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(logging.NOTSET)


def _opened(file: Path, level: int) -> logging.Handler:
    try:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise CommandError(f"{LOG}: cannot write {file}: {error.strerror or error}") from None
    handler.setLevel(level)
    return handler


class _Line(logging.Formatter):
    """One printable line for each record: when in UTC, how grave, and what."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        words = record.getMessage()
        return f"{when} {record.levelname:<7} {''.join(char if char.isprintable() else ' ' for char in words)}"


class _ToStderr(logging.Handler):
    """Writes to stderr as it is then: while progress is shown, what is written there appears above it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - of a terminal that has closed
            return
