"""A watch over the process from outside its event loop: it ends the process when a sign of life stands still."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import Counter
from typing import Final

__all__ = ["LOST", "Watchdog"]

LOST: Final = 70
"""The exit code of a process that is ended."""

CHECKS = 10
"""How often it looks while a sign may stand still."""


class Watchdog:
    """Ends the process with exit code 70 and one line on stderr when a sign of life does not come for `limit` seconds.

    It counts its own looks and not the time, so that a process that was stopped, or a machine that slept, is not ended
    when it wakes. `sign` says that something lives; what never gave a sign is not watched. The loop gives one itself.
    """

    def __init__(self, limit: float) -> None:
        self._every = limit / CHECKS
        self._signs: Counter[str] = Counter()
        self._ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._tick()
        self._thread = threading.Thread(target=self._watch, name="invoicing-watchdog", daemon=True)
        self._thread.start()

    def sign(self, of: str) -> None:
        """Say that something lives."""
        self._signs[of] += 1

    def close(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._timer.cancel()

    def _tick(self) -> None:
        self.sign("event loop")
        self._timer = self._loop.call_later(self._every, self._tick)

    def _watch(self) -> None:
        seen: dict[str, int] = {}
        looks: Counter[str] = Counter()
        while not self._ended.wait(self._every):
            for of, signs in [*self._signs.items()]:
                looks[of] = 0 if seen.get(of) != signs else looks[of] + 1
                seen[of] = signs
                if looks[of] >= CHECKS:
                    self._end(of)

    def _end(self, of: str) -> None:
        text = f"the {of} of this worker has stood still for {self._every * CHECKS:.0f} s: the process is ended\n"
        with_line = text.encode()
        try:
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, with_line)
        finally:
            os._exit(LOST)
