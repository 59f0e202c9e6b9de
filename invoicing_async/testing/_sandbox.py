"""A sandbox that keeps every request, opens sessions on itself, and asserts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, contextmanager, nullcontext
from importlib import import_module
from threading import Thread
from typing import TypedDict, Unpack

from attrs import evolve

from .._core.clock import Clock
from .._core.http import Request
from ..auth import HmacAuth, OAuthClientCredentials
from ..events import Observer
from ..policies import Limits, OutagePolicy, RetryPolicy, Timeouts
from ..sandbox import Created, Fault, Faults, Operation, Sandbox, SandboxSettings
from ..sandbox._answers import Reply
from ..sandbox._pdf_page import check_installed
from ..sandbox._shared import Call
from ..session import Session, SharedLimits
from ..settings import DOCUMENTS, INVOICES
from ._checks import content_of, duplicates, listed, unsettled, unsigned
from ._clock import FakeClock
from ._requests import RecordedRequest

__all__ = ["BASE_PATH", "RecordingSandbox", "SessionOptions"]

BASE_PATH = "/api/v1"
"""The path of the base URL at which a sandbox is served."""
IN_PROCESS = f"http://sandbox.test{BASE_PATH}"
"""The base URL of a session that reaches no network: nobody looks the name up."""


class SessionOptions(TypedDict, total=False):
    """What a session on a sandbox may be given, as `Session` takes it."""

    retry: RetryPolicy
    timeouts: Timeouts
    limits: Limits | SharedLimits
    outage: OutagePolicy
    on_event: Observer


class RecordingSandbox(Sandbox):
    """A `Sandbox` for tests: it keeps every request with its body, opens sessions on itself, and asserts.

    Takes what `Sandbox` takes; a fault may also be its text form, such as "outage:length=67" (see `Fault`). What it
    keeps grows with each request. Raises `ImportError`, which names the extra, where fpdf2 is not installed.
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        faults: Faults | None = None,
        inject: Iterable[Fault | str] = (),
        clock: Clock | None = None,
    ) -> None:
        check_installed()
        self._requests: list[RecordedRequest] = []
        self._under_way: dict[int, int] = {}
        """Which record is that of a request that is being answered, by the request's `id`."""
        super().__init__(settings, faults=faults, clock=clock)
        self.inject(*inject)

    def inject(self, *faults: Fault | str) -> None:
        """Put these faults in force from now, in the place of all that were, as `Sandbox.inject`; none ends them.

        Raises `ValueError` for a text that is no fault, naming the field and its limit, and for a fault given twice.
        """
        super().inject(*(Fault.parse(fault) if isinstance(fault, str) else fault for fault in faults))

    @property
    def requests(self) -> tuple[RecordedRequest, ...]:
        """Every request so far, in the order in which they were answered."""
        return tuple(self._requests)

    def requests_to(self, operation: Operation | str) -> tuple[RecordedRequest, ...]:
        """Return the requests of one operation, such as "submit". Raises `ValueError` for one that is not there."""
        wanted = Operation(operation)
        return tuple(request for request in self._requests if request.operation is wanted)

    @property
    def documents_auth(self) -> HmacAuth:
        """The credentials that the order documents accept."""
        return HmacAuth(**self.credentials.partner())

    @property
    def invoices_auth(self) -> OAuthClientCredentials:
        """The credentials that the e-invoices accept."""
        return OAuthClientCredentials(**self.credentials.client())

    def documents_session(self, **options: Unpack[SessionOptions]) -> Session:
        """Return a session for order documents that reaches this sandbox in-process and goes by its clock.

        Nothing is open yet: enter it with `async with`, or give it to what does.
        """
        return Session(IN_PROCESS, auth=self.documents_auth, transport=self, clock=self.clock, **options)

    def invoices_session(self, **options: Unpack[SessionOptions]) -> Session:
        """Return a session for e-invoices that reaches this sandbox in-process and goes by its clock."""
        return Session(IN_PROCESS, auth=self.invoices_auth, transport=self, clock=self.clock, **options)

    @contextmanager
    def serve_in_thread(self, *, base_path: str = BASE_PATH) -> Iterator[str]:
        """Serve both services on a port of 127.0.0.1 from a thread of its own, and return their base URL.

        For tests without an event loop, and for code under test that runs its own; where there is one, `serve` does
        without the thread. Raises `OSError` where no port can be had.
        """
        import_module("fpdf")  # takes long enough to look like a service that hangs
        ready: Future[tuple[str, Callable[[], object]]] = Future()
        thread = Thread(target=lambda: asyncio.run(_serving(self, base_path, ready)), name="sandbox", daemon=True)
        thread.start()
        url, stop = ready.result()
        try:
            yield url
        finally:
            stop()
            thread.join()

    def environment(self, base_url: str) -> dict[str, str]:
        """Return the variables with which `Settings.load` and the command line reach this sandbox at a base URL."""
        documents = {"base_url": base_url, **self.credentials.partner()}
        invoices = {"base_url": base_url, **self.credentials.client()}
        return {
            prefix + name.upper(): str(value)
            for prefix, values in ((DOCUMENTS.prefix, documents), (INVOICES.prefix, invoices))
            for name, value in values.items()
        }

    def assert_signed(self) -> None:
        """Raise `AssertionError` unless each request had a credential that the services accept (README A.2, B.4).

        That is a right and fresh signature for a document, a valid token for an e-invoice, and none at all for a
        download link. A refusal that the same request did not meet again, as when a token expires, does not count. No
        request at all is a failure too.
        """
        if not self._requests:
            raise AssertionError("nothing was asked for: no request reached the sandbox")
        if lines := unsigned(self._requests):
            raise AssertionError(
                f"{len(lines)} of {len(self._requests)} requests were not signed right:{listed(lines)}"
            )

    def assert_no_duplicates(self, *, key: Callable[[Created], object] = content_of) -> None:
        """Raise `AssertionError` if two e-invoices were made of one draft.

        A draft is known by its whole content, in whatever order and form it was written; where two invoices may be of
        the same content, `key` says what tells one from another, such as
        `lambda invoice: invoice.content["invoice_data"]["consumer"]["code"]`.
        """
        if lines := duplicates(self.created.values(), key):
            raise AssertionError(f"{len(lines)} drafts were invoiced more than once:{listed(lines)}")

    def assert_all_settled(self) -> None:
        """Raise `AssertionError` unless the end of each e-invoice, SUCCESS or FAILED, was told to who submitted it.

        Names what is in doubt, since the answer to its submission was lost, and what was left NEW. No e-invoice is a
        failure too. A submission of which nothing was made has no end, though its sender may be in doubt of it.
        """
        if not self.created:
            raise AssertionError("no e-invoice was made: no submission was accepted")
        if lines := unsettled(self.created, self._requests):
            raise AssertionError(f"{len(lines)} of {len(self.created)} e-invoices are not settled:{listed(lines)}")

    async def _answer(self, request: Request, ended: ExitStack) -> Reply:
        try:
            reply = await super()._answer(request, ended)
        finally:
            number = self._under_way.pop(id(request))

        async def stream(body: bytes) -> AsyncIterator[bytes]:
            async with aclosing(reply.stream(body)) as pieces:  # type: ignore[type-var] # they are generators
                async for piece in pieces:
                    yield piece
            self._requests[number] = evolve(self._requests[number], delivered=True)

        return evolve(reply, stream=stream)

    def _record(self, call: Call, reply: Reply | None) -> None:
        super()._record(call, reply)
        self._under_way[id(call.request)] = len(self._requests)
        record = RecordedRequest(
            at=call.at,
            operation=call.operation,
            method=call.request.method,
            path=call.path,
            query=call.request.query,
            ids=call.ids,
            headers=call.headers,
            body=call.request.body,
            status=None if reply is None else reply.status,
            answer=b"" if reply is None else reply.body,
            objection=call.objection,
        )
        self._requests.append(record)


async def _serving(sandbox: RecordingSandbox, base_path: str, ready: Future[tuple[str, Callable[[], object]]]) -> None:
    """Serve until the function that `ready` is given is called, in whichever thread."""
    loop, ended, clock = asyncio.get_running_loop(), asyncio.Event(), sandbox.clock

    def work() -> tuple[int, int]:
        return len(sandbox.requests), sandbox.in_flight

    try:
        with clock.patient(work) if isinstance(clock, FakeClock) else nullcontext():
            async with sandbox.serve(base_path=base_path) as url:
                ready.set_result((url, lambda: loop.call_soon_threadsafe(ended.set)))
                await ended.wait()
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)  # whatever it is: somebody waits for it
