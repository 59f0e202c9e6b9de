"""What a session takes beside its base URL and its credential."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

from .._core.clock import Clock
from .._core.http import Transport
from ..events import Observer
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._shared_limits import SharedLimits

__all__ = ["SessionOptions"]


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of `Session` but for `auth`."""

    retry: RetryPolicy | None
    timeouts: Timeouts | None
    limits: Limits | SharedLimits | None
    outage: OutagePolicy | None
    transport: Transport | Callable[[], Transport] | None
    clock: Clock | None
    on_event: Observer | None
