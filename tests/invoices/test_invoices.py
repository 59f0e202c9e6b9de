"""E-invoices against the sandbox: submitting, waiting, batches, exports. Fates stand in test_submission_fates."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from fakes import FakeClock, FakeResponse
from invoice_clients import STEADY, STRANGER, draft, faked, gathered, on_a_port, said, sandboxed, scripted

from invoicing_async import (
    AsyncInvoices,
    InvoiceLine,
    Limits,
    OAuthClientCredentials,
    RequestStatus,
    RetryPolicy,
    Session,
    StaticToken,
)
from invoicing_async._core.http import Response
from invoicing_async._files.publish import OnExisting
from invoicing_async._transport.server import serve
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DraftError,
    ExportError,
    IncompleteDocumentError,
    PollTimeoutError,
    ProtocolError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
)
from invoicing_async.invoices import SubmitOutcome, WireNames
from invoicing_async.invoices._calls import Endpoints
from invoicing_async.invoices._client import work_of
from invoicing_async.models import InDoubt, Invalid, InvoiceRequest, NotSent, Rejected, Submitted
from invoicing_async.sandbox import (
    Answer,
    DropBeforeAnswer,
    Faults,
    Operation,
    RateLimited,
    Sandbox,
    SandboxSettings,
    Truncated,
    Unavailable,
)

pytestmark = pytest.mark.asyncio


class TestSubmit:
    async def test_the_digits_of_a_draft_arrive_exactly_as_they_were_given(self) -> None:
        precise = InvoiceLine(name="x", unit="u", price="0.1000000000000000000001", quantity="3")
        async with sandboxed() as (invoices, sandbox):
            request = await invoices.submit(draft(lines=[precise]))
        created = sandbox.created[request.request_id]
        assert b'"price":0.1000000000000000000001' in created.body
        assert created.content["invoice_data"]["invoice_lines"][0]["price"] == Decimal("0.1000000000000000000001")
        assert b"INV-1" not in created.body
        assert request.status is RequestStatus.NEW

    async def test_every_fault_is_reported_and_nothing_is_sent(self) -> None:
        bad = draft(invoice_template_id="7", lines=[InvoiceLine(name="n" * 501, unit="", price="x", quantity="1")])
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(DraftError) as caught:
                await invoices.submit(bad)
        paths = {fault.path for fault in caught.value.faults}
        assert {"invoice_template_id", "lines[0].name", "lines[0].price"} <= paths
        assert (caught.value.key, caught.value.sent) == ("INV-1", "no")
        assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_it_may_be_terminal_at_once(self) -> None:
        async with sandboxed(faults=Faults(polls_until_done=(0, 0))) as (invoices, sandbox):
            request = await invoices.create(draft())
        assert request.terminal
        assert sandbox.calls(Operation.STATUS) == 0

    async def test_create_waits_for_the_end(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            request = await invoices.create(draft(), poller=STEADY)
        assert request.status is RequestStatus.SUCCESS
        assert request.data is not None
        assert request.data.id == sandbox.created[request.request_id].invoice_id
        assert sandbox.calls(Operation.STATUS) == 2

    async def test_a_lost_answer_is_in_doubt_and_is_never_sent_again(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [DropBeforeAnswer()])
            with pytest.raises(SubmissionInDoubtError) as caught:
                await invoices.submit(draft())
        (created,) = sandbox.created.values()
        assert caught.value.body_sha256 == sha256(created.body).hexdigest()
        assert sandbox.calls(Operation.SUBMIT) == 1

    async def test_sent_at_is_when_the_last_attempt_left(self) -> None:
        clock = FakeClock()
        async with sandboxed(clock=clock) as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [RateLimited(retry_after="90"), DropBeforeAnswer()])
            begun = clock.now()
            with pytest.raises(SubmissionInDoubtError) as caught:
                await invoices.submit(draft())
        assert caught.value.sent_at == begun + 90

    async def test_before_is_awaited_before_each_attempt(self) -> None:
        seen: list[int] = []
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.SUBMIT, [Unavailable()])

            async def before() -> None:
                seen.append(sandbox.calls(Operation.SUBMIT))

            await invoices.submit(draft(), before=before)
        assert seen == [0, 1]

    async def test_a_credential_that_cannot_be_had_means_it_was_not_sent(self) -> None:
        credentials = {**SandboxSettings().credentials.client(), "client_secret": "wrong"}
        async with sandboxed(auth=OAuthClientCredentials(**credentials)) as (invoices, sandbox):
            with pytest.raises(AuthenticationError) as caught:
                await invoices.submit(draft())
        assert caught.value.sent == "no"
        assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_names_and_endpoints_are_settings(self) -> None:
        transport = scripted(FakeResponse(pieces=(json.dumps({"request_id": STRANGER, "status": "NEW"}).encode(),)))
        async with Session("http://fake.test", auth=StaticToken("t"), transport=transport) as session:
            invoices = AsyncInvoices(
                session,
                names=WireNames(payment_method="pay"),
                endpoints=Endpoints(create="/v3/new", status_method="GET", status="/v3/{}/state"),
            )
            await invoices.submit(draft(payment_method="CASH"))
            await invoices.status(STRANGER)
        assert [(sent.method, sent.path) for sent in transport.sent] == [
            ("POST", "/v3/new"),
            ("GET", f"/v3/{STRANGER}/state"),
        ]
        assert b'"pay":"CASH"' in transport.sent[0].body

    async def test_a_longer_answer_than_any_invoice_is_refused(self) -> None:
        transport = scripted(FakeResponse(pieces=(b" " * 2**24, b" ")))
        async with faked(transport) as invoices:
            with pytest.raises(ProtocolError, match="longer than"):
                await invoices.status(STRANGER)


class TestStatus:
    @pytest.mark.parametrize("request_id", ["", "7", "../x", None, 7, "g" * 36])
    async def test_an_id_that_is_no_uuid_is_a_bad_argument(self, request_id: Any) -> None:
        async with sandboxed() as (invoices, _):
            for call in (invoices.status, invoices.wait):
                with pytest.raises(ValueError, match="request_id must be a UUID"):
                    await call(request_id)

    async def test_an_unknown_request_is_the_services_own_error(self) -> None:
        async with sandboxed() as (invoices, _):
            with pytest.raises(ApiError) as caught:
                await invoices.status(STRANGER)
        assert caught.value.status == 404

    async def test_an_error_envelope_under_200_is_that_error(self) -> None:
        envelope = {"success": False, "error": {"code": "SYS_DEP_503", "message": "down"}}
        async with faked(scripted(FakeResponse(pieces=(json.dumps(envelope).encode(),)))) as invoices:
            with pytest.raises(ServiceUnavailableError):
                await invoices.status(STRANGER, retry=RetryPolicy(attempts=1))

    async def test_an_envelope_of_success_is_looked_through(self) -> None:
        inner = b'{"success":true,"data":{"request_id":"%s","status":"NEW"}}' % STRANGER.encode()
        async with faked(scripted(FakeResponse(pieces=(inner,)))) as invoices:
            assert (await invoices.status(STRANGER)).status is RequestStatus.NEW

    async def test_a_date_to_wait_for_is_taken_from_now(self) -> None:
        """An envelope under 200 may ask for a wait as one under 503 does."""
        clock = FakeClock()
        envelope = b'{"success":false,"error":{"code":"SYS_DEP_503"}}'
        until = format_datetime(datetime.fromtimestamp(int(clock.now()) + 20, UTC), usegmt=True)
        answers = [
            FakeResponse(headers={"Retry-After": until}, pieces=(envelope,)),
            FakeResponse(pieces=(b'{"status":"NEW"}',)),
        ]
        async with faked(scripted(*answers), clock=clock) as invoices:
            assert (await invoices.status(STRANGER)).status is RequestStatus.NEW
        assert clock.elapsed == 20


class TestSubmitMany:
    async def outcomes(self, invoices: AsyncInvoices, drafts: Any, **named: Any) -> list[SubmitOutcome]:
        async with aclosing(invoices.submit_many(drafts, **named)) as outcomes:
            return [outcome async for outcome in outcomes]

    async def test_every_draft_has_one_outcome(self) -> None:
        drafts = [draft(number) for number in range(1, 9)]
        drafts[2] = draft(3, lines=[])
        async with sandboxed(limits=Limits(concurrency=1), retry=RetryPolicy(attempts=1)) as (invoices, sandbox):
            sandbox.script(
                Operation.SUBMIT,
                [said("NEW", request_id=STRANGER), DropBeforeAnswer(), Answer(status=422), Unavailable()],
            )
            outcomes = await self.outcomes(invoices, drafts)
        kinds = {outcome.draft.key: type(outcome) for outcome in outcomes}
        assert len(outcomes) == len(kinds) == 8
        assert kinds == {
            "INV-1": Submitted,
            "INV-2": InDoubt,
            "INV-3": Invalid,
            "INV-4": Rejected,
            "INV-5": NotSent,
            "INV-6": Submitted,
            "INV-7": Submitted,
            "INV-8": Submitted,
        }
        assert len(sandbox.created) == 4

    async def test_a_refused_credential_ends_it_and_the_rest_was_not_sent(self) -> None:
        async with sandboxed(settings=SandboxSettings(latency=1)) as (invoices, sandbox):
            drafts = [draft(number) for number in range(1, 21)]
            sandbox.script(Operation.SUBMIT, [said("NEW", request_id=STRANGER)] * 3 + [Answer(status=401)] * 99)
            outcomes: list[SubmitOutcome] = []
            with pytest.raises(AuthenticationError):
                await gathered(invoices.submit_many(drafts, concurrency=4), outcomes)
        assert Counter(outcome.draft.key for outcome in outcomes) == Counter(one.key for one in drafts)
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert kinds[Submitted] + kinds[NotSent] == 20
        assert kinds[Submitted] >= 3
        assert kinds[NotSent] >= 12
        sent = sandbox.calls(Operation.SUBMIT)
        assert kinds[Submitted] + 3 <= sent <= kinds[Submitted] + 8

    async def test_leaving_early_sends_no_more(self) -> None:
        async with sandboxed() as (invoices, sandbox):
            async with aclosing(invoices.submit_many((draft(n) for n in range(1, 1000)), concurrency=2)) as outcomes:
                async for _ in outcomes:
                    break
            assert sandbox.calls(Operation.SUBMIT) <= 4

    @pytest.mark.parametrize("concurrency", [0, -1])
    async def test_fewer_than_one_at_once_is_refused_before_anything_is_sent(self, concurrency: int) -> None:
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(ValueError, match=f"concurrency must be 1 or more, got {concurrency}"):
                await gathered(invoices.submit_many([draft()], concurrency=concurrency), [])
            assert sandbox.calls(Operation.SUBMIT) == 0

    async def test_whatever_else_goes_wrong_leaves_it_in_doubt(self) -> None:
        """A defect may show after the first byte."""

        async def read(heard: object, response: Response) -> InvoiceRequest:
            raise LookupError("a defect")

        async with sandboxed() as (invoices, _):
            vars(work_of(invoices).calls)["_read_creation"] = read
            (outcome,) = await self.outcomes(invoices, [draft()])
        assert isinstance(outcome, InDoubt)
        assert isinstance(outcome.error, SubmissionInDoubtError)
        assert outcome.error.key == "INV-1"
        assert isinstance(outcome.error.__cause__, LookupError)

    async def test_a_closed_session_ends_it(self) -> None:
        async with sandboxed() as (invoices, _):
            pass
        with pytest.raises(SessionError):
            await self.outcomes(invoices, [draft()])


class TestExport:
    async def finished(self, invoices: AsyncInvoices) -> str:
        request = await invoices.create(draft(), poller=STEADY)
        assert request.data is not None
        return request.data.id

    @pytest.mark.parametrize("kind", ["pdf", "xml"])
    async def test_it_waits_until_the_document_is_built_and_saves_it_whole(self, kind: str, tmp_path: Path) -> None:
        faults = Faults(polls_until_done=(1, 1), exports_until_done=(3, 3))
        async with sandboxed(faults=faults) as (invoices, sandbox):
            number = await self.finished(invoices)
            saved = await invoices.export(number, tmp_path, format=kind, poller=STEADY)
        content = saved.path.read_bytes()
        assert saved.path == tmp_path / f"{number}.{kind}"
        assert (saved.order_id, saved.size, saved.attempts) == (number, len(content), 1)
        assert saved.sha256 == sha256(content).hexdigest()
        assert content.startswith(b"%PDF-" if kind == "pdf" else b"<?xml")
        assert sandbox.calls(Operation.EXPORT) == 4

    async def test_what_is_there_whole_is_kept(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            number = await self.finished(invoices)
            first = await invoices.export(number, tmp_path, poller=STEADY)
            calls = sandbox.counts.total()
            second = await invoices.export(number, tmp_path)
        assert (second.path, second.sha256, second.attempts) == (first.path, first.sha256, 0)
        assert sandbox.counts.total() == calls

    @pytest.mark.parametrize("existing", ["keep", "new_name", "replace"])
    async def test_what_is_there_and_broken_is_never_taken_for_it(self, existing: str, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, _):
            number = await self.finished(invoices)
            broken = tmp_path / f"{number}.pdf"
            broken.write_bytes(b"%PDF-1.7 half")
            saved = await invoices.export(number, tmp_path, poller=STEADY, on_existing=OnExisting[existing.upper()])
        assert saved.path.read_bytes().rstrip().endswith(b"%%EOF")
        assert (saved.path == broken) is (existing == "replace")
        assert len(list(tmp_path.iterdir())) == (1 if existing == "replace" else 2)

    async def test_the_service_may_fail_to_build_it(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.EXPORT, [said("NEW"), said("FAIL")])
            with pytest.raises(ExportError) as caught:
                await invoices.export(STRANGER, tmp_path, poller=STEADY)
        assert caught.value.invoice_id == STRANGER
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("poller", [evolve(STEADY, timeout=5), [1, 1, 1, 1, 1]], ids=["timeout", "waits"])
    async def test_it_may_take_too_long(self, poller: Any, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            sandbox.script(Operation.EXPORT, [said("BUILDING")] * 9)
            with pytest.raises(PollTimeoutError) as caught:
                await invoices.export(STRANGER, tmp_path, poller=poller)
        assert (caught.value.request_id, caught.value.polls) == (STRANGER, 6)

    async def test_no_credential_goes_to_the_download_host(self, tmp_path: Path) -> None:
        files = Sandbox()
        async with serve(files) as elsewhere:
            settings = SandboxSettings(files_url=elsewhere)
            faults = Faults(polls_until_done=(1, 1), exports_until_done=(0, 0))
            async with on_a_port(settings=settings, faults=faults) as (invoices, sandbox):
                files._shared, files._einvoices = sandbox._shared, sandbox._einvoices
                files._endpoints = sandbox._endpoints
                number = await self.finished(invoices)
                saved = await invoices.export(number, tmp_path, poller=STEADY)
        assert saved.path.exists()
        assert [(entry.operation, entry.credentials, entry.status) for entry in files.log] == [
            (Operation.FILE, (), 200)
        ]
        assert {entry.credentials for entry in sandbox.log} == {("authorization",)}

    @pytest.mark.parametrize("kind", ["pdf", "xml"])
    async def test_a_document_that_breaks_off_is_fetched_again_and_leaves_nothing(
        self, kind: str, tmp_path: Path
    ) -> None:
        async with sandboxed(retry=RetryPolicy(attempts=2, first=0)) as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [Truncated(missing=12), Truncated(missing=12), Truncated(missing=12)])
            with pytest.raises(IncompleteDocumentError):
                await invoices.export(number, tmp_path, format=kind, poller=STEADY)
            assert list(tmp_path.iterdir()) == []
            saved = await invoices.export(number, tmp_path, format=kind, poller=STEADY)
        assert saved.path.exists()
        assert sandbox.calls(Operation.FILE) == 4

    async def test_an_xml_cut_at_an_element_without_a_length_is_not_whole(self, tmp_path: Path) -> None:
        cut = Answer(headers={"Content-Type": "application/xml"}, body=b"<?xml version='1.0'?><invoice><id>1</id>")
        async with sandboxed(retry=RetryPolicy(attempts=1)) as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [cut])
            with pytest.raises(IncompleteDocumentError, match="not a whole XML document"):
                await invoices.export(number, tmp_path, format="xml", poller=STEADY)
        assert list(tmp_path.iterdir()) == []

    async def test_a_large_document_goes_to_the_disk_in_pieces(self, tmp_path: Path) -> None:
        body = b"<a>" + b"x" * (3 * 2**20) + b"</a>"
        large = Answer(headers={"Content-Type": "text/xml", "Content-Length": str(len(body))}, body=body)
        async with sandboxed() as (invoices, sandbox):
            number = await self.finished(invoices)
            sandbox.script(Operation.FILE, [large])
            saved = await invoices.export(number, tmp_path, format="xml", poller=STEADY, durable=True)
        assert saved.size == len(body)
        assert saved.path.read_bytes() == body

    async def test_bad_arguments(self, tmp_path: Path) -> None:
        async with sandboxed() as (invoices, sandbox):
            with pytest.raises(ValueError, match="format must be one of pdf, xml"):
                await invoices.export(STRANGER, tmp_path, format="html")
            with pytest.raises(ValueError, match="invoice_id must be a UUID"):
                await invoices.export("../etc", tmp_path)
            with pytest.raises(ValueError, match="not a valid OnExisting"):
                await invoices.export(STRANGER, tmp_path, on_existing="overwrite")
        assert sandbox.counts.total() == 0

    async def test_a_link_with_characters_of_its_own_is_asked_for_as_it_is(self, tmp_path: Path) -> None:
        link = "http://files.test/a%20b?s=%2F+[1]"
        transport = scripted(
            FakeResponse(pieces=(json.dumps({"status": "DONE", "download_url": link}).encode(),)),
            FakeResponse(headers={"Content-Type": "application/xml"}, pieces=(b"<a/>",)),
        )
        async with faked(transport) as invoices:
            await invoices.export(STRANGER, tmp_path, format="xml")
        assert transport.sent[1].url == link
        assert not transport.sent[1].authorised
        assert "authorization" not in {name.lower() for name in transport.sent[1].headers}


async def test_a_batch_takes_the_sessions_concurrency_and_way_of_waiting() -> None:
    clock = FakeClock()
    async with sandboxed(clock=clock, limits=Limits(concurrency=7)) as (invoices, _):
        assert work_of(invoices).concurrency == 7
        await work_of(invoices).sleep(3)
    assert clock.slept == [3]
