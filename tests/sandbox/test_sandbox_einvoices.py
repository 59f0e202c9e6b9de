"""The sandbox's e-invoices: tokens, invoices, the shapes it takes, and exports."""

from __future__ import annotations

import json
from base64 import b64encode
from collections import Counter
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from attrs import evolve
from fakes import START, FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st
from invoice_clients import sandboxed
from sandbox_requests import BASE, LINE, ask, bearer, draft, made, submission

from invoicing_async._core.http import Request
from invoicing_async._files import pdf
from invoicing_async.drafts import example_draft
from invoicing_async.errors import TransportError
from invoicing_async.models import RequestStatus
from invoicing_async.sandbox import (
    Faults,
    Operation,
    Sandbox,
)
from invoicing_async.sandbox._einvoices import FAILURE
from invoicing_async.sandbox._schema import Shape, encode, parse, total


def token_request(sandbox: Sandbox, *, secret: str | None = None, **form: str) -> Request:
    known = sandbox.credentials
    basic = b64encode(f"{known.client_id}:{secret or known.client_secret}".encode()).decode()
    fields = {"grant_type": "client_credentials", "tenant_connection_code": known.tenant_connection_code} | form
    return Request(
        method="POST",
        path="/v2/oauth/token",
        headers={"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(fields).encode(),
    )


def poll(sandbox: Sandbox, request_id: str) -> Request:
    return bearer(sandbox, f"/v2/ob/invoices/by-request-id/{request_id}")


def export(sandbox: Sandbox, invoice_id: str, form: str = "pdf") -> Request:
    return bearer(sandbox, f"/v2/ob/invoices/{invoice_id}/export", query=f"format={form}")


def link_request(link: str) -> Request:
    parts = urlsplit(link)
    return Request(method="GET", base_url=f"{parts.scheme}://{parts.netloc}", path=parts.path, query=parts.query)


def at_once(**faults: Any) -> Faults:
    return Faults(polls_until_done=(0, 0), exports_until_done=(0, 0), **faults)


async def created(sandbox: Sandbox, body: bytes | None = None) -> str:
    answer = await ask(sandbox, submission(sandbox, body))
    assert answer.status == 200
    request_id = answer.json["request_id"]
    assert isinstance(request_id, str)
    return request_id


class TestTokens:
    @pytest.mark.asyncio
    async def test_a_token_opens_service_b_until_its_lifetime_ends(self) -> None:
        clock = FakeClock()
        sandbox = made(clock, token_lifetime=60)
        answer = (await ask(sandbox, token_request(sandbox))).json
        assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 60)
        request = bearer(sandbox, "/v2/ob/invoices", body=draft(), token=answer["access_token"])
        assert (await ask(sandbox, request)).status == 200
        clock.advance(60)
        refused = await ask(sandbox, request)
        assert (refused.status, refused.body) == (401, b"Not Authorized")
        second = (await ask(sandbox, token_request(sandbox))).json["access_token"]
        assert second != answer["access_token"]

    @pytest.mark.asyncio
    async def test_revoked_tokens_are_refused_and_the_fixed_one_is_not(self) -> None:
        sandbox = made(announce_lifetime=False)
        answer = (await ask(sandbox, token_request(sandbox))).json
        assert "expires_in" not in answer
        sandbox.revoke_tokens()
        revoked = bearer(sandbox, "/v2/ob/invoices", body=draft(), token=answer["access_token"])
        assert (await ask(sandbox, revoked)).status == 401
        assert (await ask(sandbox, submission(sandbox))).status == 200

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("change", "status", "error"),
        [
            ({"secret": "wrong"}, 401, "invalid_client"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"tenant_connection_code": "OTHER"}, 400, "invalid_grant"),
        ],
    )
    async def test_a_wrong_token_request_is_refused(self, change: dict[str, str], status: int, error: str) -> None:
        sandbox = made()
        answer = await ask(sandbox, token_request(sandbox, **change))
        assert (answer.status, answer.json) == (status, {"error": error})

    @pytest.mark.asyncio
    async def test_a_token_request_must_be_one_form(self) -> None:
        sandbox = made()
        right = token_request(sandbox)
        twice = evolve(right, body=right.body + b"&grant_type=client_credentials")
        as_json = evolve(right, headers={**right.headers, "Content-Type": "application/json"})
        for wrong in (twice, as_json):
            assert (await ask(sandbox, wrong)).json == {"error": "invalid_request"}

    @pytest.mark.asyncio
    async def test_a_call_without_a_bearer_is_refused(self) -> None:
        sandbox = made()
        assert (await ask(sandbox, evolve(submission(sandbox), headers={}))).status == 401


class TestInvoices:
    @pytest.mark.asyncio
    async def test_a_submission_is_recorded_byte_for_byte(self) -> None:
        sandbox = made()
        body = draft(consumer={"name": "Công ty Đông Á"}).replace(b"10.5,", b"10.50,")
        request_id = await created(sandbox, body)
        record = sandbox.created[request_id]
        assert (record.body, record.at, record.request_id) == (body, START, request_id)
        assert str(record.content["invoice_data"]["invoice_lines"][0]["price"]) == "10.50"
        with pytest.raises(TypeError):
            sandbox.created["x"] = record  # type: ignore[index]  # a read-only view

    @pytest.mark.asyncio
    async def test_sending_twice_creates_twice_and_it_can_be_counted(self) -> None:
        sandbox = made()
        ids = [await created(sandbox) for _ in range(2)]
        assert ids[0] != ids[1]
        assert Counter(record.body for record in sandbox.created.values()) == {draft(): 2}

    @pytest.mark.asyncio
    async def test_ids_depend_on_seed_and_content_and_not_on_order(self) -> None:
        bodies = [draft(consumer={"code": str(number)}) for number in range(5)]
        first, second, other = made(), made(), made(seed=9)
        forwards = [await created(first, body) for body in bodies]
        backwards = [await created(second, body) for body in bodies[::-1]]
        assert forwards == backwards[::-1]
        assert await created(other, bodies[0]) != forwards[0]

    @pytest.mark.asyncio
    async def test_an_operation_ends_after_its_polls(self) -> None:
        sandbox = made(faults=Faults(polls_until_done=(3, 3)))
        request_id = await created(sandbox)
        answers = [(await ask(sandbox, poll(sandbox, request_id))).json for _ in range(4)]
        assert [answer["status"] for answer in answers] == ["NEW", "NEW", "SUCCESS", "SUCCESS"]
        assert answers[0] == {"request_id": request_id, "status": "NEW"}
        data = answers[2]["data"]
        assert data["id"] == sandbox.created[request_id].invoice_id
        assert data["authority_status"] == "SUBMITTED"
        assert data["invoice_amount"] == {"amount_without_tax": 31.0, "tax_amount": 0, "total_amount": 31.0}
        assert data["created_date"].startswith(data["date_of_issue"])

    @pytest.mark.asyncio
    async def test_an_operation_ends_at_its_time_on_the_clock(self) -> None:
        clock = FakeClock()
        sandbox = made(clock, faults=Faults(seconds_until_done=(10, 20), failed_share=1.0))
        request_id = await created(sandbox)
        clock.advance(9.9)
        assert (await ask(sandbox, poll(sandbox, request_id))).json["status"] == "NEW"
        clock.advance(10.1)
        found = (await ask(sandbox, poll(sandbox, request_id))).json
        assert (found["request_id"], found["status"]) == (request_id, "FAILED")

    @pytest.mark.asyncio
    @pytest.mark.parametrize("polls", [0, 2])
    async def test_what_fails_says_why(self, polls: int) -> None:
        """Whether it is told at once or later, so that who tries the library sees what a reason looks like."""
        faults = Faults(polls_until_done=(polls, polls), failed_share=1.0)
        async with sandboxed(faults=faults, clock=FakeClock()) as (invoices, _):
            done = await invoices.wait((await invoices.submit(example_draft(1))).request_id)
        assert done.status == RequestStatus.FAILED
        assert (done.code, done.reason) == (FAILURE["code"], FAILURE["message"])

    @pytest.mark.asyncio
    async def test_it_may_be_terminal_at_once(self) -> None:
        sandbox = made(faults=at_once())
        assert (await ask(sandbox, submission(sandbox))).json["status"] == "SUCCESS"

    @pytest.mark.asyncio
    async def test_a_share_fails_and_polls_spread(self) -> None:
        sandbox = made(faults=Faults(failed_share=0.25, polls_until_done=(1, 3)))
        ids = [await created(sandbox, draft(consumer={"code": str(number)})) for number in range(120)]
        outcomes = Counter(sandbox.created[request_id].outcome for request_id in ids)
        assert 15 < outcomes[RequestStatus.FAILED] < 45
        ended = Counter([await polls_to_end(sandbox, one) for one in ids])
        assert set(ended) == {1, 2, 3}

    @pytest.mark.asyncio
    async def test_a_lost_answer_leaves_an_invoice(self) -> None:
        sandbox = made(faults=Faults(lost_share=1.0))
        with pytest.raises(TransportError) as caught:
            await ask(sandbox, submission(sandbox))
        assert caught.value.sent == "unknown"
        assert len(sandbox.created) == 1
        assert sandbox.log[-1].status is None

    @pytest.mark.asyncio
    async def test_unknown_ids_are_404(self) -> None:
        sandbox = made(faults=Faults(polls_until_done=(2, 2)))
        request_id = await created(sandbox)
        unfinished = sandbox.created[request_id].invoice_id
        for request in (poll(sandbox, "nobody"), export(sandbox, "nobody"), export(sandbox, unfinished)):
            assert (await ask(sandbox, request)).status == 404

    @pytest.mark.asyncio
    async def test_a_body_of_another_type_is_refused(self) -> None:
        sandbox = made()
        request = submission(sandbox)
        headers = {"Authorization": request.headers["Authorization"], "Content-Type": "text/plain"}
        answer = await ask(sandbox, evolve(request, headers=headers))
        assert answer.status == 400
        faults = answer.json["error"]["details"]["context"]["faults"]
        assert faults == ["Content-Type: must be application/json"]
        assert not sandbox.created


async def polls_to_end(sandbox: Sandbox, request_id: str) -> int:
    for turn in range(1, 10):
        if (await ask(sandbox, poll(sandbox, request_id))).json["status"] != "NEW":
            return turn
    raise AssertionError("never ended")


class TestShape:
    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            (b"{", "body: not JSON"),
            (b"\xff", "body: not JSON"),
            (b'{"a": NaN}', "body: not JSON: NaN is not JSON"),
            (b'{"a": 1, "a": 2}', "body: not JSON: an object names a field twice"),
            (b"[]", "body: must be an object"),
            (b"{}", "invoice_data: is required"),
            (b'{"invoice_data": {}}', "invoice_data.invoice_lines: is required"),
            (draft(invoice_template_id="x"), "invoice_data.invoice_template_id: must be a UUID"),
            (draft(invoice_template_id=1), "invoice_data.invoice_template_id: must be a UUID"),
            (draft(invoice_lines=[]), "invoice_data.invoice_lines: must have at least 1 element"),
            (draft(invoice_lines={}), "invoice_data.invoice_lines: must be an array"),
            (draft(invoice_lines=[LINE, {}]), "invoice_data.invoice_lines[1].name: is required"),
            (draft(invoice_lines=[LINE | {"price": "1"}]), "invoice_data.invoice_lines[0].price: must be a number"),
            (draft(invoice_lines=[LINE | {"price": True}]), "invoice_data.invoice_lines[0].price: must be a number"),
            (draft(invoice_lines=[LINE | {"price": 1e200}]), "invoice_data.invoice_lines[0].price: is out of range"),
            (
                draft(invoice_lines=[LINE | {"amount": 31.01}]),
                "invoice_data.invoice_lines[0].amount: must be (price * quantity) - discount_amount",
            ),
            (
                draft(invoice_lines=[LINE | {"vat_rate": "SEVEN"}]),
                "invoice_data.invoice_lines[0].vat_rate: must be one of EIGHT, FIVE, NONE, TEN, UNDECLARED, ZERO",
            ),
            (
                draft(invoice_lines=[LINE | {"name": "x" * 501}]),
                "invoice_data.invoice_lines[0].name: must have at most 500 characters, has 501",
            ),
            (draft(consumer={"phone": 1}), "invoice_data.consumer.phone: must be a string"),
            (draft(consumer={"fax": "1"}), "invoice_data.consumer.fax: is not a known field"),
            (draft(payment_method=None), "invoice_data.payment_method: must be one of BANK_TRANSFER, CASH, UNKNOWN"),
            (draft(has_tax_authority_code=1), "invoice_data.has_tax_authority_code: must be a boolean"),
            (draft(note="x"), "invoice_data.note: is not a known field"),
        ],
    )
    def test_every_limit_of_b1_is_checked(self, body: bytes, fault: str) -> None:
        found = Shape().faults(body)
        assert any(one.startswith(fault) for one in found), found

    def test_the_whole_of_b1_is_accepted(self) -> None:
        texts = ("code", "name", "address", "buyer_name", "bank_account", "tax_code", "citizen_identification", "phone")
        line = LINE | {"code": "T", "tax_amount": 1, "vat_rate": "TEN", "is_promotion": False}
        body = json.loads(
            draft(
                consumer=dict.fromkeys(texts, "1" * 12),
                invoice_lines=[line, {"name": "n", "unit": "u", "price": 0, "quantity": 1.5}],
                has_tax_authority_code=True,
                payment_method="CASH",
            )
        )
        body["submit_to_tax_request"] = {"emails": ["a@b.c"], "is_send_mail": False, "auto_submit_to_tax": True}
        assert Shape().faults(json.dumps(body).encode()) == ()

    def test_all_faults_are_told_at_once(self) -> None:
        assert len(Shape().faults(draft(consumer={"name": 1, "tax_code": "1" * 15}, note=1))) == 3

    def test_open_names_and_extra_fields_are_settings(self) -> None:
        shape = Shape(names={"payment_method": "pay_by"}, extra=frozenset({"note"}))
        assert shape.faults(draft(pay_by="CASH", note={"any": [None]})) == ()
        assert shape.faults(draft(payment_method="CASH")) == ("invoice_data.payment_method: is not a known field",)

    def test_submit_to_tax_may_be_nested(self) -> None:
        nested = draft(submit_to_tax_request={"emails": []})
        assert Shape(nested=True).faults(nested) == ()
        assert Shape().faults(nested) == ("invoice_data.submit_to_tax_request: is not a known field",)

    def test_nonsense_does_not_raise(self) -> None:
        for body in (b"[" * 100_000, b'{"a": 1e999999999999999999999}', b"\xef\xbb\xbf{}"):
            assert Shape().faults(body)

    @settings(deadline=None)  # shared machines
    @given(
        st.recursive(
            st.none() | st.booleans() | st.text() | st.decimals(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
            max_leaves=12,
        )
    )
    def test_what_is_written_reads_back_exactly(self, value: Any) -> None:
        assert encode(parse(encode(value).encode("utf-8", "surrogatepass"))) == encode(value)

    def test_totals_are_exact(self) -> None:
        assert total([Decimal("1e50"), Decimal("1e-50")]) == Decimal(f"1{'0' * 50}.{'0' * 49}1")


class TestExport:
    @pytest.mark.asyncio
    async def test_an_export_is_built_then_linked_and_the_link_serves_the_document(self) -> None:
        sandbox = made(faults=Faults(polls_until_done=(0, 0), exports_until_done=(2, 2)))
        record = sandbox.created[await created(sandbox, draft(consumer={"name": "Nguyễn Đức", "phone": "1"}))]
        answers = [(await ask(sandbox, export(sandbox, record.invoice_id))).json for _ in range(3)]
        assert [answer["status"] for answer in answers] == ["BUILDING", "BUILDING", "DONE"]
        assert answers[0]["download_url"] == ""
        link = answers[2]["download_url"]
        assert link.startswith(f"{BASE}/files/{record.invoice_id}.pdf?key=")
        document = await ask(sandbox, link_request(link))
        assert pdf.fault_of(document.body, content_length=int(document.headers["Content-Length"])) is None
        assert sandbox.log[-1].operation is Operation.FILE
        assert sandbox.log[-1].credentials == ()

    @pytest.mark.asyncio
    async def test_a_credential_that_reaches_the_download_host_is_recorded(self) -> None:
        sandbox = made(faults=at_once())
        record = sandbox.created[await created(sandbox)]
        link = (await ask(sandbox, export(sandbox, record.invoice_id))).json["download_url"]
        leaking = evolve(link_request(link), headers={"Authorization": "Bearer x", "X-Store-Token": "y"})
        await ask(sandbox, leaking)
        assert sandbox.log[-1].credentials == ("authorization", "x-store-token")

    @pytest.mark.asyncio
    async def test_xml_is_escaped_and_links_may_lie_on_another_host(self) -> None:
        sandbox = made(faults=at_once(), files_url="http://files.test")
        record = sandbox.created[await created(sandbox, draft(invoice_lines=[LINE | {"name": "<&>"}]))]
        link = (await ask(sandbox, export(sandbox, record.invoice_id, "xml"))).json["download_url"]
        assert link.startswith("http://files.test/files/")
        document = await ask(sandbox, link_request(link))
        assert document.headers["Content-Type"] == "application/xml"
        assert b"<name>&lt;&amp;&gt;</name>" in document.body

    @pytest.mark.asyncio
    async def test_a_link_without_a_base_url_points_nowhere(self) -> None:
        sandbox = made(faults=at_once(), base_path="/api")
        record = sandbox.created[await created(sandbox)]
        answer = await ask(sandbox, evolve(export(sandbox, record.invoice_id), base_url=""))
        assert answer.json["download_url"].startswith("http://sandbox.invalid/api/files/")

    @pytest.mark.asyncio
    async def test_only_links_that_were_given_out_are_served(self) -> None:
        sandbox = made(faults=at_once())
        record = sandbox.created[await created(sandbox)]
        link = (await ask(sandbox, export(sandbox, record.invoice_id))).json["download_url"]
        forged = await ask(sandbox, evolve(link_request(link), query="key=0"))
        assert (forged.status, forged.json["error"]["code"]) == (403, "FILE_403")
        unmade = await ask(made(faults=at_once()), link_request(link))
        assert unmade.status == 404

    @pytest.mark.asyncio
    async def test_the_format_is_pdf_or_xml(self) -> None:
        sandbox = made(faults=at_once())
        record = sandbox.created[await created(sandbox)]
        assert (await ask(sandbox, export(sandbox, record.invoice_id, "doc"))).status == 400
        assert (await ask(sandbox, evolve(export(sandbox, record.invoice_id), query=""))).status == 400
