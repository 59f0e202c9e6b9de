"""An answer that is an error by its status, and how much of its body is read for that."""

from __future__ import annotations

from attrs import define, field

from .._core.clock import Clock
from .._core.envelope import error_from
from .._core.error_bodies import read_into
from .._core.exact_json import unexpected
from .._core.http import Response
from ..errors import InvoicingError

__all__ = ["ErrorAnswer"]


@define(eq=False)
class ErrorAnswer:
    """An answer that is an error by its status, whatever becomes of its body."""

    _response: Response
    _clock: Clock
    _body: bytearray = field(factory=bytearray, init=False)

    async def read(self, seconds: float) -> None:
        """Read the body, for so many seconds at most."""
        timeout = self._clock.timeout(seconds)
        try:
            async with timeout:
                await read_into(self._body, self._response.chunks())
        except TimeoutError:
            if not timeout.expired():
                raise

    def error(self) -> InvoicingError:
        """Return the error that the answer is, with what came of its body."""
        response, body = self._response, bytes(self._body)
        error = error_from(response.status, response.header, body, now=self._clock.now())
        return error or unexpected(f"the service answered {response.status}", body, response.status)
