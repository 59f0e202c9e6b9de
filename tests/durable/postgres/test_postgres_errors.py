"""Which errors of a database pass by themselves: every SQLSTATE that psycopg knows, and what is said without one."""

from __future__ import annotations

from collections import defaultdict

import psycopg
import pytest
from psycopg import errors

from invoicing_async._durable.postgres.errors import database_errors, may_come_back, state_said, translate_error
from invoicing_async._durable.records import (
    LedgerAwayError,
    LedgerSchemaError,
    LedgerServerError,
    RunFileError,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, psycopg.Error)]
STATES = sorted({kind.sqlstate for kind in KINDS if isinstance(kind.sqlstate, str)})

ALL: set[str] = set()
PASSING: dict[str, set[str]] = {
    "08": ALL,  # the connection
    "25": {"25006", "25P03", "25P04"},  # read-only, time-outs of a transaction
    "40": {"40001", "40003", "40P01"},  # a transaction that is to be repeated
    "53": ALL,  # disk, memory, connections
    "55": {"55000", "55006", "55P03"},  # in use by another
    "57": {"57000", "57014", "57P01", "57P02", "57P03", "57P05"},  # an operator at work; not: dropped
    "58": ALL,  # the system below
    "72": {"72000"},
}
"""Of which class what may come back; of every other nothing."""


def test_each_state_either_passes_or_is_wrong() -> None:
    """The whole list, so that a state that a new psycopg knows of is looked at."""
    classes = defaultdict(set)
    passing = defaultdict(set)
    for state in STATES:
        classes[state[:2]].add(state)
        if may_come_back(state, psycopg.OperationalError):
            passing[state[:2]].add(state)
    assert len(STATES) > 200
    known = {name: states & classes[name] if states else classes[name] for name, states in PASSING.items()}
    assert {name: states for name, states in known.items() if states} == passing


def test_a_state_that_nobody_knows_is_wrong() -> None:
    assert not may_come_back("ZZ999", psycopg.OperationalError)
    assert may_come_back("53ZZZ", psycopg.OperationalError)


@pytest.mark.parametrize(
    ("kind", "passes"),
    [
        (psycopg.OperationalError, True),
        (errors.ConnectionTimeout, True),
        (psycopg.InterfaceError, False),
        (psycopg.ProgrammingError, False),
        (psycopg.DataError, False),
    ],
)
def test_without_a_state_the_connection_was_lost_or_it_is_our_fault(kind: type[psycopg.Error], *, passes: bool) -> None:
    assert may_come_back(None, kind) is passes
    assert isinstance(translate_error(kind("said"), "march"), LedgerAwayError) is passes


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ('FATAL:  database "x" does not exist', "3D000"),
        ('FATAL:  role "x" does not exist', "28000"),
        ('FATAL:  password authentication failed for user "u"', "28P01"),
        ("fe_sendauth: no password supplied", "28P01"),
        ('no pg_hba.conf entry for host "10.0.0.1", user "u", database "x", no encryption', "28000"),
        ("FATAL:  the database system is starting up", "57P03"),
        ("FATAL:  the database system is not yet accepting connections", "57P03"),
        ("FATAL:  sorry, too many clients already", "53300"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "53300"),
        ("server is in hot standby mode", "25006"),
        ("SSL error: certificate verify failed", "28000"),
        ('permission denied for database "x"', "42501"),
        ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", None),
        ("timeout expired", None),
        ('Multiple attempts failed:\n- host: h1: database "x" does not exist\n- host: h2: timeout expired', None),
        ('Multiple connection attempts failed. All failures were:\n- h1: database "x" does not exist', "3D000"),
    ],
)
def test_what_is_said_where_nobody_is_let_in(said: str, state: str | None) -> None:
    assert state_said(said) == state


def test_an_error_of_the_database_names_the_run_and_keeps_its_cause() -> None:
    cause = errors.DiskFull("could not extend file")
    with pytest.raises(LedgerAwayError) as caught, database_errors("postgresql://h/db?run=march"):
        raise cause
    text = "the database of postgresql://h/db?run=march: its disk is full (could not extend file)"
    assert str(caught.value) == text
    assert caught.value.__cause__ is cause
    assert isinstance(caught.value, RunFileError)


def test_missing_tables_say_what_brings_them() -> None:
    told = translate_error(errors.UndefinedTable("no such table"), "march")
    assert isinstance(told, LedgerSchemaError)
    assert "`invoicing-async ledger migrate`" in told.hint
    assert type(translate_error(errors.UniqueViolation("twice"), "march")) is LedgerServerError


def test_errors_of_others_pass_through() -> None:
    with pytest.raises(LookupError), database_errors("march"):
        raise LookupError("the cursor broke")
