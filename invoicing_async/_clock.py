"""The door to time and chance. Nothing else asks for the time, sleeps or draws a random number."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from typing import Protocol

__all__ = ["Clock", "RealClock", "token"]


class Clock(Protocol):
    """Time and chance as one thing that a test can turn by hand."""

    def now(self) -> float:
        """Seconds since the epoch, for timestamps that leave this machine."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back, for durations."""

    def random(self) -> float:
        """A number drawn evenly from [0, 1)."""

    async def sleep(self, seconds: float) -> None:
        """Suspend this task."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Cancel the block after so many seconds and raise `TimeoutError` in its place; None never does."""


class RealClock:
    """The machine's clock and generator."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    random = staticmethod(random.random)
    sleep = staticmethod(asyncio.sleep)
    timeout = staticmethod(asyncio.timeout)


def token(size: int = 8) -> str:
    """A random name of `size` bytes in hex, unlike any other on any machine."""
    return secrets.token_hex(size)
