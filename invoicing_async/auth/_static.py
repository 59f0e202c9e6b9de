"""A bearer token that is given."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from .._core.clock import Clock
from .._core.http import Request
from .._core.secrecy import Hidden, hidden, quiet
from .._values.validators import header_text
from ._protocol import Call

__all__ = ["StaticToken"]


@quiet
@frozen
class StaticToken:
    """A bearer token that somebody else renews."""

    token: str = field(repr=False, converter=hidden, validator=header_text)

    def ready(self, clock: Clock) -> bool:
        """A token that is given needs nothing of the service."""
        return True

    async def prepare(self, call: Call, clock: Clock) -> None:
        """Nothing is asked of the service for a token that is given."""

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        """Return the `Authorization` header."""
        return {"Authorization": Hidden(f"Bearer {self.token}")}

    def refused(self, sent: Mapping[str, str]) -> bool:
        """A given token has no renewal."""
        return False
