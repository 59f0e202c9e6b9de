"""Opening a run on a server to work on it: found or made, and the worker that works on it registered."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from importlib.metadata import version

from attrs import frozen

from ..._core.clock import Clock, RealClock
from ..address import ServerAddress
from ..records import RunFileError, json_text
from ..states import RunKind
from .connection import Connection, open_connection
from .errors import database_errors
from .lanes import PostgresLanes
from .reader import KeptRun, describe_run
from .reading import Reading
from .recorder import Connect, Recorder, register
from .session import DatabaseClock, Session, Worker
from .statements import CREATE_RUN

__all__ = ["OpenedRun", "open_run"]


@frozen(kw_only=True)
class OpenedRun:
    """A run, and what it is read, recorded, paced and taken in by."""

    kept: KeptRun
    reading: Reading
    recorder: Recorder
    lanes: PostgresLanes
    connect: Connect


@asynccontextmanager
async def open_run(
    address: ServerAddress,
    *,
    kind: RunKind | None,
    settings: Mapping[str, object] | None,
    create: bool,
    clock: Clock | None,
    environ: Mapping[str, str] | None,
) -> AsyncIterator[OpenedRun]:
    """Open a run as `PostgresLedger.open` does; at the end what is queued is recorded first."""
    kind = None if kind is None else RunKind(kind)
    connect = partial(open_connection, address, to_write=True, environ=environ)
    reading = Reading(address, waits=True, environ=environ)
    try:
        ticks = DatabaseClock(clock, RealClock())
        connection = await connect()
        try:
            kept = await _kept(connection, reading, ticks, kind, settings, create=create)
            worker = Worker(0, socket.gethostname(), os.getpid(), version("invoicing-async"))
            with database_errors(address.text):
                worker = await register(Session(connection, kept.run, 0, 0, ticks), worker)
        except BaseException:
            await connection.close()
            raise
        recorder = Recorder(address.text, kept.run, worker, ticks, connect, connection)
        lanes = PostgresLanes(connect, run=kept.run, worker=worker.number, clock=clock or RealClock())
        try:
            async with aclosing(lanes):
                yield OpenedRun(kept=kept, reading=reading, recorder=recorder, lanes=lanes, connect=connect)
        finally:
            await recorder.stop()
    finally:
        await reading.close()


async def _kept(
    connection: Connection,
    reading: Reading,
    clock: DatabaseClock,
    kind: RunKind | None,
    settings: Mapping[str, object] | None,
    *,
    create: bool,
) -> KeptRun:
    """Return the run of the address, made if it may be; two that make it at once have one."""
    name = reading.address.text
    kept = await describe_run(reading)
    if kept is None and not create:
        raise FileNotFoundError(errno.ENOENT, "no such run", name)
    if kept is None:
        if kind is None:
            raise ValueError("kind must be given for a new run")
        with database_errors(name):
            values = (reading.address.run, kind.value, json_text(settings or {}), clock.parameter())
            await Session(connection, 0, 0, 0, clock).rows(CREATE_RUN, *values)
        kept = await describe_run(reading)
    if kept is None:
        raise FileNotFoundError(errno.ENOENT, "the run was taken away while it was opened", name)
    if kind not in {None, kept.kind}:
        raise RunFileError(f"{name} is a run of {kept.kind.value}, not of {kind}")
    return kept
