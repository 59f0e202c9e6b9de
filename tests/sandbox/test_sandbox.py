"""The sandbox answers as the README says, checks what it is sent, and fails exactly as it is told."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from attrs import evolve
from fakes import START, FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from places import signing_vectors
from sandbox_requests import BASE, ORDER, ask, made, signed, submission

from invoicing_async._core.http import Exchange, Request, Response
from invoicing_async._core.signing import SigningRules
from invoicing_async._files import pdf
from invoicing_async.errors import ProtocolError, TransportError
from invoicing_async.sandbox import (
    ALLOWED_SUBSTATUSES,
    Answer,
    DropBeforeAnswer,
    Endless,
    Faults,
    Genuine,
    Hang,
    JsonUnder200,
    NotEligible,
    NotPdf,
    Operation,
    RateLimited,
    Reset,
    Sandbox,
    SandboxCredentials,
    SandboxSettings,
    Scripted,
    Slow,
    Truncated,
    Unavailable,
    _pdf_page,
    demo_orders,
)


async def collect(response: Response, into: list[bytes]) -> None:
    async for chunk in response.chunks():
        into.append(chunk)  # noqa: PERF401 - keeps what came before the break


class TestOrders:
    @pytest.mark.asyncio
    async def test_a_signed_request_gets_a_whole_pdf(self) -> None:
        sandbox = made()
        answer = await ask(sandbox, signed(sandbox))
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/pdf")
        assert answer.headers["Content-Disposition"] == f'attachment; filename="invoice-{ORDER}.pdf"'
        assert pdf.fault_of(answer.body, content_length=int(answer.headers["Content-Length"])) is None
        assert ORDER.encode() in answer.body

    @pytest.mark.asyncio
    async def test_the_same_order_and_seed_give_the_same_bytes_at_any_time(self) -> None:
        later = FakeClock()
        later.advance(1000)
        first, second, other = made(), made(later), made(seed=1)
        bodies = [(await ask(box, signed(box))).body for box in (first, second, other)]
        assert bodies[0] == bodies[1]
        assert bodies[0] != bodies[2]

    @pytest.mark.asyncio
    async def test_every_order_has_its_own_bytes(self) -> None:
        sandbox = made()
        bodies = [(await ask(sandbox, signed(sandbox, order))).body for order in demo_orders(60)]
        assert len(set(bodies)) == 60

    @pytest.mark.asyncio
    async def test_an_id_is_quoted_once_and_hostile_text_cannot_break_the_page_or_the_header(self) -> None:
        sandbox = made()
        answer = await ask(sandbox, signed(sandbox, 'INV/2025"\r\n\\(Đức 株)'))
        assert answer.status == 200
        assert pdf.fault_of(answer.body) is None
        assert answer.headers["Content-Disposition"].count('"') == 2
        assert "\r" not in answer.headers["Content-Disposition"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"x_partner_client_id": "other"}, "x-partner-client-id missing or not known"),
            ({"x_store_client_id": "a", "x_store_token": "b"}, "x-store-client-id, x-store-token missing or not known"),
            ({"x_timestamp": "yesterday"}, "x-timestamp must be epoch milliseconds"),
            ({"x_signature": "sha256=00"}, "x-signature does not sign this request"),
            ({"signed_as": "/partner/other"}, "x-signature does not sign this request"),
        ],
    )
    async def test_a_wrong_credential_is_a_401_envelope(self, changed: dict[str, Any], reason: str) -> None:
        sandbox = made()
        answer = await ask(sandbox, signed(sandbox, **changed))
        assert answer.status == 401
        assert answer.json["success"] is False
        assert answer.json["error"]["code"] == "AUTH_001"
        assert answer.json["error"]["details"]["context"] == {"reason": reason}
        assert not sandbox.log[-1].verified

    @pytest.mark.asyncio
    @pytest.mark.parametrize(("seconds", "status"), [(-301, 401), (-299, 200), (299, 200), (301, 401)])
    async def test_a_timestamp_holds_within_the_skew(self, seconds: float, status: int) -> None:
        sandbox = made()
        assert (await ask(sandbox, signed(sandbox, ms=int((START + seconds) * 1000)))).status == status

    @pytest.mark.asyncio
    @pytest.mark.parametrize("base_url", [BASE, ""])
    async def test_the_rules_decide_what_is_signed(self, base_url: str) -> None:
        sandbox = made(rules=SigningRules(full_path=True), base_path="/api/v1")
        target = signed(sandbox).path
        full = evolve(signed(sandbox, signed_as="/api/v1" + target), base_url=base_url)
        assert (await ask(sandbox, full)).status == 200
        assert (await ask(sandbox, signed(sandbox))).status == 401

    @pytest.mark.asyncio
    async def test_the_clients_own_vector_is_accepted(self) -> None:
        """A signature that another tool computed passes, so client and sandbox cannot be wrong together."""
        vectors = signing_vectors()
        one = next(vector for vector in vectors if vector["name"] == "invoice")
        names = ("secret_key", "partner_client_id", "store_client_id", "store_token")
        clock = FakeClock()
        clock.advance(one["timestamp_ms"] / 1000 - START)
        sandbox = made(clock, credentials=SandboxCredentials(**{name: one[name] for name in names}))
        request = signed(sandbox, ms=one["timestamp_ms"], x_signature=one["header"])
        assert request.path == one["path"]
        assert (await ask(sandbox, request)).status == 200

    @pytest.mark.asyncio
    async def test_sys_dep_503_comes_first_as_often_as_told(self) -> None:
        sandbox = made(faults=Faults(unavailable={ORDER: 2}, unavailable_status=200))
        answers = [await ask(sandbox, signed(sandbox)) for _ in range(3)]
        assert [answer.headers["Content-Type"] for answer in answers] == ["application/json"] * 2 + ["application/pdf"]
        error = answers[0].json["error"]
        assert (answers[0].status, error["code"]) == (200, "SYS_DEP_503")
        assert error["message"] == "Service temporarily unavailable"
        context = error["details"]["context"]
        assert context["details"].startswith("External dependency refused the connection.")
        assert {key: context[key] for key in ("orderId", "operation", "errorCode", "category")} == {
            "orderId": ORDER,
            "operation": "invoice_generation",
            "errorCode": "ECONNREFUSED",
            "category": "connection_refused",
        }
        assert error["details"]["timestamp"] == "2025-09-17T09:12:30.000Z"
        assert str(UUID(answers[0].json["requestId"])) == answers[0].json["requestId"]

    @pytest.mark.asyncio
    async def test_order_021_is_the_seeds_envelope(self) -> None:
        sandbox = made(faults=Faults(not_eligible=[ORDER]))
        answers = [await ask(sandbox, signed(sandbox)) for _ in range(2)]
        assert [answer.status for answer in answers] == [422, 422]
        error = answers[0].json["error"]
        assert (error["code"], error["message"]) == ("ORDER_021", "Order status does not allow this operation")
        assert error["details"]["hint"].endswith("in_transit, delivered, or order_completed.")
        context = {"orderId": ORDER, "allowedSubstatuses": list(ALLOWED_SUBSTATUSES)}
        assert error["details"]["context"] == context

    @pytest.mark.asyncio
    async def test_shares_choose_orders_by_the_seed_in_any_order(self) -> None:
        faults = Faults(
            unavailable_share=0.3,
            unavailable_times=2,
            rate_limited_share=0.2,
            not_eligible_share=0.2,
            retry_after="7",
        )

        async def outcomes(orders: tuple[str, ...]) -> dict[str, list[int]]:
            sandbox = made(faults=faults)
            found: dict[str, list[int]] = {order: [] for order in orders}
            for _ in range(4):
                answers = await asyncio.gather(*(ask(sandbox, signed(sandbox, order)) for order in orders))
                for order, answer in zip(orders, answers, strict=True):
                    found[order].append(answer.status)
                    assert answer.headers.get("Retry-After") == ("7" if answer.status == 429 else None)
            return found

        orders = demo_orders(200)
        forwards, backwards = await outcomes(orders), await outcomes(orders[::-1])
        assert forwards == backwards
        firsts = Counter(statuses[0] for statuses in forwards.values())
        lasts = Counter(statuses[-1] for statuses in forwards.values())
        assert set(firsts) == {200, 422, 429, 503}
        assert set(lasts) == {200, 422}
        assert 20 < firsts[429] < 60
        assert 30 < firsts[503] < 80
        assert 20 < lasts[422] < 60
        assert [429, 503, 503, 200] in forwards.values()


class TestScript:
    @pytest.mark.asyncio
    async def test_a_script_answers_once_each_by_path_then_id_then_operation(self) -> None:
        sandbox = made()
        sandbox.script(Operation.DOCUMENT, [Answer(status=500), Genuine()])
        sandbox.script(ORDER, [Answer(status=501)])
        sandbox.script(signed(sandbox).path, [Answer(status=502, headers={"A": "b"}, body=b"x")])
        answers = [await ask(sandbox, signed(sandbox)) for _ in range(5)]
        assert [answer.status for answer in answers] == [502, 501, 500, 200, 200]
        assert (answers[0].headers, answers[0].body) == ({"A": "b"}, b"x")

    @pytest.mark.asyncio
    async def test_declared_errors_can_be_scripted(self) -> None:
        sandbox = made()
        sandbox.script(
            "document",
            [
                Unavailable(),
                Unavailable(status=200),
                NotEligible(),
                NotEligible(status=409),
                RateLimited(retry_after=None),
            ],
        )
        answers = [await ask(sandbox, signed(sandbox)) for _ in range(5)]
        assert [answer.status for answer in answers] == [503, 200, 422, 409, 429]
        assert "Retry-After" not in answers[4].headers
        sandbox.script("document", [RateLimited(retry_after="Wed, 17 Sep 2025 09:15:00 GMT")])
        assert (await ask(sandbox, signed(sandbox))).headers["Retry-After"].endswith("GMT")

    @pytest.mark.asyncio
    async def test_bodies_that_are_not_what_their_head_says(self) -> None:
        sandbox = made()
        sandbox.script(
            ORDER, [NotPdf(), JsonUnder200(), JsonUnder200(content_type="application/pdf"), Truncated(missing=9)]
        )
        page, plain, disguised, cut = [await ask(sandbox, signed(sandbox)) for _ in range(4)]
        assert (page.status, page.headers["Content-Type"]) == (200, "application/pdf")
        assert page.body.startswith(b"<!DOCTYPE html>")
        assert plain.status == disguised.status == 200
        assert plain.json["error"]["code"] == disguised.json["error"]["code"] == "SYS_DEP_503"
        assert [plain.headers["Content-Type"], disguised.headers["Content-Type"]] == [
            "application/json",
            "application/pdf",
        ]
        assert len(cut.body) == int(cut.headers["Content-Length"]) - 9

    @pytest.mark.asyncio
    async def test_reset_before_and_within_the_answer(self) -> None:
        sandbox = made()
        sandbox.script("submit", [Reset(), Reset(after=0), Reset(after=5)])
        with pytest.raises(TransportError):
            await ask(sandbox, submission(sandbox))
        assert not sandbox.created
        for length in (0, 5):
            async with sandbox.send(submission(sandbox), Exchange()) as response:
                got: list[bytes] = []
                with pytest.raises(TransportError, match="within the body"):
                    await collect(response, got)
                assert len(b"".join(got)) == length
        assert len(sandbox.created) == 2

    @pytest.mark.asyncio
    async def test_a_dropped_answer_was_processed(self) -> None:
        sandbox = made()
        sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
        with pytest.raises(TransportError):
            await ask(sandbox, submission(sandbox))
        assert len(sandbox.created) == 1
        assert sandbox.counts[Operation.SUBMIT, None] == 1

    @pytest.mark.asyncio
    async def test_an_endless_body_has_a_pdf_head_and_no_length(self) -> None:
        sandbox = made()
        sandbox.script(ORDER, [Endless(chunk=1000)] * 2)
        async with sandbox.send(signed(sandbox), Exchange()) as response:
            assert response.header("content-length") is None
            assert response.header("CONTENT-TYPE") == "application/pdf"
            size = 0
            async for chunk in response.chunks():
                size += len(chunk)
                if size > 20_000:
                    break
        with pytest.raises(ProtocolError):
            await ask(sandbox, signed(sandbox))

    @pytest.mark.asyncio
    async def test_a_slow_body_drips_on_the_clock(self) -> None:
        clock = FakeClock()
        sandbox = made(clock)
        sandbox.script(ORDER, [Slow(2.0, size=1000)])
        answer = await ask(sandbox, signed(sandbox))
        pieces = -(-len(answer.body) // 1000)
        assert clock.slept == [2.0] * pieces
        assert pdf.fault_of(answer.body) is None

    @pytest.mark.asyncio
    @pytest.mark.parametrize("after", [None, 0, 10])
    async def test_a_hanging_answer_ends_with_the_caller(self, after: int | None) -> None:
        sandbox = made()
        sandbox.script(ORDER, [Hang(after=after)])
        task = asyncio.create_task(ask(sandbox, signed(sandbox)))
        await asyncio.sleep(0)
        assert sandbox.in_flight == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sandbox.in_flight == 0
        assert sandbox.log[-1].status == (None if after is None else 200)

    @pytest.mark.parametrize(
        "wrong", [lambda: Truncated(missing=0), lambda: Slow(-1), lambda: Slow(1, size=0), lambda: Endless(chunk=0)]
    )
    def test_wrong_settings_of_a_fault_are_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="must be"):
            wrong()


class TestSandbox:
    @pytest.mark.asyncio
    async def test_the_log_shows_a_new_timestamp_and_signature_for_each_attempt_and_no_secret(self) -> None:
        clock = FakeClock()
        sandbox = made(clock, faults=Faults(unavailable={ORDER: 1}))
        first = signed(sandbox)
        await ask(sandbox, first)
        clock.advance(0.25)
        await ask(sandbox, signed(sandbox))
        one, two = sandbox.log
        assert (one.status, two.status, one.verified, two.verified) == (503, 200, True, True)
        assert (one.at, two.at) == (START, START + 0.25)
        assert (one.timestamp, two.timestamp) == ("1758100350000", "1758100350250")
        assert one.signature == first.headers["X-Signature"] != two.signature
        assert sandbox.credentials.store_token not in repr(sandbox.log)
        assert (one.operation, one.method, one.path) == (Operation.DOCUMENT, "POST", first.path)

    @pytest.mark.asyncio
    async def test_the_log_is_bounded_and_the_counts_are_not(self) -> None:
        sandbox = made(log_size=3)
        for _ in range(5):
            await ask(sandbox, signed(sandbox))
        await ask(sandbox, signed(sandbox, x_signature="no"))
        assert len(sandbox.log) == 3
        assert sandbox.counts == {(Operation.DOCUMENT, 200): 5, (Operation.DOCUMENT, 401): 1}
        assert sandbox.calls("document") == 6
        assert sandbox.calls(Operation.TOKEN) == 0
        assert repr(sandbox) == "Sandbox(seed=0, 6 requests)"

    @pytest.mark.asyncio
    async def test_latency_passes_after_processing_and_concurrency_is_counted(self) -> None:
        clock = FakeClock(auto=False)
        sandbox = made(clock, latency=0.5)
        tasks = [asyncio.create_task(ask(sandbox, submission(sandbox))) for _ in range(3)]
        await asyncio.sleep(0)
        assert (sandbox.in_flight, len(sandbox.created)) == (3, 3)
        clock.advance(0.5)
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * 3
        assert (sandbox.in_flight, sandbox.peak) == (0, 3)

    @pytest.mark.asyncio
    async def test_what_is_not_there_is_told(self) -> None:
        sandbox = made(base_path="/api/v1")
        assert (await ask(sandbox, Request(method="POST", path="/nowhere"))).status == 404
        assert sandbox.log[-1].operation is Operation.UNKNOWN
        assert not sandbox.log[-1].verified
        assert (await ask(sandbox, evolve(signed(sandbox), method="GET"))).status == 405
        binary = evolve(signed(sandbox), headers={"Content-Type": "application/octet-stream"})
        assert (await ask(sandbox, binary)).status == 415

    @pytest.mark.asyncio
    async def test_the_base_path_may_stand_in_the_path_or_the_whole_address_in_the_base(self) -> None:
        sandbox = made(base_path="/api/v1")
        request = signed(sandbox)
        assert (await ask(sandbox, evolve(request, path="/api/v1" + request.path))).status == 200
        assert (await ask(sandbox, evolve(request, base_url=BASE + request.path, path=""))).status == 200

    @pytest.mark.asyncio
    async def test_the_exchange_is_marked_sent_and_closing_holds_nothing(self) -> None:
        sandbox = made()
        exchange = Exchange()
        async with sandbox.send(signed(sandbox), exchange):
            assert exchange.sent
        await sandbox.close()

    def test_secrets_have_no_repr(self) -> None:
        sandbox = Sandbox()
        known = sandbox.credentials
        shown = repr(sandbox.settings)
        assert not any(
            secret in shown for secret in (known.secret_key, known.store_token, known.client_secret, known.token)
        )
        assert set(known.partner()) == {"partner_client_id", "secret_key", "store_client_id", "store_token"}
        assert set(known.client()) == {"client_id", "client_secret", "tenant_connection_code"}
        assert sandbox.faults == Faults()

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: Faults(failed_share=1.5),
            lambda: Faults(not_eligible=ORDER),  # its letters are no ids
            lambda: Faults(lost_share=-0.1),
            lambda: Faults(polls_until_done=(3, 1)),
            lambda: Faults(seconds_until_done=(-1.0, 1.0)),
            lambda: SandboxSettings(skew=-1),
            lambda: SandboxSettings(log_size=0),
        ],
    )
    def test_settings_outside_their_limits_are_refused(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match="must be"):
            wrong()

    def test_demo_orders_are_distinct_uuids_of_the_seed(self) -> None:
        orders = demo_orders(500)
        assert len({str(UUID(order)) for order in orders}) == 500
        assert demo_orders(3) == orders[:3]
        assert demo_orders(3, seed=1) != orders[:3]

    def test_every_answer_of_a_script_is_one(self) -> None:
        answers: list[Scripted] = [Genuine(), Answer(), Hang(), Slow(1), Reset(), Truncated(), Endless(), NotPdf()]
        assert all(callable(answer.play) for answer in answers)


class TestPage:
    SHEET = _pdf_page.Sheet(
        number="1",
        issued=datetime(2025, 9, 17, tzinfo=UTC),
        seller=_pdf_page.Party("Seller"),
        buyer=_pdf_page.Party("Buyer", ("1 Street", "Town")),
        lines=tuple(_pdf_page.SheetLine("x" * 400, Decimal(1), Decimal(n), Decimal(n)) for n in range(60)),
    )

    def test_a_long_invoice_is_whole_on_several_pages(self) -> None:
        body = _pdf_page.render(self.SHEET)
        assert pdf.fault_of(body) is None
        assert body.count(b"/Type /Page\n") > 1

    @settings(deadline=None)  # the first one draws the page
    @given(st.text(max_size=80))
    def test_any_number_can_be_stamped(self, number: str) -> None:
        body = _pdf_page.stamp(self.SHEET, number)
        assert pdf.fault_of(body) is None
        assert len(body) == len(_pdf_page.stamp(self.SHEET, ""))

    @pytest.mark.parametrize(
        ("value", "text"), [("1234.5", "1,234.50"), ("0.125", "0.125"), ("1E+3", "1,000.00"), ("NaN", "NaN")]
    )
    def test_money_is_never_rounded(self, value: str, text: str) -> None:
        assert _pdf_page.money(Decimal(value)) == text

    def test_a_missing_fpdf2_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "fpdf", None)
        with pytest.raises(ImportError, match=r"invoicing-async\[sandbox\]"):
            _pdf_page.render.__wrapped__(self.SHEET)
