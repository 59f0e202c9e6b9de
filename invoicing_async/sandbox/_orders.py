"""The sandbox's service A: order documents behind an HMAC partner signature (README A)."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from urllib.parse import urlsplit

from attrs import define, field

from .._core import signing
from . import _pdf_page
from ._answers import Reply
from ._shared import Call, Dice, Shared, file_reply

__all__ = ["Orders"]

SHEETS = 24
"""Different invoice pages that the orders share; each bears its own order's id."""

GOODS = (
    ("Batik shirt, hand stamped", 185_000),
    ("Rattan desk lamp", 240_000),
    ("Arabica Gayo, 1 kg", 165_000),
    ("Teak serving board", 98_500),
    ("Woven table runner", 76_000),
    ("Ceramic pour-over set", 312_750),
    ("Linen notebook, A5", 54_900),
    ("Palm sugar, 500 g", 32_400),
)
PEOPLE = ("Adi Nugroho", "Citra Lestari", "Dewi Anggraini", "Eko Saputra", "Maya Putri", "Rizky Pratama")
TOWNS = ("Bandung", "Denpasar", "Jakarta", "Semarang", "Surabaya", "Yogyakarta")


@define
class Orders:
    """Service A: order documents (README A)."""

    shared: Shared
    _tries: Counter[str] = field(factory=Counter, init=False)

    def objection(self, call: Call) -> str:
        """Say why the caller is not who it says; empty if it is."""
        settings, given = self.shared.settings, call.headers.get
        known = settings.credentials
        token = known.tokens_of_stores.get(given("x-store-client-id", ""))
        accepted = {
            "x-partner-client-id": given("x-partner-client-id") == known.partner_client_id,
            "x-store-client-id": token is not None,
            "x-store-token": given("x-store-token") == (token or known.store_token),
        }
        wrong = [name for name, right in accepted.items() if not right]
        if wrong:
            return f"{', '.join(wrong)} missing or not known"
        timestamp = given("x-timestamp") or ""
        if not re.fullmatch(r"[0-9]{1,15}", timestamp):
            return "x-timestamp must be epoch milliseconds"
        if abs(int(timestamp) / 1000 - self.shared.clock.now()) > settings.skew:
            return f"x-timestamp is more than {settings.skew:g} s from now"
        request, rules = call.request, settings.rules
        base_path = urlsplit(request.base_url).path or settings.base_path
        path = signing.signed_path(call.path, query=request.query, base_path=base_path, rules=rules)
        signed = signing.verify(
            known.secret_key, method=request.method, path=path, headers=given, body=request.body, rules=rules
        )
        return "" if signed else "x-signature does not sign this request"

    def refuse(self, call: Call) -> Reply:
        """Answer a caller who was not accepted."""
        return self.shared.refused(call, 401, "AUTH_001", "Authentication failed", reason=call.objection)

    def document(self, call: Call) -> Reply:
        """Answer with the order's PDF, or with what its faults say."""
        planned = self._planned(call)
        if planned is not None:
            return planned
        order_id, dice = call.subject, self.shared.dice
        sheet = _order_sheet(dice, dice.between(0, SHEETS - 1, "sheet", order_id))
        return file_reply(_pdf_page.stamp(sheet, order_id), f"invoice-{order_id}.pdf", "pdf")

    def _planned(self, call: Call) -> Reply | None:
        faults, chance, order_id = self.shared.faults, self.shared.dice.chance, call.subject
        limited = int(chance("rate limited", order_id) < faults.rate_limited_share)
        chosen = chance("unavailable", order_id) < faults.unavailable_share
        down = faults.unavailable.get(order_id, faults.unavailable_times if chosen else 0)
        if limited + down > self._tries[order_id]:
            self._tries[order_id] += 1
            first = self._tries[order_id] <= limited
            return self.shared.rate_limited(call, faults.retry_after) if first else self.shared.unavailable(call)
        if order_id in faults.not_eligible or chance("not eligible", order_id) < faults.not_eligible_share:
            return self.shared.not_eligible(call)
        return None


@lru_cache(maxsize=1024)
def _order_sheet(dice: Dice, number: int) -> _pdf_page.Sheet:
    """Make up one of the pages that orders share."""
    pick = dice.between
    town, buyer = (TOWNS[pick(0, len(TOWNS) - 1, role, number)] for role in ("seller", "buyer"))
    lines: list[_pdf_page.SheetLine] = []
    for row in range(pick(1, 6, "rows", number)):
        name, price = GOODS[pick(0, len(GOODS) - 1, "goods", number, row)]
        quantity = pick(1, 5, "quantity", number, row)
        lines.append(_pdf_page.SheetLine(name, Decimal(quantity), Decimal(price), Decimal(price * quantity)))
    return _pdf_page.Sheet(
        number="",
        issued=datetime(2025, pick(1, 12, "month", number), pick(1, 28, "day", number), tzinfo=UTC),
        seller=_pdf_page.Party(f"Sandbox Store {number + 1:02}", (f"Jl. Merdeka {number + 7}", town)),
        buyer=_pdf_page.Party(
            PEOPLE[pick(0, len(PEOPLE) - 1, "person", number)], (f"Jl. Melati {number * 3 + 1}", buyer)
        ),
        lines=tuple(lines),
        tax=sum((line.amount for line in lines), Decimal(0)) * Decimal("0.11"),
    )
