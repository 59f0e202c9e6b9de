"""Whether the services answer, what time they have, and whether the client's token is given."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime

from ..auth import OAuthClientCredentials, StaticToken
from ..clock import RealClock
from ..errors import InvoicingError, hints_of
from ..policies import RetryPolicy, Timeouts
from ..session import Session
from ..session._session import internals_of
from ..transport import Exchange, Request
from ._checks import Finding
from ._settings import DOCUMENTS, INVOICES, Service, Settings, SettingsError

__all__ = ["ask_services", "clock_difference"]

SKEW = 5.0
"""Seconds between the clocks that are worth a word: a signature carries a timestamp."""

_clock = RealClock()


async def ask_services(settings: Settings) -> list[Finding]:
    """Ask each service that is set up whether it answers, and what time it has; try the client's token.

    Nothing is changed at a service, and nothing is raised for one that does not answer. A connection and an answer are
    waited for 5 seconds each, the token 15.
    """
    usable = [service for service in (DOCUMENTS, INVOICES) if settings.uses(service) and not settings.missing(service)]
    found = await asyncio.gather(*(_asked(settings, service) for service in usable))
    return [finding for several in found for finding in several]


async def _asked(settings: Settings, service: Service) -> list[Finding]:
    try:
        url = Session(settings.base_url(service), auth=StaticToken("-")).base_url
    except ValueError:
        return []  # what is wrong with it was said already
    transport = settings.network.transport(Timeouts(connect=5, read=5))
    begun = _clock.now()
    # Any answer, also without credentials, tells that the service is there, and what time it has.
    request = Request(method="GET", path="/", base_url=url.rstrip("/"), authorised=False)
    try:
        async with transport.send(request, Exchange()) as answer:
            elapsed, date, status = _clock.now() - begun, answer.header("Date"), answer.status
    except InvoicingError as error:
        return [Finding(service.title, "online", "bad", " ".join((f"{error}.", *hints_of(error))))]
    finally:
        await transport.close()
    text = f"answers ({status}, {elapsed * 1000:,.0f} ms)"
    found = [Finding(service.title, "online", "ok", text), _clocks(service, date, begun + elapsed / 2)]
    return [*found, *(await _token(settings) if service is INVOICES else [])]


def _clocks(service: Service, date: str | None, now: float) -> Finding:
    apart = clock_difference(date, now)
    if apart is None:
        return Finding(service.title, "clock", "note", "the service does not say what time it is")
    if abs(apart) <= SKEW:
        return Finding(service.title, "clock", "ok", "agrees with the service's to a few seconds")
    side = "ahead of" if apart > 0 else "behind"
    return Finding(service.title, "clock", "bad", f"this machine is {abs(apart):,.0f} s {side} the service")


def clock_difference(date: str | None, now: float) -> float | None:
    """Return by how many seconds `now` is ahead of a Date header; None if there is none that can be read."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None


async def _token(settings: Settings) -> list[Finding]:
    """Ask for a token: it changes nothing at the service and tells whether the client is known."""
    try:
        session = settings.invoices(retry=RetryPolicy(attempts=1, deadline=15))
    except SettingsError:
        return []
    if not isinstance(session.auth, OAuthClientCredentials):
        return []
    try:
        async with session:
            await session.auth.prepare(session.call, internals_of(session).clock)
    except InvoicingError as error:
        return [Finding(INVOICES.title, "token", "bad", " ".join((f"{error}.", *hints_of(error))))]
    return [Finding(INVOICES.title, "token", "ok", "the client is accepted")]
