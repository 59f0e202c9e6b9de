"""What the sandbox's two services share: settings, faults, chance by the seed, a received call, error envelopes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any
from uuid import UUID

from attrs import Attribute, Factory, field, frozen

from .._core.clock import Clock
from .._core.http import Request
from .._core.signing import SigningRules
from .._values.validators import count, not_negative, positive, share
from ._answers import Reply, reply
from ._schema import OPEN_NAMES, encode

__all__ = [
    "ALLOWED_SUBSTATUSES",
    "Call",
    "Dice",
    "Faults",
    "Operation",
    "SandboxCredentials",
    "SandboxSettings",
    "Shared",
    "file_reply",
    "iso",
    "json_reply",
]

ALLOWED_SUBSTATUSES = ("confirmed", "waiting_pickup", "waiting_drop_off", "in_transit", "delivered", "order_completed")
"""What ORDER_021 lists (README A.1)."""


class Operation(StrEnum):
    """What a request asks for; also a key of `Sandbox.script`."""

    DOCUMENT = "document"
    TOKEN = "token"  # noqa: S105 - the name of an endpoint
    SUBMIT = "submit"
    STATUS = "status"
    EXPORT = "export"
    FILE = "file"
    UNKNOWN = "unknown"


@frozen(kw_only=True)
class SandboxCredentials:
    """Who may call. `partner()` builds an `HmacAuth`, `client()` an `OAuthClientCredentials`.

    `stores` are the tokens of further stores by their `store_client_id`.
    """

    partner_client_id: str = "ptnr_sandbox"
    secret_key: str = field(default="sk_sandbox_not_a_secret", repr=False)
    store_client_id: str = "store_sandbox"
    store_token: str = field(default="stkn_sandbox_not_a_secret", repr=False)
    client_id: str = "sandbox-client"
    client_secret: str = field(default="sandbox-client-not-a-secret", repr=False)
    tenant_connection_code: str = "SANDBOX"
    token: str = field(default="sandbox-token-not-a-secret", repr=False)
    """A bearer token that never expires, for `StaticToken`."""
    stores: Mapping[str, str] = field(factory=dict, repr=False, hash=False)

    def partner(self, store_client_id: str = "") -> dict[str, Any]:
        """Return the keyword arguments of `HmacAuth`. Raises `KeyError` for a store that is not known."""
        store = store_client_id or self.store_client_id
        return {
            "partner_client_id": self.partner_client_id,
            "secret_key": self.secret_key,
            "store_client_id": store,
            "store_token": self.tokens_of_stores[store],
        }

    @property
    def tokens_of_stores(self) -> dict[str, str]:
        """The token of every store by its `store_client_id`."""
        return {**self.stores, self.store_client_id: self.store_token}

    def client(self) -> dict[str, Any]:
        """Return the keyword arguments of `OAuthClientCredentials`."""
        names = ("client_id", "client_secret", "tenant_connection_code")
        return {name: getattr(self, name) for name in names}


@frozen(kw_only=True)
class SandboxSettings:
    """How the services are set up. Seconds everywhere, on the sandbox's clock.

    `skew` is how far `x-timestamp` may be from now; `latency` passes between processing and the answer's head;
    `base_path` is the path of the base URL for requests that name none; `announce_lifetime` sends `expires_in`
    with a token. `names` (see `OPEN_NAMES`), `nested_submit_to_tax` and `extra_fields` are what a submission may
    look like beyond the document: a field that neither names is refused. `files_url` is the base of download
    links, empty for the host that was asked; `log_size` bounds `Sandbox.log`.
    """

    seed: int = 0
    credentials: SandboxCredentials = Factory(SandboxCredentials)
    rules: SigningRules = Factory(SigningRules)
    skew: float = field(default=300.0, validator=not_negative)
    latency: float = field(default=0.0, validator=not_negative)
    base_path: str = ""
    token_lifetime: float = field(default=300.0, validator=positive)
    announce_lifetime: bool = True
    names: Mapping[str, str] = field(default=OPEN_NAMES, hash=False)
    nested_submit_to_tax: bool = False
    extra_fields: frozenset[str] = frozenset()
    files_url: str = ""
    log_size: int = field(default=10_000, validator=count)


def _range(instance: object, attribute: Attribute[Any], value: tuple[float, float] | None) -> None:
    try:
        holds = value is None or 0 <= value[0] <= value[1]
    except (TypeError, IndexError):
        holds = False
    if not holds:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ValueError(f"{name} must be (least, most) with 0 <= least <= most, got {value!r}")


def _ids(value: Iterable[str]) -> frozenset[str]:
    if isinstance(value, str):
        raise ValueError("Faults.not_eligible must be several ids, not one text")
    return frozenset(value)


@frozen(kw_only=True)
class Faults:
    """What goes wrong, and how long things take. Shares are of ids, 0 to 1, chosen by the seed.

    An order's first `unavailable[order_id]` calls answer SYS_DEP_503, those of a further `unavailable_share` of
    orders `unavailable_times` calls; before that, `rate_limited_share` answer 429 once with `retry_after`.
    `not_eligible` orders answer ORDER_021 always. `failed_share` of e-invoices end FAILED; the answers to
    `lost_share` of submissions never arrive, though the invoice is made. An e-invoice is done after a number of
    polls within `polls_until_done`, or, if given, a time within `seconds_until_done`; an export after
    `exports_until_done` calls that are not. A least and most of 0 means at once.
    """

    unavailable: Mapping[str, int] = field(factory=dict, hash=False)
    unavailable_share: float = field(default=0.0, validator=share)
    unavailable_times: int = field(default=1, validator=not_negative)
    unavailable_status: int = 503
    rate_limited_share: float = field(default=0.0, validator=share)
    retry_after: str = "1"
    not_eligible: frozenset[str] = field(default=(), converter=_ids)
    not_eligible_share: float = field(default=0.0, validator=share)
    not_eligible_status: int = 422
    failed_share: float = field(default=0.0, validator=share)
    lost_share: float = field(default=0.0, validator=share)
    polls_until_done: tuple[int, int] = field(default=(1, 4), validator=_range)
    seconds_until_done: tuple[float, float] | None = field(default=None, validator=_range)
    exports_until_done: tuple[int, int] = field(default=(0, 2), validator=_range)


@frozen
class Dice:
    """Chance that depends only on the seed and on what it is asked about."""

    seed: int

    def digest(self, *parts: object) -> bytes:
        """Return 32 bytes; the parts have a `repr` that is the same everywhere."""
        return sha256(repr((self.seed, *parts)).encode("utf-8", "surrogatepass")).digest()

    def chance(self, *parts: object) -> float:
        """Return a number evenly from [0, 1)."""
        return int.from_bytes(self.digest(*parts)[:6]) / 2**48

    def between(self, least: int, most: int, *parts: object) -> int:
        """Return a whole number evenly from `least` to `most`, both included."""
        return least + int(self.chance(*parts) * (most - least + 1))

    def uuid(self, *parts: object) -> str:
        """Return a UUID of the random kind."""
        return str(UUID(bytes=self.digest(*parts)[:16], version=4))


@frozen(kw_only=True)
class Call:
    """A request with what the sandbox made of it on arrival.

    `path` is below the base URL and quoted, `ids` are the ids in it unquoted, `headers` have lower-case names,
    `at` is epoch seconds; `objection` says why its credential is not accepted and is empty if it is.
    """

    request: Request
    path: str
    headers: Mapping[str, str]
    at: float
    operation: Operation = Operation.UNKNOWN
    ids: tuple[str, ...] = ()
    objection: str = "nothing is known at this path"

    @property
    def subject(self) -> str:
        """The id that the request is about; empty if it names none."""
        return self.ids[0] if self.ids else ""

    @property
    def media_type(self) -> str:
        """The type of the body without its parameters, in lower case; empty if there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@frozen
class Shared:
    """What both services share."""

    settings: SandboxSettings
    faults: Faults
    clock: Clock
    dice: Dice

    def envelope(
        self,
        call: Call,
        *,
        status: int,
        code: str,
        message: str,
        hint: str,
        context: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the error envelope of README A.1."""
        content = {
            "success": False,
            "error": {
                "code": code,
                "message": message,
                "details": {"timestamp": iso(self.clock.now()), "hint": hint, "context": context or {}},
            },
            "requestId": self.dice.uuid("call", call.path, code, call.headers.get("x-timestamp"), call.request.body),
        }
        return json_reply(content, status=status, headers=headers)

    def unavailable(self, call: Call, status: int | None = None) -> Reply:
        """Return SYS_DEP_503 as the service's page shows it."""
        text = "Service temporarily unavailable"
        details = (
            "External dependency refused the connection. The external service may be starting up, "
            "experiencing issues, or is temporarily unavailable."
        )
        context = {
            "orderId": call.subject,
            "operation": "invoice_generation",
            "errorCode": "ECONNREFUSED",
            "category": "connection_refused",
            "details": details,
        }
        return self.envelope(
            call,
            status=self.faults.unavailable_status if status is None else status,
            code="SYS_DEP_503",
            message=text,
            hint=text,
            context=context,
        )

    def not_eligible(self, call: Call, status: int | None = None) -> Reply:
        """Return ORDER_021 as the service's page shows it."""
        listed = f"{', '.join(ALLOWED_SUBSTATUSES[:-1])}, or {ALLOWED_SUBSTATUSES[-1]}"
        return self.envelope(
            call,
            status=self.faults.not_eligible_status if status is None else status,
            code="ORDER_021",
            message="Order status does not allow this operation",
            hint=f"Order is not eligible for invoice generation. Order substatus must be {listed}.",
            context={"orderId": call.subject, "allowedSubstatuses": ALLOWED_SUBSTATUSES},
        )

    def rate_limited(self, call: Call, retry_after: str | None) -> Reply:
        """Return 429; its code is the sandbox's own, since the services document none."""
        return self.envelope(
            call,
            status=429,
            code="RATE_001",
            message="Too many requests",
            hint="Slow down.",
            headers=None if retry_after is None else {"Retry-After": retry_after},
        )

    def refused(self, call: Call, status: int, code: str, message: str, **context: Any) -> Reply:
        """Return an error that is the sandbox's own."""
        return self.envelope(call, status=status, code=code, message=message, hint=message, context=context)


def iso(seconds: float) -> str:
    """Show a time as the services do: UTC, milliseconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_reply(content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an answer in JSON with exact numbers."""
    return reply(encode(content).encode(), status=status, content_type="application/json", headers=headers)


def file_reply(body: bytes, name: str, kind: str) -> Reply:
    """Return a document to be saved under `name`."""
    disposition = f'attachment; filename="{re.sub(r"[^0-9A-Za-z._-]", "_", name)}"'
    return reply(body, content_type=f"application/{kind}", headers={"Content-Disposition": disposition})
