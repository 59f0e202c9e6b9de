"""Calls with an agent's instrumentation of aiohttp on, in a process of its own: it stays on for the rest of one.

`python agents_work.py opentelemetry|sentry [already]` prints what the agent saw and what the service was told, as JSON.
With `already` the package is imported before the agent is switched on, as an application may.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

Report = Callable[[], dict[str, Any]]
Root = Callable[[str], AbstractContextManager[Any]]

SEEN: list[dict[str, str]] = []
"""The headers of every request in the order in which they came."""


def opentelemetry() -> tuple[Root, Report]:
    from opentelemetry import trace
    from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    AioHttpClientInstrumentor().instrument()

    def report() -> dict[str, Any]:
        return {
            format(span.context.span_id, "016x"): {
                "name": span.name,
                "trace": format(span.context.trace_id, "032x"),
                "parent": format(span.parent.span_id, "016x") if span.parent else None,
                "status": (span.attributes or {}).get("http.status_code"),
            }
            for span in spans.get_finished_spans()
        }

    return trace.get_tracer("test").start_as_current_span, report


def sentry() -> tuple[Root, Report]:
    import sentry_sdk
    from sentry_sdk.integrations.aiohttp import AioHttpIntegration
    from sentry_sdk.transport import Transport

    transactions: list[Any] = []

    class Kept(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            transactions.extend(item.payload.json for item in envelope.items if item.type == "transaction")

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:1/1",
        traces_sample_rate=1.0,
        transport=Kept,
        default_integrations=False,
        integrations=[AioHttpIntegration()],
    )

    @contextmanager
    def root(name: str) -> Iterator[None]:
        with sentry_sdk.isolation_scope(), sentry_sdk.start_transaction(name=name):
            yield

    def report() -> dict[str, Any]:
        found = {}
        for transaction in transactions:
            own = transaction["contexts"]["trace"]
            found[own["span_id"]] = {"name": transaction["transaction"], "trace": own["trace_id"], "parent": None}
            for span in transaction["spans"]:
                status = span.get("data", {}).get("http.response.status_code")
                more = {"trace": span["trace_id"], "parent": span["parent_span_id"], "status": status}
                found[span["span_id"]] = {"name": span["op"], **more}
        return found

    return root, report


async def calls(root: Root, told: str) -> None:
    """Two documents at once, one of them at the second attempt, a submission with its token, and one that finds nobody.

    Each below a root of its own; then a batch, whose items are repeated while others begin.
    """
    from fakes import FakeResponse
    from outages import Calls
    from peers import free_port

    from invoicing_async import OAuthClientCredentials, RetryPolicy, Session, StaticToken, TransportError
    from invoicing_async.transport import Exchange, Repeat, Request, Response, serve

    class Service:
        """Is busy at first for the second document and for one of the batch's; gives a token to who asks."""

        def __init__(self) -> None:
            self.busy = {"/second", "/1"}

        def send(self, request: Request, exchange: Exchange) -> Any:
            header = {name.lower(): value for name, value in request.headers.items()}.get(told, "")
            SEEN.append({"path": request.path, "header": header})
            if request.path in self.busy:
                self.busy.remove(request.path)
                return nullcontext(FakeResponse(status=503))
            token = b'{"access_token": "t", "token_type": "Bearer", "expires_in": 300}'
            return nullcontext(FakeResponse(pieces=(token if "token" in request.path else b"ok",)))

        async def close(self) -> None: ...

    async def read(response: Response) -> bytes:
        return await response.read(100)

    async def below(name: str, session: Session, request: Request) -> None:
        with root(name):
            await session.call(request, read)

    retry = RetryPolicy(attempts=2, first=0)
    auth = OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")
    once = Request(method="POST", path="/submission", body=b"{}", repeat=Repeat.IF_NOT_SENT)
    async with (
        serve(Service()) as url,
        Session(url, auth=StaticToken("t"), retry=retry) as documents,
        Session(url, auth=auth, retry=retry) as invoices,
        Session(f"http://127.0.0.1:{free_port()}", auth=StaticToken("t"), retry=retry) as nowhere,
    ):
        await asyncio.gather(
            *(below(name, documents, Request(method="POST", path=f"/{name}")) for name in ("first", "second"))
        )
        await below("submission", invoices, once)
        with suppress(TransportError):
            await below("refused", nowhere, once)
        with root("batch"):
            outcomes, _ = await Calls(documents).run(3)
            assert [error for _, error in outcomes] == [None] * 3


def main(agent: str, *when: str) -> None:
    if "already" in when:
        import invoicing_async.transport  # noqa: F401 - that it is there is the point
    root, report = {"opentelemetry": opentelemetry, "sentry": sentry}[agent]()
    asyncio.run(calls(root, {"opentelemetry": "traceparent", "sentry": "sentry-trace"}[agent]))
    print(json.dumps({"spans": report(), "seen": SEEN}))  # noqa: T201 - its one output


if __name__ == "__main__":
    main(*sys.argv[1:])
