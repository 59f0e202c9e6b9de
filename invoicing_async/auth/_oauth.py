"""The client credentials grant, with one token for all calls and one renewal at a time."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from copy import copy
from typing import Any
from urllib.parse import quote_plus, urlencode

from attrs import Factory, define, field, fields, frozen

from .._core.clock import Clock
from .._core.http import Request, Response
from .._core.secrecy import Hidden, hidden, quiet
from .._core.single_flight import SingleFlight
from .._einvoices.decode import Token, decode_token
from .._values.validators import not_negative, optional, positive, secret
from ..errors import ApiError, AuthenticationError, InvoicingError, ProtocolError, TransportError
from ._protocol import Call

__all__ = ["OAuthClientCredentials"]

TOKEN_LIMIT = 65_536

CALM = 60.0
"""Seconds after which a token that is refused was in use long enough: nobody else has just renewed it."""

CONTEST_FIRST, CONTEST_CEILING = 0.1, 2.0
"""Seconds from which, and up to which, a renewal is put off by chance while others renew the same tenant's token: each
must have the time to use its own."""

REFUSED_FOR = 10.0
"""Seconds for which a refused client does not ask for a token again."""

_NOT_REFUSALS = frozenset({408, 425, 429})
_CLIENT_ERRORS = 4


@define
class _TokenCache:
    """The token in use: until when it is fresh, and the one renewal under way."""

    token: Token | None = None
    stale_at: float = 0.0
    renewal: SingleFlight = Factory(SingleFlight)
    given_at: float = float("-inf")
    dropped: bool = False
    contested: int = 0
    refusal: AuthenticationError | None = None
    refused_until: float = float("-inf")

    def fresh(self, monotonic: float) -> bool:
        return self.token is not None and monotonic < self.stale_at

    def contest(self, chance: float, monotonic: float) -> float:
        """Seconds to wait before a renewal: some if a young token was refused, since somebody else renews too."""
        young = self.dropped and monotonic - self.given_at < CALM
        self.contested = self.contested + 1 if young else 0
        self.dropped = False
        return chance * min(CONTEST_CEILING, CONTEST_FIRST * 2.0 ** (self.contested - 1)) if young else 0.0


@quiet
@frozen(kw_only=True, eq=False)
class OAuthClientCredentials:
    """The client credentials grant of service B (README B.4).

    One token serves every call of the session. It is renewed `early` seconds before `expires_in` ends (at most
    half its lifetime before), by one request at a time however many calls wait, and once after a 401. A token
    without `expires_in` is kept for `lifetime` seconds.
    """

    client_id: str = field(validator=secret)
    client_secret: str = field(repr=False, converter=hidden, validator=secret)
    tenant_connection_code: str = field(validator=secret)
    scope: str | None = field(default=None, validator=optional(secret))
    path: str = "/v2/oauth/token"
    early: float = field(default=30.0, validator=not_negative)
    lifetime: float = field(default=300.0, validator=positive)
    _held: _TokenCache = field(factory=_TokenCache, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the credentials for pickle and copy; a copy asks for a token of its own."""
        names = (attribute.name for attribute in fields(type(self)) if attribute.init)
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "_held": _TokenCache()}.items():
            object.__setattr__(self, name, value)

    def ready(self, clock: Clock) -> bool:
        """Tell whether the token held is fresh."""
        return self._held.fresh(clock.monotonic())

    async def prepare(self, call: Call, clock: Clock) -> None:
        """Wait until a fresh token is held. Raises what the token call raises.

        An answer that refuses the client (400 `invalid_client` and other 4xx) is an `AuthenticationError`, which for
        some seconds is raised again without another call.
        """
        held = self._held
        if held.refusal is not None and clock.monotonic() < held.refused_until:
            raise copy(held.refusal) from held.refusal
        while not self._held.fresh(clock.monotonic()):
            await self._held.renewal.join(lambda: self._renew(call, clock))

    async def _renew(self, call: Call, clock: Clock) -> None:
        wait = self._held.contest(clock.random(), clock.monotonic())
        if wait > 0:
            await clock.sleep(wait)
        begun = clock.monotonic()
        try:
            token = await call(self._request(), _read_token)
        except ApiError as error:
            # Some client errors are about this one call and not about the client.
            if error.status // 100 != _CLIENT_ERRORS or error.status in _NOT_REFUSALS:
                raise
            self._held.refusal, self._held.refused_until = _refusal(error), clock.monotonic() + REFUSED_FOR
            raise self._held.refusal from error
        self._held.refusal = None
        self._held.given_at = clock.monotonic()
        lifetime = self.lifetime if token.expires_in is None else token.expires_in
        self._held.token = token
        # A lifetime of nearly nothing still serves the calls that waited for it.
        self._held.stale_at = max(begun + lifetime - min(self.early, lifetime / 2), clock.monotonic() + 0.001)

    def _request(self) -> Request:
        form = {"grant_type": "client_credentials", "tenant_connection_code": self.tenant_connection_code}
        if self.scope is not None:
            form["scope"] = self.scope
        # RFC 6749 section 2.3.1: both parts are form-encoded first.
        pair = Hidden(f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}")
        basic = Hidden("Basic " + b64encode(pair.encode()).decode())
        return Request(
            method="POST",
            path=self.path,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Authorization": basic},
            body=urlencode(form).encode(),
            operation="token",
            authorised=False,
        )

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        """Return the `Authorization` header with the token held now."""
        token = self._held.token
        return {"Authorization": Hidden(f"Bearer {token.access_token}")} if token else {}

    def refused(self, sent: Mapping[str, str]) -> bool:
        """Drop the token unless a newer one is held already; a new one can always be asked for."""
        token = self._held.token
        if token is not None and sent.get("Authorization") == f"Bearer {token.access_token}":
            self._held.token = None
            self._held.dropped = True
        return True


def _refusal(error: ApiError) -> AuthenticationError:
    refusal = AuthenticationError(
        f"no token is given to this client: {error.message}",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
        hint=None if error.hint == type(error).hint else error.hint,
        context=error.context,
    )
    refusal.attempts = error.attempts
    return refusal


async def _read_token(response: Response) -> Token:
    try:
        return decode_token(await response.read(TOKEN_LIMIT))
    except TransportError as error:
        failed: InvoicingError = error
    except ProtocolError as error:
        # Without what came: it may hold the token.
        failed = ProtocolError(error.message, status=response.status)
    # And without the frames in which it was read.
    raise failed.with_traceback(None)
