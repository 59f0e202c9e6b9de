"""Calls of a service: authorise, send, check, read, and repeat all of that as the policy says.

`Session.call(request, read)` is the only way to a service. `read` runs inside the attempt, so that a retry signs
anew, reads anew and writes anew. What a feature of this library has beside that is had from `_session.internals_of`.

- `_session`: A place to call one service from.
- `_internals`: What a session is inside: what its calls and its features work with, and its users do not see.
- `_options`: What a session takes beside its base URL and its credential, and the names of the services.
- `_call`: One call with its attempts: the only retry loop of the project.
- `_answer`: What the end of an attempt says of the service.
- `_attempt`: One attempt of a call: a place, an intent, one exchange, and what its answer says.
- `_carrier`: What carries the requests of a session: what it was given, or what it makes and closes itself.
- `_deadline`: When one call ends at the latest.
- `_error_answer`: An answer that is an error by its status.
- `_intent`: The intent of an attempt to send what must not be sent unnoticed, and how old it may be.
- `_life`: The life of a session: whether it may be used, what is under way in it, and how that ends.
- `_place`: What an attempt has before its first byte: the turn in its lane, and a place.
- `_resources`: What a session holds for its features, such as the threads that write files, and closes with itself.
- `_retries`: What a call does once an attempt has failed.
- `_retry`: What follows from a failed attempt, decided without I/O.
- `_setbacks`: What failures for the service's sake mean for one call.
- `_reason`: Why a call is tried again, in one word.
- `_telling`: The events of one call.
- `_log`: What the standard `logging` is told of the events.
- `_shared_limits`: Limits that several sessions of one event loop keep together.
- `_feature`: What the inside of every client of a service takes from its session.
"""

from __future__ import annotations

from .._core.admission import WIDE
from .._core.outcomes import may_repeat
from ._answer import StaleIntentError
from ._call import Sleep
from ._log import LAST_CALL, last_call
from ._options import ServiceName, SessionOptions
from ._retries import CHECKS
from ._retry import RENEWALS
from ._session import Session
from ._shared_limits import SharedLimits

__all__ = [
    "CHECKS",
    "LAST_CALL",
    "RENEWALS",
    "WIDE",
    "ServiceName",
    "Session",
    "SessionOptions",
    "SharedLimits",
    "Sleep",
    "StaleIntentError",
    "last_call",
    "may_repeat",
]
