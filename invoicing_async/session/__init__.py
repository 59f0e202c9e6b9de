"""Calls of a service: authorise, send, check, read, and repeat all of that as the policy says.

`Session.call(request, read)` is the only way to a service. `read` runs inside the attempt, so that a retry signs
anew, reads anew and writes anew.

- `_session`: A place to call one service from: what all its calls share, and how they end with it.
- `_call`: One call with its attempts: the only retry loop of the project.
- `_answer`: What the end of an attempt says of the service.
- `_attempt`: One attempt of a call: a place, an intent, one exchange, and what its answer says.
- `_error_answer`: An answer that is an error by its status.
- `_retries`: What a call does once an attempt has failed.
- `_retry`: What follows from a failed attempt, decided without I/O.
- `_feature`: What every client of a service takes from its session.
"""

from __future__ import annotations

from .._core.admission import WIDE
from .._core.outcomes import may_repeat
from ._answer import StaleIntentError
from ._call import Sleep
from ._feature import Feature
from ._retries import CHECKS
from ._retry import RENEWALS
from ._session import Session

__all__ = ["CHECKS", "RENEWALS", "WIDE", "Feature", "Session", "Sleep", "StaleIntentError", "may_repeat"]
