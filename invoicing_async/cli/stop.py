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

__all__ = ["CountedInput", "Stop", "each", "leave_terminal", "listening", "until_none"]

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TURN = 500
"""Items of an input after which other tasks have their turn."""
STREAMS = (1, 2)
"""The file descriptors of stdout and stderr."""


class Stop:
    """Whether to stop. `told` is called when it is first asked for."""

    def __init__(self, told: Callable[[], None]) -> None:
        self.asked: bool = False
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
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        before[hangup] = _handle(loop, hangup, hung_up)
    try:
        yield
    finally:
        for number, handler in before.items():
            if sys.platform != "win32":
                loop.remove_signal_handler(number)
            signal.signal(number, handler)  # type: ignore[arg-type] # what getsignal gave


def leave_terminal() -> None:
    """Send a stream whose terminal has closed to the null device: each later write to it would be an error."""
    for stream in STREAMS:
        with suppress(OSError):
            # What was a terminal and is none any more; for the null device this changes nothing.
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
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


async def each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Yield either kind of input as the asynchronous one, and let other tasks run now and then."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for number, item in enumerate(items, 1):
        yield item
        if number % TURN == 0:
            await asyncio.sleep(0)


async def until_none(queue: asyncio.Queue[T | None]) -> AsyncIterator[T]:
    """Yield what is put in a queue, until that is None."""
    while (item := await queue.get()) is not None:
        yield item


class CountedInput:
    """Counts what is taken from an input and ends it when a stop is asked for; `cut` says that it did."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.taken: int = 0
        self.cut: bool = False

    def items(self, source: Iterable[T] | AsyncIterable[T]) -> Iterator[T] | AsyncIterator[T]:
        """Return the input, counted, in its own kind of iteration."""
        return self.later(source) if isinstance(source, AsyncIterable) else self.now(source)

    def now(self, source: Iterable[T]) -> Iterator[T]:
        """Yield the items of an iterable."""
        for item in source:
            if self._stopped():
                return
            self.taken += 1
            yield item

    async def later(self, source: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
        """Yield the items of either kind of input, as an asynchronous one."""
        async for item in each(source):
            if self._stopped():
                return
            self.taken += 1
            yield item
        self._stopped()

    def _stopped(self) -> bool:
        self.cut = self.cut or self.stop.asked
        return self.stop.asked
