"""Requests to the sandbox, signed or with its token, and what they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fakes import FakeClock

from invoicing_async._core import signing
from invoicing_async._core.http import Exchange, Request, path
from invoicing_async.sandbox import (
    Faults,
    Sandbox,
    SandboxSettings,
)

BASE = "http://sandbox.test/api/v1"
LIMIT = 1_000_000
ORDER = "d0e11047-acaf-468f-a325-3d2f5964f5ff"
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
LINE = {"name": "Tea", "unit": "box", "price": 10.50, "quantity": 3, "discount_amount": 0.5, "amount": 31.00}


class DigestSet:
    """An answer that was read to its end."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def signed(
    sandbox: Sandbox, order_id: str = ORDER, *, ms: int | None = None, signed_as: str = "", **changed: str
) -> Request:
    """Build service A's request by hand; keywords replace a header's value."""
    known = sandbox.credentials
    moment = int(sandbox.clock.now() * 1000) if ms is None else ms
    headers = {
        "x-partner-client-id": known.partner_client_id,
        "x-store-client-id": known.store_client_id,
        "x-store-token": known.store_token,
        "x-timestamp": str(moment),
    } | {name.replace("_", "-"): value for name, value in changed.items() if name != "x_signature"}
    target = path("partner", "stores", "orders", order_id, "documents", "invoice")
    signed = signing.sign(known.secret_key, "POST", signed_as or target, headers=headers.items(), body=b"")
    signature = changed.get("x_signature", "sha256=" + signed.digest)
    return Request(method="POST", path=target, base_url=BASE, headers={**headers, "X-Signature": signature})


async def ask(sandbox: Sandbox, request: Request) -> DigestSet:
    async with sandbox.send(request, Exchange()) as response:
        return DigestSet(response.status, response.headers, await response.read(LIMIT))


def bearer(sandbox: Sandbox, target: str, *, body: bytes = b"", query: str = "", token: str = "") -> Request:
    headers = {"Authorization": f"Bearer {token or sandbox.credentials.token}"}
    kind = {"Content-Type": "application/json; charset=utf-8"} if body else {}
    return Request(method="POST", path=target, query=query, base_url=BASE, headers={**headers, **kind}, body=body)


def draft(**data: Any) -> bytes:
    fields = {"invoice_template_id": TEMPLATE, "invoice_lines": [LINE]} | data
    return json.dumps({"invoice_data": fields}).encode()


def submission(sandbox: Sandbox, body: bytes | None = None) -> Request:
    return bearer(sandbox, "/v2/ob/invoices", body=draft() if body is None else body)


def made(clock: FakeClock | None = None, *, faults: Faults | None = None, **fields: Any) -> Sandbox:
    return Sandbox(SandboxSettings(**fields), faults=faults, clock=clock or FakeClock())
