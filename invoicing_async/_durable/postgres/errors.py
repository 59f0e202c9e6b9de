"""What psycopg raises, in our words: whether the database may come back by itself, or something is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from psycopg import Error, OperationalError

from ..records import LedgerAwayError, LedgerSchemaError, LedgerServerError

__all__ = ["database_errors", "error_below", "may_come_back", "state_said", "translate_error"]

_PASSING_CLASSES = frozenset({"08", "53", "57", "58"})
"""Classes of SQLSTATE that pass: connection exceptions, too few resources, an operator at work, the system's errors."""

_PASSING = frozenset({"25006", "25P03", "25P04", "40001", "40003", "40P01", "55000", "55006", "55P03", "72000"})
"""Others that pass: read-only, a time-out in a transaction, a transaction to be repeated, what somebody else holds."""

_FOR_GOOD = frozenset({"57P04"})
"""What does not pass of the classes that do: the database was dropped."""

_SCHEMA = frozenset({"3F000", "42P01", "42703"})
"""No such schema, table or column."""

_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "25006": "it is read-only at the moment",
        "28000": "it refuses the connection",
        "28P01": "it refuses the password",
        "3D000": "there is no such database",
        "42501": "this user may not do that",
        "53100": "its disk is full",
        "53300": "it has no connection left",
        "55P03": "a migration, or somebody else's lock, is under way",
        "57P01": "it was shut down",
        "57P02": "it was shut down at once",
        "57P03": "it is starting up or shutting down",
        "57P04": "it was dropped",
    }
)


_SAID = (
    ("57P03", r"the database system is (?:starting up|shutting down|in recovery mode|not yet accepting connections)"),
    (
        "53300",
        r"too many clients already|too many connections|connection slots are reserved|no more connections allowed",
    ),
    ("25006", r"server is in hot standby mode|session is read-only"),
    ("3D000", r"database \".*\" does not exist|no such database"),
    ("28P01", r"password authentication failed|no password supplied|SASL authentication failed"),
    ("42501", r"permission denied"),
    ("28000", r"role \".*\" does not exist|not permitted to log in|no pg_hba\.conf entry|authentication failed"),
    ("28000", r"no such user|server does not support SSL|certificate|requires a valid client|authentication method"),
)
"""What servers and libpq say when they let nobody in: there is no SQLSTATE then. Other languages are not known."""


def state_said(text: str) -> str | None:
    """Return the SQLSTATE of a connection that was not made, by what is said of it, None if that is not known.

    Of several servers the one counts that may come back.
    """
    states = [
        next((state for state, words in _SAID if re.search(words, part)), None)
        for part in (text.split("\n- ")[1:] or [text])
    ]
    return next((state for state in states if may_come_back(state, OperationalError)), states[0])


def may_come_back(sqlstate: str | None, kind: type[BaseException]) -> bool:
    """Tell whether waiting may help, by the SQLSTATE of an error, or without one by its type.

    Without one the server was not reached, or the connection was lost. What is not known is wrong, so that it is told.
    """
    if sqlstate is None:
        return issubclass(kind, OperationalError)
    return (sqlstate[:2] in _PASSING_CLASSES or sqlstate in _PASSING) and sqlstate not in _FOR_GOOD


def translate_error(error: Error, name: str) -> LedgerServerError:
    """Say an error of the database in our words; `name` is the run's address. No password stands in what libpq says."""
    said = error.diag.message_primary or str(error)
    state = error.sqlstate or (state_said(said) if isinstance(error, OperationalError) else None)
    words = _WORDS.get(state or "", "")
    text = f"the database of {name}: {words} ({said})" if words else f"the database of {name}: {said}"
    if may_come_back(state, type(error)):
        return LedgerAwayError(text)
    return LedgerSchemaError(text) if state in _SCHEMA else LedgerServerError(text)


def error_below(error: BaseException, name: str) -> LedgerServerError | None:
    """Return in our words the database's error by which another came, or that it is itself; None if there is none."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, Error):
        below = below.__cause__
    return None if below is None else translate_error(below, name)


@contextmanager
def database_errors(name: str) -> Iterator[None]:
    """Let errors of the database come out as ours. A transaction that is to be repeated is for whoever began it."""
    try:
        yield
    except Error as error:
        raise translate_error(error, name) from error
