"""The attributes of spans and metrics: HTTP's by the stable semantic conventions of OpenTelemetry, and our own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from ..events import CallStarted

__all__ = [
    "ATTEMPT",
    "ATTEMPTS",
    "CALL_ID",
    "ERROR_TYPE",
    "METHOD",
    "OPERATION",
    "OTHER_METHOD",
    "PAUSE",
    "PAUSED",
    "POLLS",
    "QUEUED",
    "REASON",
    "REQUEST_STATUS",
    "RESENT",
    "RESUMED",
    "RETRY",
    "SCHEMA",
    "SCOPE",
    "SENT",
    "STATUS",
    "STORE",
    "SUBJECT",
    "UNSENT",
    "URL",
    "WAIT_BEFORE",
    "Value",
    "error_type",
    "target",
]

SCOPE: Final = "invoicing_async"
SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The newest version of the conventions that was read; HTTP's attributes have been stable since 1.23."""

METHOD: Final = "http.request.method"
URL: Final = "url.full"
STATUS: Final = "http.response.status_code"
RESENT: Final = "http.request.resend_count"
ERROR_TYPE: Final = "error.type"

OPERATION: Final = "invoicing.operation"
CALL_ID: Final = "invoicing.call_id"
SUBJECT: Final = "invoicing.subject"
STORE: Final = "invoicing.store"
ATTEMPT: Final = "invoicing.attempt"
ATTEMPTS: Final = "invoicing.attempts"
QUEUED: Final = "invoicing.queued"
SENT: Final = "invoicing.sent"
REASON: Final = "invoicing.retry.reason"
WAIT_BEFORE: Final = "invoicing.retry.delay"
REQUEST_STATUS: Final = "invoicing.request.status"
POLLS: Final = "invoicing.polls"
PAUSE: Final = "invoicing.pause.duration"

RETRY: Final = "invoicing.retry"
UNSENT: Final = "invoicing.attempt.not_sent"
PAUSED: Final = "invoicing.paused"
RESUMED: Final = "invoicing.resumed"

OTHER_METHOD: Final = "_OTHER"
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_PORTS = {"http": 80, "https": 443}

ERRORS = 400
"""The first status that is an error."""

Value = str | int | float
"""Of an attribute."""


@frozen
class _Server:
    url: str
    address: str
    port: int


@lru_cache(maxsize=256)
def _server(base_url: str) -> _Server:
    parts = urlsplit(base_url)
    host = parts.netloc.rpartition("@")[2]
    return _Server(
        f"{parts.scheme}://{host}{parts.path}", parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    )


def target(event: CallStarted) -> Mapping[str, Value]:
    """Return what every attempt of a call has in common, without query, user name and password."""
    server = _server(event.base_url)
    return {
        METHOD: event.method if event.method in _METHODS else OTHER_METHOD,
        "server.address": server.address,
        "server.port": server.port,
        URL: server.url + event.path,
    }


def error_type(error: BaseException, status: int | None) -> str:
    """Return in one word why a request failed: the status of an answer that is an error, else the error's class."""
    return str(status) if status is not None and status >= ERRORS else type(error).__qualname__
