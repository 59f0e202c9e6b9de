"""Settings as frozen, validated values. Seconds everywhere; a value outside its limits is a `ValueError`."""

from __future__ import annotations

from attrs import field, frozen

from ._values.validators import count, flag, not_negative, optional, positive

__all__ = ["Limits", "OutagePolicy", "RetryPolicy", "Timeouts"]


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how long one call is tried.

    `attempts` counts the first one. The wait before attempt n + 1 is drawn evenly from 0 to
    min(`ceiling`, `first` * 2 ** (n - 1)) seconds (full jitter). A Retry-After longer than that is obeyed, also
    beyond `ceiling`. `deadline` bounds the whole call: its wait for a place in the session's limits, its
    attempts and the waits between; None for no bound. In a batch it stands still while an item waits for its place, and
    while the service is down. A wait that would end after the deadline is not begun: the error is raised at once.
    """

    attempts: int = field(default=5, validator=count)
    first: float = field(default=0.5, validator=not_negative)
    ceiling: float = field(default=30.0, validator=not_negative)
    deadline: float | None = field(default=300.0, validator=optional(positive))

    def delay(self, attempt: int, chance: float, *, retry_after: float | None = None) -> float:
        """Return the seconds to wait after failed attempt `attempt` (from 1), for `chance` in [0, 1)."""
        backoff = min(self.ceiling, self.first * 2.0 ** min(attempt - 1, 1000)) if self.first else 0.0
        jittered = backoff * chance
        return jittered if retry_after is None else max(retry_after, jittered)


@frozen(kw_only=True)
class Timeouts:
    """The time-outs of one attempt, in seconds, and the least speed of a document.

    `connect` limits the whole way to a connection: the name, every address, TLS, a proxy's tunnel; `read` the silence
    between two pieces of the answer; `attempt` the whole attempt from its first byte to the last of its body, without
    the time that a reader of `OrderDocuments.open` takes for himself. `floor` is the least average speed of a
    document's body in bytes per second, judged after `read` seconds: it ends a slow drip. `intent` is how old a
    submission's recorded intent may be when its first byte is sent; an older one is recorded anew. Who looks a
    submission in doubt up may rely on it only `intent` + `attempt` seconds and a moment after its intent.
    """

    connect: float = field(default=10.0, validator=positive)
    read: float = field(default=30.0, validator=positive)
    attempt: float = field(default=120.0, validator=positive)
    floor: float = field(default=1024.0, validator=not_negative)
    intent: float = field(default=5.0, validator=positive)


@frozen(kw_only=True)
class Limits:
    """The limits of one session on its use of the service, for all its users together.

    `concurrency` calls at most are between their first byte and the end of their body, not counting large documents of
    `OrderDocuments.open` while their readers ask for no more; `per_second` attempts at most begin in a second, evenly
    spaced; None for no such limit. After a quiet time `burst` of them may begin at once. A batch ends when its first
    `stop_after` items went wrong for the same cause with no success between, for which it begins with a few; None to
    go on whatever comes. With `adaptive`, the number of calls under way begins low and follows what the service can
    do, from its refusals and its latency, up to `concurrency`; without, it is `concurrency` at all times.
    """

    concurrency: int = field(default=32, validator=count)
    per_second: float | None = field(default=None, validator=optional(positive))
    stop_after: int | None = field(default=5, validator=optional(count))
    adaptive: bool = field(default=True, validator=flag)
    burst: int = field(default=1, validator=count)


@frozen(kw_only=True)
class OutagePolicy:
    """What the calls of one kind do while the service is down.

    After `after` failures for the service's sake (SYS_DEP_503, 429, a gateway's 502, 503 or 504, no connection) with no
    answer between, calls pause; of a batch at a service that never answered none is counted, so that a wrong address
    ends it. One that hardly ever failed before is down sooner: once more calls in a row failed than may be under way,
    nine at least. The first probe goes out about `probe` seconds later, the next ones at twice the distance each, up to
    `ceiling` seconds; the first answer ends the pause. A batch waits for that, and ends after `patience` seconds of it
    with what is left not started. A call outside a batch raises `ServiceDownError` at once; with `wait` it waits too,
    until its deadline.
    """

    after: int = field(default=20, validator=count)
    probe: float = field(default=1.0, validator=positive)
    ceiling: float = field(default=4.0, validator=positive)
    patience: float = field(default=3600.0, validator=positive)
    wait: bool = field(default=False, validator=flag)
