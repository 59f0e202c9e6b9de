"""What a session takes beside its base URL and its credential, and the names of the services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypedDict

from .._core.clock import Clock
from .._core.http import Transport
from ..events import Observer
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ._shared_limits import SharedLimits

__all__ = ["ServiceName", "SessionOptions"]

ServiceName: TypeAlias = Literal["documents", "invoices"]
"""The services by the names that `Session.from_env` takes: service A, order documents, and service B, e-invoices."""


class SessionOptions(TypedDict, total=False):
    """The keyword arguments of `Session` but for `auth`."""

    retry: RetryPolicy | None
    timeouts: Timeouts | None
    limits: Limits | SharedLimits | None
    outage: OutagePolicy | None
    transport: Transport | Callable[[], Transport] | None
    clock: Clock | None
    on_event: Observer | None
