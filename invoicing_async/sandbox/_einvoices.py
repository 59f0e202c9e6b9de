"""The sandbox's service B: tokens, asynchronous e-invoices, their export and download (README B)."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote_plus
from xml.sax.saxutils import escape

from attrs import define, field, frozen

from ..errors import TransportError
from ..models import AuthorityStatus, RequestStatus
from . import _pdf_page
from ._answers import Reply, reply
from ._schema import Shape, line_amount, parse, total
from ._shared import Call, Shared, file_reply, iso, json_reply

__all__ = ["Created", "Einvoices"]

NOWHERE = "http://sandbox.invalid"
"""The host of download links when a request names no base URL."""


@frozen(kw_only=True)
class Created:
    """One e-invoice that a submission made: `body` is exactly what was sent, `outcome` how it will end."""

    request_id: str
    invoice_id: str
    at: float
    body: bytes
    outcome: RequestStatus

    @property
    def content(self) -> Any:
        """The body read as JSON, numbers as `Decimal`."""
        return parse(self.body)


@define
class _Progress:
    """How far one e-invoice is."""

    created: Created
    ready_at: float
    """Monotonic seconds at which it is done; minus infinity if polls decide."""
    polls_left: int
    exports_left: int

    def status(self, monotonic: float) -> RequestStatus:
        done = self.polls_left <= 0 and monotonic >= self.ready_at
        return self.created.outcome if done else RequestStatus.NEW


@define
class Einvoices:
    """Service B: asynchronous e-invoices (README B)."""

    shared: Shared
    created: dict[str, Created] = field(factory=dict, init=False)
    _progress: dict[str, _Progress] = field(factory=dict, init=False)
    _invoices: dict[str, _Progress] = field(factory=dict, init=False)
    _bodies: Counter[bytes] = field(factory=Counter, init=False)
    _tokens: dict[str, float] = field(factory=dict, init=False)
    _issued: int = field(default=0, init=False)
    _shape: Shape = field(init=False)

    @_shape.default
    def _make_shape(self) -> Shape:
        settings = self.shared.settings
        return Shape(names=settings.names, extra=settings.extra_fields, nested=settings.nested_submit_to_tax)

    def objection(self, call: Call) -> str:
        """Say why the bearer token is not accepted; empty if it is."""
        scheme, _, token = (call.headers.get("authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            return "no bearer token"
        if token == self.shared.settings.credentials.token:
            return ""
        return "" if self._tokens.get(token, 0.0) > self.shared.clock.monotonic() else "the token is unknown or expired"

    def refuse(self, call: Call) -> Reply:
        """Answer a caller who was not accepted: the document gives no body (README B.1)."""
        return reply(b"Not Authorized", status=401, content_type="text/plain", headers={"WWW-Authenticate": "Bearer"})

    def client_objection(self, call: Call) -> str:
        """Say why the client of a token request is not accepted; empty if it is."""
        known = self.shared.settings.credentials
        pair = f"{quote_plus(known.client_id)}:{quote_plus(known.client_secret)}"
        right = "Basic " + b64encode(pair.encode()).decode()
        return "" if call.headers.get("authorization") == right else "the client is not known"

    def refuse_client(self, call: Call) -> Reply:
        """Answer a client who was not accepted (RFC 6749, 5.2)."""
        return json_reply({"error": "invalid_client"}, status=401, headers={"WWW-Authenticate": "Basic"})

    def token(self, call: Call) -> Reply:
        """Issue a token (README B.4); errors are those of RFC 6749 section 5.2."""
        settings, now = self.shared.settings, self.shared.clock.monotonic()
        form = parse_qs(call.request.body.decode("utf-8", "replace"), keep_blank_values=True)
        problem = ""
        if call.media_type != "application/x-www-form-urlencoded" or any(len(values) > 1 for values in form.values()):
            problem = "invalid_request"
        elif form.get("grant_type") != ["client_credentials"]:
            problem = "unsupported_grant_type"
        elif form.get("tenant_connection_code") != [settings.credentials.tenant_connection_code]:
            problem = "invalid_grant"
        if problem:
            return json_reply({"error": problem}, status=400)
        self._issued += 1
        token = "sbx_" + self.shared.dice.digest("token", self._issued).hex()
        self._tokens = {kept: until for kept, until in self._tokens.items() if until > now}
        self._tokens[token] = now + settings.token_lifetime
        lifetime = {"expires_in": int(settings.token_lifetime)} if settings.announce_lifetime else {}
        return json_reply({"access_token": token, "token_type": "Bearer", **lifetime})

    def revoke(self) -> None:
        """Forget every token that was issued."""
        self._tokens.clear()

    def submit(self, call: Call) -> Reply:
        """Create an invoice (README B.1). Raises `TransportError` for one whose answer is lost."""
        faults = self._shape.faults(call.request.body)
        if call.media_type != "application/json":
            faults = ("Content-Type: must be application/json", *faults)
        if faults:
            return self.shared.refused(call, 400, "VALIDATION_001", "The request is not valid", faults=faults)
        progress = self._create(call)
        if self.shared.dice.chance("lost", progress.created.request_id) < self.shared.faults.lost_share:
            raise TransportError("the sandbox lost the answer")
        return self._state(progress, with_data=False)

    def _create(self, call: Call) -> _Progress:
        dice, faults, body = self.shared.dice, self.shared.faults, call.request.body
        digest = sha256(body).digest()
        self._bodies[digest] += 1
        request_id = dice.uuid("request", digest, self._bodies[digest])
        failed = dice.chance("failed", request_id) < faults.failed_share
        created = Created(
            request_id=request_id,
            invoice_id=dice.uuid("invoice", request_id),
            at=self.shared.clock.now(),
            body=body,
            outcome=RequestStatus.FAILED if failed else RequestStatus.SUCCESS,
        )
        progress = self._planned(created)
        self.created[request_id] = created
        self._progress[request_id] = self._invoices[created.invoice_id] = progress
        return progress

    def _planned(self, created: Created) -> _Progress:
        dice, faults, request_id = self.shared.dice, self.shared.faults, created.request_id
        exports = dice.between(*faults.exports_until_done, "exports", request_id)
        if faults.seconds_until_done is None:
            polls = dice.between(*faults.polls_until_done, "polls", request_id)
            return _Progress(created, ready_at=float("-inf"), polls_left=polls, exports_left=exports)
        least, most = faults.seconds_until_done
        ready_at = self.shared.clock.monotonic() + least + (most - least) * dice.chance("seconds", request_id)
        return _Progress(created, ready_at=ready_at, polls_left=0, exports_left=exports)

    def status(self, call: Call) -> Reply:
        """Tell how far a request is (README B.2)."""
        progress = self._progress.get(call.subject)
        if progress is None:
            return self.shared.refused(call, 404, "REQUEST_404", "No such request", id=call.subject)
        progress.polls_left -= 1
        return self._state(progress, with_data=True)

    def _state(self, progress: _Progress, *, with_data: bool) -> Reply:
        status = progress.status(self.shared.clock.monotonic())
        content: dict[str, Any] = {"request_id": progress.created.request_id, "status": status.value}
        if with_data and status is RequestStatus.SUCCESS:
            content["data"] = _data(progress.created)
        if status is RequestStatus.FAILED:
            content["error"] = FAILURE
        return json_reply(content)

    def export(self, call: Call) -> Reply:
        """Build a finished invoice's document and give its link (README B.3)."""
        form = parse_qs(call.request.query).get("format", [""])[0]
        if form not in DOCUMENTS:
            return self.shared.refused(call, 400, "VALIDATION_001", f"format must be {' or '.join(DOCUMENTS)}")
        progress = self._finished(call.subject)
        if progress is None:
            return self.shared.refused(call, 404, "INVOICE_404", "No such invoice", id=call.subject)
        progress.exports_left -= 1
        if progress.exports_left >= 0:
            return json_reply({"download_url": "", "status": "BUILDING"})
        base = self.shared.settings.files_url or call.request.base_url or NOWHERE + self.shared.settings.base_path
        link = f"{base}/files/{call.subject}.{form}?key={self._file_key(call.subject, form)}"
        return json_reply({"download_url": link, "status": "DONE"})

    def _finished(self, invoice_id: str) -> _Progress | None:
        progress = self._invoices.get(invoice_id)
        done = progress is not None and progress.status(self.shared.clock.monotonic()) is RequestStatus.SUCCESS
        return progress if done else None

    def _file_key(self, invoice_id: str, form: str) -> str:
        return self.shared.dice.digest("file", invoice_id, form).hex()[:32]

    def file_objection(self, call: Call) -> str:
        """Say why a download link is not accepted; empty if it is."""
        right = self._file_key(*call.ids)
        return "" if call.request.query == f"key={right}" else "the link is not one that was given out"

    def refuse_file(self, call: Call) -> Reply:
        """Answer a link that was not given out."""
        return self.shared.refused(call, 403, "FILE_403", call.objection)

    def file(self, call: Call) -> Reply:
        """Send the document behind a link."""
        progress = self._finished(call.subject)
        if progress is None:
            return self.shared.refused(call, 404, "INVOICE_404", "No such invoice", id=call.subject)
        form, created = call.ids[1], progress.created
        return file_reply(DOCUMENTS[form](created), f"{created.invoice_id}.{form}", form)


def _data(created: Created) -> dict[str, Any]:
    """Return the invoice as service B shows it once it is made."""
    content = created.content
    invoice = content["invoice_data"]
    issued = iso(created.at)
    lines = [{**line, "amount": line_amount(line)} for line in invoice["invoice_lines"]]
    net = total(line["amount"] for line in lines)
    tax = total(line.get("tax_amount", Decimal(0)) for line in lines)
    return {
        "id": created.invoice_id,
        "authority_status": AuthorityStatus.SUBMITTED.value,
        "code": created.invoice_id.replace("-", "")[:12].upper(),
        "serial_number": "SBX" + str(int(created.invoice_id[:8], 16) % 10_000_000).zfill(7),
        "created_date": issued,
        "date_of_issue": issued[:10],
        "consumer": invoice.get("consumer", {}),
        "invoice_lines": lines,
        "invoice_amount": {
            "amount_without_tax": net,
            "tax_amount": tax,
            "total_amount": total((net, tax)),
        },
    }


def _invoice_sheet(created: Created) -> _pdf_page.Sheet:
    data = _data(created)
    consumer = data["consumer"]
    name = consumer.get("name") or consumer.get("buyer_name") or "Unnamed buyer"
    details = tuple(consumer[key] for key in ("address", "tax_code", "phone") if consumer.get(key))
    lines = data["invoice_lines"]
    rows = (_pdf_page.SheetLine(line["name"], line["quantity"], line["price"], line["amount"]) for line in lines)
    return _pdf_page.Sheet(
        number=data["serial_number"],
        issued=datetime.fromtimestamp(int(created.at), UTC),
        seller=_pdf_page.Party("Sandbox Seller", ("1 Trang Tien", "Ha Noi")),
        buyer=_pdf_page.Party(name, details),
        lines=tuple(rows),
        tax=data["invoice_amount"]["tax_amount"],
        currency="VND",
        facts=(("Look-up code", data["code"]), ("Request", created.request_id)),
    )


def _invoice_xml(created: Created) -> bytes:
    data = _data(created)
    rows = "".join(
        f"<line><name>{escape(line['name'])}</name><quantity>{line['quantity']}</quantity>"
        f"<price>{line['price']}</price><amount>{line['amount']}</amount></line>"
        for line in data["invoice_lines"]
    )
    head = f"<id>{created.invoice_id}</id><serial>{data['serial_number']}</serial>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<invoice>{head}<lines>{rows}</lines></invoice>\n'.encode()


FAILURE = {"code": "ISSUE_001", "message": "No number is left for this template (the sandbox's failed_share)"}
"""Why an invoice FAILED. Where the service says that is open (README B.2); here as an error is said in README A.1."""

DOCUMENTS: dict[str, Callable[[Created], bytes]] = {
    "pdf": lambda created: _pdf_page.render(_invoice_sheet(created)),
    "xml": _invoice_xml,
}
"""What a finished invoice can be had as."""
