"""What goes in and what comes out, as frozen values without JSON.

Field limits stand in README B.1 and are checked by `_einvoices.rules`, all at once and before anything is sent, so a
draft with faults can be built, shown and reported. A line and a draft refuse wrong types where they are made; who
reads them from a file, and reports every fault of it at once, builds them `unchecked`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from ._values.checked import (
    as_member,
    as_tuple,
    exact,
    exact_or_none,
    frozen_mapping,
    mistyped,
    plain_state,
    refuse_types,
    restore,
    unchecked,
)
from ._values.field_rules import FLAG, NUMBER, choice, field_types, other, text
from .errors import ApiError, DraftError, Fault, InvoicingError, OrderStatusError, SubmissionInDoubtError

__all__ = [
    "AuthorityStatus", "Consumer", "Deferred", "Duplicate", "Failed", "InDoubt", "Invalid", "InvoiceData",
    "InvoiceDraft", "InvoiceLine", "InvoiceRequest", "NotSent", "NotStarted", "PaymentMethod", "Rejected",
    "RequestStatus", "Saved", "SavedDocument", "Skipped", "SubmitToTax", "Submitted", "Unsettled", "VatRate",
    "unchecked",
]  # fmt: skip


class VatRate(StrEnum):
    """The tax type of a line (README B.1)."""

    UNDECLARED = "UNDECLARED"
    NONE = "NONE"
    ZERO = "ZERO"
    FIVE = "FIVE"
    EIGHT = "EIGHT"
    TEN = "TEN"


class PaymentMethod(StrEnum):
    """How the invoice is paid (README B.1)."""

    CASH = "CASH"
    BANK_TRANSFER = "BANK_TRANSFER"
    UNKNOWN = "UNKNOWN"


class RequestStatus(StrEnum):
    """The state of a submitted request; SUCCESS and FAILED are terminal (README B.1)."""

    NEW = "NEW"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


class AuthorityStatus(StrEnum):
    """The state of a created invoice at the tax authority, an axis of its own (README B.2)."""

    NOT_SUBMITTED = "NOT_SUBMITTED"
    SUBMITTED = "SUBMITTED"
    SUCCESS = "SUCCESS"
    ERROR = "ERROR"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    CANCELED = "CANCELED"

    @classmethod
    def refuses(cls, status: str | None) -> bool:
        """Tell whether an invoice with this status was made and does not stand: a person must see to it.

        Pure, and the one place where it is decided. REJECTED: the authority refused it. ERROR: it never got there.
        CANCELED is a person's own act, the others are on their way or at a good end; so is, for all that is known, a
        status that nobody knows, or none.
        """
        return status in _REFUSES


_REFUSES = frozenset({AuthorityStatus.REJECTED, AuthorityStatus.ERROR})


def _vat_rate(value: VatRate | str | None) -> VatRate | None:
    return as_member(VatRate, value)


def _payment_method(value: PaymentMethod | str | None) -> PaymentMethod | None:
    return as_member(PaymentMethod, value)


# One function each: a type checker does not take a converter whose type is a variable.
def _lines(value: Iterable[InvoiceLine]) -> tuple[InvoiceLine, ...]:
    return as_tuple(value)  # type: ignore[no-any-return] # what is no list stays, to be refused by the field's name


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return as_tuple(value)  # type: ignore[no-any-return] # as above


@frozen(kw_only=True)
class Consumer:
    """The buyer. At most 255 characters each, but `tax_code` 14, `citizen_identification` 12, `phone` 20."""

    code: str | None = field(default=None, metadata=text(255, code=True))
    name: str | None = field(default=None, metadata=text(255))
    tax_code: str | None = field(default=None, metadata=text(14, code=True))
    address: str | None = field(default=None, metadata=text(255))
    citizen_identification: str | None = field(default=None, metadata=text(12, code=True))
    phone: str | None = field(default=None, metadata=text(20, code=True))
    buyer_name: str | None = field(default=None, metadata=text(255))
    bank_account: str | None = field(default=None, metadata=text(255, code=True))


@frozen(kw_only=True)
class InvoiceLine:
    """One line of an invoice.

    `name` has at most 500 characters, `unit` and `code` 255. Amounts are exact: `Decimal`, `int` or digits in
    text, never float. `amount`, when given, must equal price * quantity - discount_amount to the last digit, or
    rounded as the setting `rounding` allows. Raises `DraftError` (a `ValueError`) for a field of a wrong type.
    """

    name: str = field(metadata=text(500))
    unit: str = field(metadata=text(255))
    price: Decimal = field(converter=exact, metadata=NUMBER)
    quantity: Decimal = field(converter=exact, metadata=NUMBER)
    code: str | None = field(default=None, metadata=text(255, code=True))
    tax_amount: Decimal | None = field(default=None, converter=exact_or_none, metadata=NUMBER)
    discount_amount: Decimal | None = field(default=None, converter=exact_or_none, metadata=NUMBER)
    vat_rate: VatRate | None = field(default=None, converter=_vat_rate, metadata=choice(VatRate))
    amount: Decimal | None = field(default=None, converter=exact_or_none, metadata=NUMBER)
    is_promotion: bool | None = field(default=None, metadata=FLAG)

    def __attrs_post_init__(self) -> None:
        refuse_types(self, _LINE_TYPES)


_LINE_TYPES = field_types(InvoiceLine)


@frozen(kw_only=True)
class SubmitToTax:
    """What the service shall do after creating the invoice; None leaves the service's default (true)."""

    emails: tuple[str, ...] = field(default=(), converter=_texts, metadata=other(tuple, column=True))
    send_mail: bool | None = field(default=None, metadata=FLAG)
    automatic: bool | None = field(default=None, metadata=FLAG)


@frozen(kw_only=True)
class InvoiceDraft:
    """One invoice to be created.

    `key` is the caller's own unique name of the invoice, such as an order number: it is what "not twice" means
    and is not sent. Keys are compared in NFC; one with outer blanks or a character that nobody sees is a fault.
    `invoice_template_id` is a UUID. `extra` fields go into `invoice_data` as they are, for what the service knows
    and this library does not. Raises `DraftError` (a `ValueError`) for a field of a wrong type.
    """

    key: str = field(metadata=text(255, code=True, wire=None))
    invoice_template_id: str = field(metadata=other(str, column=True))
    lines: tuple[InvoiceLine, ...] = field(converter=_lines, metadata=other(tuple, wire="invoice_lines"))
    consumer: Consumer | None = field(default=None, metadata=other(Consumer))
    payment_method: PaymentMethod | None = field(
        default=None, converter=_payment_method, metadata=choice(PaymentMethod)
    )
    has_tax_authority_code: bool | None = field(default=None, metadata=FLAG)
    submit_to_tax: SubmitToTax | None = field(default=None, metadata=other(SubmitToTax, wire=None))
    extra: Mapping[str, Any] = field(factory=dict, converter=frozen_mapping, hash=False)

    def __attrs_post_init__(self) -> None:
        refuse_types(self, _DRAFT_TYPES)
        lines: tuple[Any, ...] = self.lines
        wrong = [number for number, line in enumerate(lines) if not isinstance(line, InvoiceLine)]
        if wrong:
            raise DraftError(tuple(Fault(f"lines[{at}]", mistyped(lines[at], (InvoiceLine,))) for at in wrong))

    def __getstate__(self) -> dict[str, Any]:
        return plain_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)


_DRAFT_TYPES = field_types(InvoiceDraft)


@frozen(kw_only=True)
class InvoiceData:
    """The invoice a SUCCESS request made (README B.2).

    `id` names it for an export, `code` is the look-up code, dates are the service's own text. `raw` is the whole
    object as it came, numbers as `Decimal`.
    """

    id: str
    authority_status: AuthorityStatus | str | None = None
    code: str | None = None
    serial_number: str | None = None
    created_date: str | None = None
    date_of_issue: str | None = None
    raw: Mapping[str, object] = field(factory=dict, converter=frozen_mapping, hash=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return plain_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)


_TERMINAL = frozenset({RequestStatus.SUCCESS, RequestStatus.FAILED})


@frozen(kw_only=True)
class InvoiceRequest:
    """A submitted request as last seen. `status` is plain text when the service sends one we do not know.

    `reason` is why it FAILED, in the service's own words, and `code` the service's code of that; None where it does
    not say, and while it has not failed.
    """

    request_id: str
    status: RequestStatus | str
    data: InvoiceData | None = None
    reason: str | None = None
    code: str | None = None
    raw: Mapping[str, object] = field(factory=dict, converter=frozen_mapping, hash=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return plain_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore(self, state)

    @property
    def terminal(self) -> bool:
        """True for SUCCESS and FAILED; an unknown status is not terminal."""
        return self.status in _TERMINAL


@frozen(kw_only=True)
class SavedDocument:
    """A whole document that was saved: `size` in bytes, `sha256` in lowercase hex of exactly those bytes.

    `order_id` is the id it was asked by (an invoice's id for an export). `attempts` counts the tries it took;
    0 if the file was there before. `set_aside` is where a broken file that had the name was renamed to. `name_taken`
    says that another document has the name that was to be taken, so that this one has the next. In a store of
    objects `store` is the address of that and `path` the name below it; `address` names a document wholly.
    """

    order_id: str
    path: Path
    size: int
    sha256: str
    attempts: int = 1
    request_id: str | None = None
    set_aside: Path | None = None
    store: str = ""
    name_taken: bool = False

    @property
    def address(self) -> str:
        """Where it is: of a file its path, of an object `s3://bucket/prefix/name`."""
        return f"{self.store}/{self.path.as_posix()}" if self.store else str(self.path)


@frozen
class Saved:
    """The document was downloaded, proved whole and published."""

    order_id: str
    document: SavedDocument


@frozen
class Skipped:
    """The document was already there and is whole; nothing was asked of the service."""

    order_id: str
    document: SavedDocument


@frozen
class Deferred:
    """The order is not eligible yet (ORDER_021); it may become so later."""

    order_id: str
    error: OrderStatusError


@frozen
class Failed:
    """The document could not be had; `error` says why.

    An `InvoicingError` keeps the attempts; an `OSError` is trouble with the disk, a plain `ValueError` an id that is
    none.
    """

    order_id: str
    error: InvoicingError | OSError | ValueError


@frozen
class NotStarted:
    """Never asked for, because the batch ended first; `error` is what ended it."""

    order_id: str
    error: BaseException


Draft = TypeVar("Draft", "InvoiceDraft", None)


@frozen
class Duplicate(Generic[Draft]):
    """The id, or the draft's key, stood in the input before; the first one has the outcome.

    `order_id` is the id or the key; `draft` the draft that was not sent, None for a document.
    """

    order_id: str
    draft: Draft = None  # type: ignore[assignment]  # what it is for a document


@frozen
class Submitted:
    """The service took the draft; `request` may be terminal at once."""

    draft: InvoiceDraft
    request: InvoiceRequest


@frozen
class Rejected:
    """The service declared a refusal: no invoice was created."""

    draft: InvoiceDraft
    error: ApiError


@frozen
class InDoubt:
    """The draft left and no usable answer came back: never send it again before it is settled."""

    draft: InvoiceDraft
    error: SubmissionInDoubtError


@frozen
class NotSent:
    """No invoice was made of the draft: it never left, or was refused for now. Safe to send again."""

    draft: InvoiceDraft
    error: Exception


@frozen
class Invalid:
    """The draft breaks the documented limits; nothing was sent."""

    draft: InvoiceDraft
    error: DraftError


@frozen
class Unsettled:
    """A wait that ended before its operation: `error` is a `PollTimeoutError` or why polling gave up.

    The operation goes on at the service; wait again with the same id. It reads like an `InvoiceRequest` that is
    not terminal.
    """

    request_id: str
    error: Exception
    status: RequestStatus | str = RequestStatus.NEW
    data: None = None

    @property
    def terminal(self) -> bool:
        """False: nothing final is known."""
        return False
