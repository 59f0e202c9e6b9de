"""Whether the services answer, what time they have, and whether they accept the credentials."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from email.utils import parsedate_to_datetime
from ssl import SSLError

from ..auth import StaticToken
from ..clock import RealClock
from ..errors import InvoicingError, hints_of
from ..policies import Timeouts
from ..session import Session
from ..transport import Exchange, Request
from ._checks import Finding
from ._harmless import call_documents, call_invoices
from ._settings import Settings
from ._variables import CA_FILE, DOCUMENTS, INVOICES, PROXY, Service, SettingsError

__all__ = ["ask_services", "clock_difference"]

SKEW = 5.0
"""Seconds between the clocks that are worth a word: a signature carries a timestamp."""

NOTHING_THERE = 404

_clock = RealClock()


async def ask_services(settings: Settings) -> list[Finding]:
    """Ask each service that is set up whether it answers, what time it has, and whether it accepts the credentials.

    Nothing is changed at a service: service A is asked for the invoice of an order that cannot exist, service B for a
    token and for the status of such a request. Nothing is raised for one that does not answer. A connection and an
    answer are waited for 5 seconds each, each call 15.
    """
    usable = [service for service in (DOCUMENTS, INVOICES) if settings.uses(service) and not settings.missing(service)]
    found = await asyncio.gather(*(_asked(settings, service) for service in usable))
    return [finding for several in found for finding in several]


async def _asked(settings: Settings, service: Service) -> list[Finding]:
    try:
        url = Session(settings.base_url(service), auth=StaticToken("-")).base_url
    except ValueError:
        return []  # what is wrong with it was said already
    async with AsyncExitStack() as stack:
        transport = settings.network.transport(Timeouts(connect=5, read=5))
        stack.push_async_callback(transport.close)
        begun = _clock.now()
        # Any answer, also without credentials, tells that the service is there, and what time it has.
        request = Request(method="GET", path="/", base_url=url.rstrip("/"), authorised=False)
        try:
            async with transport.send(request, Exchange()) as answer:
                elapsed, date, status = _clock.now() - begun, answer.header("Date"), answer.status
        except InvoicingError as error:
            return [Finding(service.title, "online", "bad", str(error), hint=_way_hint(settings, service, error))]
        root = (
            "HTTP 404 is what its root answers, where nothing need be" if status == NOTHING_THERE else f"HTTP {status}"
        )
        text = f"answers in {elapsed * 1000:,.0f} ms ({root})"
        found = [Finding(service.title, "online", "ok", text), _clocks(service, date, begun + elapsed / 2)]
        with suppress(SettingsError):  # as above
            found += await (call_documents if service is DOCUMENTS else call_invoices)(settings, transport)
    return found


def _way_hint(settings: Settings, service: Service, error: InvoicingError) -> str:
    """Return which variable has to do with a service that cannot be reached."""
    proxy = settings.network.way_to(settings.base_url(service))
    cause = error.__cause__
    if isinstance(cause, SSLError) or isinstance(getattr(cause, "certificate_error", None), SSLError):
        return f"{CA_FILE} or --ca-file names the authorities to trust, as those of a company's own proxy."
    if proxy is not None:
        return f"It is called through {proxy}: {PROXY} and --proxy name another, NO_PROXY the hosts that need none."
    return f"{' '.join(hints_of(error))} It is {service.prefix}BASE_URL."


def _clocks(service: Service, date: str | None, now: float) -> Finding:
    apart = clock_difference(date, now)
    if apart is None:
        return Finding(service.title, "clock", "note", "the service does not say what time it is")
    if abs(apart) <= SKEW:
        return Finding(service.title, "clock", "ok", "agrees with the service's to a few seconds")
    side = "ahead of" if apart > 0 else "behind"
    text = f"this machine is {abs(apart):,.0f} s {side} the service"
    hint = "Let it follow a time server: what is refused for its time is signed once more, for the service's."
    return Finding(service.title, "clock", "bad", text, hint=hint)


def clock_difference(date: str | None, now: float) -> float | None:
    """Return by how many seconds `now` is ahead of a Date header; None if there is none that can be read."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
