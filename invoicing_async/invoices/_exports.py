"""From a finished invoice to its document (README B.3): asked for until it is built, then its link followed.

The service owns the export and its own answers are the service's. The link is somebody else's: what its host answers
is that one document's trouble, never the credential's, and a link that is no good is asked for anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Literal, TypeAlias

from attrs import frozen

from .._core.http import Request, Response
from .._einvoices.decode import Export
from .._einvoices.links import MOVED, RENEWED, Link, LinkError, moved, read_link
from .._einvoices.poll_scheduler import Schedule
from .._files.body import DocumentReader
from .._files.existing import Published
from .._files.kinds import GENERIC, PDF_TYPES, DocumentType, Pdf, Xml
from .._files.places import Place
from .._files.publish import Destination
from ..errors import ApiError, ExportError, InvoicingError, PollTimeoutError
from ..session import Sleep
from ..session._internals import Internals

__all__ = ["KINDS", "ExportFormat", "Exporting"]

ExportFormat: TypeAlias = Literal["pdf", "xml"]
"""What a finished invoice is saved as. A further format stands here and in `KINDS`."""

KINDS: dict[str, DocumentType] = {
    "pdf": Pdf(PDF_TYPES | GENERIC),
    "xml": Xml(frozenset({"application/xml", "text/xml"}) | GENERIC),
}
"""A link's host may know nothing of the bytes: their proof decides."""


RENEWALS = 5
PATIENCE = 10.0
"""A host that refused every link that was asked for, more often than so and for so many seconds, is believed."""


@frozen
class _Moved:
    """A redirect, by its Location."""

    location: str | None


@frozen
class _Wanting:
    """Why there is no document yet; `error` is raised when there is no more time."""

    error: InvoicingError


_Fetched: TypeAlias = bytes | Published | _Moved | _Wanting


@frozen(kw_only=True)
class Exporting:
    """One invoice's document on its way. `request` asks for the export, `read` reads the answer to that.

    `sleep` is how it waits, between attempts too.
    """

    session: Internals
    invoice_id: str
    format: str
    request: Request
    read: Callable[[Response], Awaitable[Export]]
    place: Place
    to: Destination
    max_bytes: int
    sleep: Sleep

    async def saved(self, schedule: Schedule) -> Published:
        """Ask until the document is there, and save it.

        A link that is no good is asked for anew, at least `RENEWALS` times and for `PATIENCE` seconds if there is the
        time. Raises `ExportError` if the service cannot build it or its link gives no document, `PollTimeoutError`
        when the time is spent before there was a link, otherwise as a download does.
        """
        clock, asked = self.session.clock, 0
        begun = good_until = clock.monotonic()
        good_asks = 0
        while isinstance(found := await self._asked(), _Wanting):
            now, asked = clock.monotonic(), asked + 1
            if not isinstance(found.error, ExportError):
                good_until, good_asks = now, asked
            is_believed = asked - good_asks > RENEWALS and now - good_until >= PATIENCE
            wait = schedule.delay(asked, now - begun, chance=clock.random())
            is_late = schedule.timeout is not None and now - begun >= schedule.timeout
            if wait is None or is_late or is_believed:
                raise self._spent(found.error, asked, now - begun)
            await self.sleep(wait)
        return found

    async def _asked(self) -> Published | _Wanting:
        """Ask once for the export, then for its link and for where that leads."""
        export = await self.session.call(self.request, self.read, sleep=self.sleep)
        what = f"the {self.format} of {self.invoice_id}"
        if export.status == "FAIL":
            raise self._error(f"the service could not build {what}")
        if export.status != "DONE" or export.download_url is None:
            said = export.status if export.status != "DONE" else "DONE without a link"
            return _Wanting(PollTimeoutError(f"{what} is {said}", request_id=self.invoice_id))
        try:
            link = read_link(export.download_url, base=self.session.base_url + self.request.target)
        except LinkError as error:
            return _Wanting(self._error(f"the link of {what} {error}"))
        seen: list[str] = []
        while True:
            seen.append(link.url)
            found = await self._fetched(link)
            if isinstance(found, bytes):
                return await self.place.store(self.to, found)
            if not isinstance(found, _Moved):
                return found
            try:
                link = moved(link, found.location, seen)
            except LinkError as error:
                raise self._error(f"the link of the {self.format}, at {link.host}, {error}") from None

    async def _fetched(self, link: Link) -> _Fetched:
        request = Request(
            method="GET",
            path=link.path,
            query=link.query,
            base_url=link.base_url,
            authorised=False,
            answers=MOVED | RENEWED,
            operation="download_export",
            subject=self.invoice_id,
        )
        try:
            return await self.session.call(request, partial(self._received, link), sleep=self.sleep)
        except ApiError as error:
            refused = self._error(f"{link.host}, where the {self.format} is to be had, answered {error}")
            refused.attempts = error.attempts
            raise refused from error

    async def _received(self, link: Link, response: Response) -> _Fetched:
        if response.status in MOVED:
            return _Moved(response.header("Location"))
        if response.status in RENEWED:
            said = f"{link.host}, where the {self.format} is to be had, answered {response.status}"
            return _Wanting(self._error(said))
        session = self.session
        receiver = DocumentReader(KINDS[self.format], session.clock, session.timeouts, self.max_bytes)
        return await receiver.receive(response, self.place, self.to)

    def _error(self, text: str) -> ExportError:
        return ExportError(text, invoice_id=self.invoice_id)

    def _spent(self, error: InvoicingError, asked: int, elapsed: float) -> InvoicingError:
        """Return the error of the last answer, now that it was the last."""
        if isinstance(error, PollTimeoutError):
            return PollTimeoutError(f"{error} after {elapsed:g} s", request_id=self.invoice_id, polls=asked)
        return self._error(f"{error}; asked for {asked} times in {elapsed:g} s")
