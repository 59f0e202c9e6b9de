"""The two services of the README as a local stand-in: a `Transport` that answers as they do, and fails as it is told.

Used in-process without a socket, or served on a port with `Sandbox.serve`. It shares no code with
the session: it verifies what arrives with `_core.signing.verify`. Every answer is drawn from the seed and the ids in
the request, so the same requests get the same answers in any order and at any concurrency. Service A is in
`sandbox._orders`, service B in `sandbox._einvoices`, what they share in `sandbox._shared`, the answers of a script in
`sandbox._answers`. Faults that come and go are values, in `sandbox._service_faults` and `sandbox._wire_faults`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from ssl import SSLContext
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from attrs import evolve, frozen

from .._core.clock import Clock, RealClock
from .._core.http import Exchange, Request, Response
from ..errors import TransportError
from ._answers import (
    Answer,
    CutError,
    DropBeforeAnswer,
    Endless,
    Genuine,
    Hang,
    JsonUnder200,
    NotEligible,
    NotPdf,
    RateLimited,
    Reply,
    Reset,
    Scripted,
    Slow,
    Truncated,
    Unavailable,
)
from ._einvoices import Created, Einvoices
from ._faults import FAULT_KINDS, Fault, InFlight, SampledFault
from ._injection import InjectedFaults, ServiceClock
from ._orders import Orders
from ._port import listening
from ._routes import Endpoint, endpoints
from ._service_faults import Capacity, ClockSkew, NeverDone, Outage, Random503, StoreRate, TooManyRequests
from ._shared import ALLOWED_SUBSTATUSES, Call, Dice, Faults, Operation, SandboxCredentials, SandboxSettings, Shared
from ._wire_faults import ConnectionReset, Drip, GatewayTimeout, LostAnswer, Silence, Truncation, UnendedBody

__all__ = [
    "ALLOWED_SUBSTATUSES",
    "FAULT_KINDS",
    "Answer",
    "Capacity",
    "ClockSkew",
    "ConnectionReset",
    "Created",
    "Drip",
    "DropBeforeAnswer",
    "Endless",
    "Fault",
    "Faults",
    "GatewayTimeout",
    "Genuine",
    "Hang",
    "JsonUnder200",
    "LogEntry",
    "LostAnswer",
    "NeverDone",
    "NotEligible",
    "NotPdf",
    "Operation",
    "Outage",
    "Random503",
    "RateLimited",
    "Reset",
    "SampledFault",
    "Sandbox",
    "SandboxCredentials",
    "SandboxSettings",
    "Scripted",
    "Silence",
    "Slow",
    "StoreRate",
    "TooManyRequests",
    "Truncated",
    "Truncation",
    "Unavailable",
    "UnendedBody",
    "demo_orders",
]

CREDENTIAL_HEADERS = (
    "authorization",
    "cookie",
    "x-partner-client-id",
    "x-signature",
    "x-store-client-id",
    "x-store-token",
)
"""Headers that identify a caller; none of them may reach a download link."""


@frozen(kw_only=True)
class LogEntry:
    """One request as it arrived; it holds no secret (a signature is none).

    `at` is epoch seconds of arrival. `status` is None if no answer left. `verified` tells whether its credential
    was right, `credentials` names the credential headers it carried. `timestamp` and `signature` are the values
    of `x-timestamp` and `x-signature`.
    """

    at: float
    operation: Operation
    method: str
    path: str
    status: int | None
    verified: bool
    credentials: tuple[str, ...] = ()
    timestamp: str | None = None
    signature: str | None = None


def demo_orders(n: int, *, seed: int = 0) -> tuple[str, ...]:
    """Return `n` order ids that look like the service's, the same ones for the same seed."""
    dice = Dice(seed)
    return tuple(dice.uuid("demo order", index) for index in range(n))


@frozen
class _Stage:
    """What one scripted answer may use of the services."""

    shared: Shared
    call: Call
    handle: Callable[[Call], Reply]

    @property
    def clock(self) -> Clock:
        return self.shared.clock

    def genuine(self) -> Reply:
        return self.handle(self.call)

    def unavailable(self, status: int | None = None) -> Reply:
        return self.shared.unavailable(self.call, status)

    def not_eligible(self, status: int | None = None) -> Reply:
        return self.shared.not_eligible(self.call, status)

    def rate_limited(self, retry_after: str | None) -> Reply:
        return self.shared.rate_limited(self.call, retry_after)


class Sandbox:
    """Both services as one `Transport`, which `inject` makes misbehave.

    `faults` are what befalls certain ids, `inject` faults that are in force for certain times; see `Sandbox.inject`.
    `log` holds the latest requests, `counts` how many there were of each (operation, status), `in_flight` how
    many are between arrival and the end of their body, `peak` the most there were. One event loop at a time.
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        faults: Faults | None = None,
        inject: Iterable[Fault] = (),
        clock: Clock | None = None,
    ) -> None:
        self.settings: SandboxSettings = settings or SandboxSettings()
        self.clock: Clock = clock or RealClock()
        self.log: deque[LogEntry] = deque(maxlen=self.settings.log_size)
        self.counts: Counter[tuple[Operation, int | None]] = Counter()
        self.in_flight: int = 0
        self.peak: int = 0
        self._injected = InjectedFaults()
        service_clock = ServiceClock(self.clock, self._injected.skew)
        self._shared = Shared(self.settings, faults or Faults(), service_clock, Dice(self.settings.seed))
        self._einvoices = Einvoices(self._shared)
        self._endpoints = endpoints(Orders(self._shared), self._einvoices)
        self._scripts: dict[str, deque[Scripted]] = {}
        self.inject(*inject)

    def __repr__(self) -> str:
        return f"Sandbox(seed={self.settings.seed}, {self.counts.total()} requests)"

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self._shared.faults

    @property
    def credentials(self) -> SandboxCredentials:
        """Who may call."""
        return self.settings.credentials

    @property
    def created(self) -> Mapping[str, Created]:
        """Every e-invoice that was made, by its request id, oldest first."""
        return MappingProxyType(self._einvoices.created)

    def calls(self, operation: str) -> int:
        """Count the requests of an operation, whatever was answered."""
        return sum(number for (kind, _), number in self.counts.items() if kind == operation)

    def script(self, key: str, answers: Iterable[Scripted]) -> None:
        """Answer the next requests of `key` with these, one each, then as usual again.

        `key` is an `Operation`, a path below the base URL as it is sent, or an id in it as the caller gave it
        (order, request or invoice). A path's script goes before an id's, and that before an operation's.
        """
        self._scripts.setdefault(str(key), deque()).extend(answers)

    def revoke_tokens(self) -> None:
        """Refuse every token issued so far, as a service that restarted would."""
        self._einvoices.revoke()

    def inject(self, *faults: Fault) -> None:
        """Put these faults in force from now, in the place of all that were; none ends them.

        A call meets them in this order, the first one first: one that answers keeps it from the others and from the
        service. Raises `ValueError` for the same fault twice.
        """
        self._injected.put(faults, self._shared)

    @property
    def injected(self) -> Mapping[Fault, Counter[str]]:
        """What each fault in force did so far, how often; its class says what it counts."""
        return self._injected.counts

    @asynccontextmanager
    async def send(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        """Answer one request. Raises `TransportError` where a fault says so."""
        try:
            async with self.played(request, exchange) as response:
                yield response
        except CutError as cut:
            # How a connection ends makes a difference on a port only.
            raise TransportError(str(cut), sent=cut.sent) from None

    @asynccontextmanager
    async def played(self, request: Request, exchange: Exchange) -> AsyncIterator[Response]:
        """Do as `send`; a connection that is to be reset raises an error of its own."""
        self._injected.connect()
        exchange.leave()
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            with ExitStack() as ended:
                yield await self._answer(request, ended)
        finally:
            self.in_flight -= 1

    async def close(self) -> None:
        """Nothing is held open."""

    @asynccontextmanager
    async def serve(
        self, *, base_path: str = "", host: str = "127.0.0.1", port: int = 0, ssl: SSLContext | None = None
    ) -> AsyncIterator[str]:
        """Serve both services on a real port while the block runs, and return its base URL; port 0 takes a free one.

        Faults are real on it: what is reset ends with a TCP reset, what is truncated with a closed connection, and
        while connections are refused nobody listens. Raises `OSError` for a port that is taken.
        """
        async with listening(self, self._injected, base_path=base_path, host=host, port=port, ssl=ssl) as url:
            yield url

    async def _answer(self, request: Request, ended: ExitStack) -> Reply:
        call, handle = self._received(request)
        flight = InFlight(call, self.clock.monotonic(), ended)
        reply: Reply | None = None
        try:
            answer = await self._injected.answer(flight, partial(self._genuine, call, handle))
            self._injected.connect(sent=True)
            reply = answer
        finally:
            self._record(call, reply)
        if self.settings.latency:
            await self.clock.sleep(self.settings.latency)
        return answer

    def _record(self, call: Call, reply: Reply | None) -> None:
        """Count a call and log it; the reply is None if no answer left."""
        status = None if reply is None else reply.status
        self.counts[call.operation, status] += 1
        entry = LogEntry(
            at=call.at,
            operation=call.operation,
            method=call.request.method,
            path=call.path,
            status=status,
            verified=not call.objection,
            credentials=tuple(name for name in CREDENTIAL_HEADERS if name in call.headers),
            timestamp=call.headers.get("x-timestamp"),
            signature=call.headers.get("x-signature"),
        )
        self.log.append(entry)

    async def _genuine(self, call: Call, handle: Callable[[Call], Reply]) -> Reply:
        """Answer as the next of a script says, or as the services do."""
        scripts = (self._scripts.get(key) for key in (call.path, call.subject, call.operation.value))
        script = next(filter(None, scripts), None)
        scripted: Scripted = script.popleft() if script else Genuine()
        answer = await scripted.play(_Stage(self._shared, call, handle))
        if isinstance(answer, Reply):
            return answer
        return Reply(status=answer.status, headers=answer.headers, stream=lambda _: answer.chunks())

    def _received(self, request: Request) -> tuple[Call, Callable[[Call], Reply]]:
        """Decide what is asked for and by whom, on arrival."""
        path = (request.path or urlsplit(request.base_url).path).removeprefix(self.settings.base_path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        call = Call(request=request, path=path, headers=headers, at=self.clock.now())
        for endpoint in self._endpoints:
            if found := endpoint.pattern.fullmatch(path):
                ids = tuple(unquote(group) for group in found.groups())
                call = evolve(call, operation=endpoint.operation, ids=ids)
                call = evolve(call, objection=endpoint.objection(call))
                return call, self._handler(endpoint, call)
        nothing = "There is nothing at this path"
        return call, partial(self._shared.refused, status=404, code="SANDBOX_404", message=nothing)

    def _handler(self, endpoint: Endpoint, call: Call) -> Callable[[Call], Reply]:
        if call.request.method != endpoint.method:
            return partial(self._shared.refused, status=405, code="SANDBOX_405", message="This path has another method")
        if call.media_type == "application/octet-stream":
            message = "application/octet-stream is never asked for"
            return partial(self._shared.refused, status=415, code="SANDBOX_415", message=message)
        return endpoint.refuse if call.objection else endpoint.handle
