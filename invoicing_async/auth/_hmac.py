"""The partner signature."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, field, frozen

from .._core.clock import Clock
from .._core.http import Request
from .._core.secrecy import Hidden, hidden, quiet
from .._core.signing import SIGNED_HEADERS, Signature, SigningRules, sign, signed_path
from .._values.validators import header_text, optional, secret
from ._protocol import Call

__all__ = ["HmacAuth"]


@quiet
@frozen(kw_only=True)
class HmacAuth:
    """The HMAC partner signature of service A (README A.2), made anew for every attempt.

    `store_client_id` and `store_token` belong to store-scoped calls; leave both out for others. `rules` holds
    the points the guide leaves open.
    """

    partner_client_id: str = field(validator=header_text)
    secret_key: str = field(repr=False, converter=hidden, validator=secret)
    store_client_id: str | None = field(default=None, validator=optional(header_text))
    store_token: str | None = field(default=None, repr=False, converter=hidden, validator=optional(header_text))
    rules: SigningRules = Factory(SigningRules)
    _identity: Mapping[str, str] = field(init=False, repr=False, eq=False)

    @_identity.default
    def _named(self) -> Mapping[str, str]:
        values = (self.partner_client_id, self.store_client_id, self.store_token)
        named = zip(SIGNED_HEADERS, values, strict=False)
        return {name: value for name, value in named if value is not None}

    def ready(self, clock: Clock) -> bool:
        """A signature needs nothing of the service."""
        return True

    async def prepare(self, call: Call, clock: Clock) -> None:
        """Nothing is asked of the service for a signature."""

    def headers(self, request: Request, *, base_path: str, now: float) -> Mapping[str, str]:
        """Return the identifying headers, the timestamp in epoch milliseconds and the signature over them."""
        headers = {**self._identity, "x-timestamp": str(int(now * 1000))}
        path = signed_path(request.path, query=request.query, base_path=base_path, rules=self.rules)
        signed = sign(self.secret_key, request.method, path, headers=headers.items(), body=request.body)
        headers["x-signature"] = Hidden(self.rules.prefix + signed.digest)
        return headers

    def signature(
        self, *, method: str, path: str, base_path: str = "", body: bytes = b"", timestamp_ms: int
    ) -> Signature:
        """Return every stage of a signature, to compare with what the service expects; nothing is sent."""
        headers = {**self._identity, "x-timestamp": str(timestamp_ms)}
        path = signed_path(path, base_path=base_path, rules=self.rules)
        signed = sign(self.secret_key, method, path, headers=headers.items(), body=body)
        return Signature(
            method=method.upper(),
            path=path,
            timestamp_ms=timestamp_ms,
            body_sha256=signed.body_sha256,
            base_string=str(signed.base_string),
            digest=signed.digest,
            headers={**headers, "x-signature": self.rules.prefix + signed.digest},
        )

    def refused(self, sent: Mapping[str, str]) -> bool:
        """A key has no renewal: a signature made anew is all there is to try."""
        return False
