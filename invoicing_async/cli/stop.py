"""Ctrl-C in two steps: the first ends the input and lets what is in flight finish, the second ends at once.

SIGTERM is the same. SIGHUP, when a terminal closes, is only ever the first step: shells and service managers send it
beside another signal or twice, and what is in flight must not be cut for that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from .exits import Exit

__all__ = ["Stop", "Taking", "leave_terminal", "listening"]

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
STREAMS = (1, 2)
"""The file descriptors of stdout and stderr."""


class Stop:
    """Whether to stop. `told` is called when it is first asked for."""

    def __init__(self, told: Callable[[], None]) -> None:
        self.asked = False
        self._told = told
        self._then: list[Callable[[], None]] = []

    def ask(self) -> None:
        """Ask for it."""
        if not self.asked:
            self.asked = True
            for callback in self._then:
                callback()
            self._told()

    def then(self, callback: Callable[[], None]) -> None:
        """Call this when it is asked for, or now if it was."""
        self._then.append(callback)
        if self.asked:
            callback()

    async def wait(self) -> None:
        """Wait until it is asked for."""
        asked = asyncio.Event()
        self.then(asked.set)
        await asked.wait()


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `stop`; a second one cancels this task, a third ends the process.

    SIGHUP asks for the stop too, however often it comes, unless it was ignored before (`nohup`).
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    count = 0

    def heard() -> None:
        nonlocal count
        count += 1
        if count == 1:
            stop.ask()
        elif count == 2 and task is not None:  # noqa: PLR2004 - the second of three steps
            task.cancel()
        else:
            os._exit(Exit.INTERRUPTED)

    def hung_up() -> None:
        leave_terminal()
        stop.ask()

    before = {number: _handle(loop, number, heard) for number in SIGNALS}
    before |= {number: _handle(loop, number, hung_up) for number in _hangups()}
    try:
        yield
    finally:
        for number, handler in before.items():
            _restore(loop, number, handler)


def _hangups() -> list[signal.Signals]:
    """Return the signal of a closed terminal, where there is one and whoever began this did not have it ignored."""
    number = getattr(signal, "SIGHUP", None)
    return [] if number is None or signal.getsignal(number) == signal.SIG_IGN else [number]


def leave_terminal() -> None:
    """Let a stream whose terminal has closed lead nowhere: each later word to it would be an error."""
    for stream in STREAMS:
        with suppress(OSError):
            # What was a terminal and is none any more; for the null device this changes nothing.
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                _lead_nowhere(stream)


def _lead_nowhere(stream: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nowhere, stream)
    finally:
        os.close(nowhere)


def _handle(loop: asyncio.AbstractEventLoop, number: signal.Signals, heard: Callable[[], None]) -> object:
    before = signal.getsignal(number)
    if sys.platform == "win32":  # its loops have no signals of their own
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(heard))
    else:
        loop.add_signal_handler(number, heard)
    return before


def _restore(loop: asyncio.AbstractEventLoop, number: signal.Signals, handler: object) -> None:
    if sys.platform != "win32":
        loop.remove_signal_handler(number)
    signal.signal(number, handler)  # type: ignore[arg-type] # what getsignal gave


class Taking:
    """Counts what is taken from an input and ends it when a stop is asked for; `cut` says that it did."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.taken = 0
        self.cut = False

    def items(self, source: Iterable[T] | AsyncIterable[T]) -> Iterator[T] | AsyncIterator[T]:
        """Return the input, counted, in its own kind of iteration."""
        return self._later(source) if isinstance(source, AsyncIterable) else self._now(source)

    def _now(self, source: Iterable[T]) -> Iterator[T]:
        for item in source:
            if self._stopped():
                return
            self.taken += 1
            yield item

    async def _later(self, source: AsyncIterable[T]) -> AsyncIterator[T]:
        async for item in source:
            if self._stopped():
                return
            self.taken += 1
            yield item
        self._stopped()

    def _stopped(self) -> bool:
        self.cut = self.cut or self.stop.asked
        return self.stop.asked
