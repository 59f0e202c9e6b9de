"""`RecordingSandbox`: it keeps what arrived, opens sessions on itself, and its assertions hold and fail as they say."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from invoicing_async import (
    AsyncInvoices,
    AuthenticationError,
    Consumer,
    HmacAuth,
    InvoiceDraft,
    InvoiceLine,
    OrderDocuments,
    Poller,
    RetryPolicy,
    Session,
    SubmissionInDoubtError,
)
from invoicing_async.models import RequestStatus
from invoicing_async.sandbox import (
    Answer,
    Created,
    Fault,
    Faults,
    Operation,
    Outage,
    Sandbox,
    SandboxCredentials,
    demo_orders,
)
from invoicing_async.sandbox._answers import Reply, Stage
from invoicing_async.settings import Settings
from invoicing_async.testing import FakeClock, RecordedRequest, RecordingSandbox
from invoicing_async.testing._checks import content_of
from invoicing_async.transport import Request, Response

pytestmark = pytest.mark.asyncio

ORDER, OTHER = demo_orders(2)
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def draft(key: str = "A-1", buyer: str = "B-1") -> InvoiceDraft:
    line = InvoiceLine(name="Tea", unit="box", price=Decimal("10.25"), quantity=Decimal(2))
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=[line], consumer=Consumer(code=buyer))


def made(*inject: Fault | str, faults: Faults | None = None) -> RecordingSandbox:
    return RecordingSandbox(faults=faults, inject=inject, clock=FakeClock(quiet=0))


@asynccontextmanager
async def e_invoices(sandbox: RecordingSandbox) -> AsyncIterator[AsyncInvoices]:
    async with sandbox.invoices_session() as session:
        yield AsyncInvoices(session)


async def read(response: Response) -> bytes:
    return await response.read(10_000)


async def fetch(session: Session, order_id: str = ORDER) -> bytes:
    async with OrderDocuments(session).open(order_id) as document:
        return b"".join([chunk async for chunk in document.chunks])


class TestRecording:
    async def test_a_request_is_kept_as_it_came(self) -> None:
        sandbox = made()
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft())
        token, submit = sandbox.requests
        assert (token.operation, submit.operation) == ("token", "submit")
        assert (submit.method, submit.path, submit.status, submit.delivered) == ("POST", "/v2/ob/invoices", 200, True)
        assert submit.at == sandbox.clock.now()
        assert submit.headers["content-type"].startswith("application/json")
        assert submit.json["invoice_data"]["invoice_lines"][0]["price"] == Decimal("10.25")
        (invoice,) = sandbox.created.values()
        assert (submit.body, submit.told) == (invoice.body, (invoice.request_id, "NEW"))

    async def test_a_repr_and_a_message_hold_no_credential(self) -> None:
        sandbox = made()
        async with e_invoices(sandbox) as invoices, sandbox.documents_session() as session:
            await invoices.submit(draft())
            await fetch(session)
        shown = repr(sandbox.requests) + "".join(map(str, sandbox.requests)) + repr(sandbox)
        known = sandbox.credentials
        secrets = {known.secret_key, known.store_token, known.client_secret, known.token, "Bearer", "Basic"}
        assert [secret for secret in secrets if secret in shown] == []

    async def test_requests_of_one_operation(self) -> None:
        sandbox = made()
        async with sandbox.documents_session() as session:
            await asyncio.gather(fetch(session, ORDER), fetch(session, OTHER))
        assert {request.ids for request in sandbox.requests_to("document")} == {(ORDER,), (OTHER,)}
        assert sandbox.requests_to("submit") == ()
        with pytest.raises(ValueError, match="submits"):
            sandbox.requests_to("submits")

    @pytest.mark.parametrize(
        ("fault", "status"),
        [
            ("lost", None),
            ("reset:after-head,operation=submit", 200),
            ("gateway504", 504),
            ("truncate:3,operation=submit", 200),
        ],
    )
    async def test_an_answer_that_did_not_come_whole_told_nothing(self, fault: str, status: int | None) -> None:
        sandbox = made(fault)
        async with e_invoices(sandbox) as invoices:
            with pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft())
        (submit,) = sandbox.requests_to("submit")
        assert (submit.status, submit.told, len(sandbox.created)) == (status, None, 1)

    async def test_refused_connections_are_no_requests(self) -> None:
        sandbox = made("outage:answer=refused,length=1")
        async with sandbox.documents_session() as session:
            await fetch(session)
        assert [request.status for request in sandbox.requests] == [200]

    async def test_a_plain_sandbox_logs_as_before(self) -> None:
        """The log of a `Sandbox` is not touched by what a recording one keeps."""
        sandbox = made()
        async with sandbox.documents_session() as session:
            await fetch(session)
        (entry,) = sandbox.log
        assert (entry.operation, entry.status, entry.verified, sandbox.calls("document")) == ("document", 200, True, 1)


class TestFaults:
    async def test_a_text_is_the_fault_it_names(self) -> None:
        sandbox = made("outage:length=20", Outage(start=60, length=1))
        assert [*sandbox.injected] == [Outage(length=20), Outage(start=60, length=1)]
        sandbox.inject()
        assert [*sandbox.injected] == []

    async def test_a_text_that_is_none_is_refused(self) -> None:
        with pytest.raises(ValueError, match="did you mean outage"):
            made("outge")

    async def test_67_seconds_of_backoff_take_no_time(self) -> None:
        sandbox = made("outage:length=67")
        async with sandbox.documents_session(retry=RetryPolicy(attempts=10, first=1.0)) as session:
            body = await fetch(session)
        assert (body[:5], [request.status for request in sandbox.requests]) == (b"%PDF-", [503] * 9 + [200])
        assert isinstance(sandbox.clock, FakeClock)
        assert 67 <= sandbox.clock.elapsed < 80

    async def test_a_service_that_hangs_is_left_to_the_test(self) -> None:
        sandbox = made("hang:first=1")
        clock = sandbox.clock
        assert isinstance(clock, FakeClock)
        async with sandbox.documents_session() as session:
            asked = asyncio.create_task(fetch(session))
            while sandbox.in_flight == 0:  # noqa: ASYNC110 - a count of the sandbox's
                await asyncio.sleep(0)
            clock.advance(120)
            assert (await asked)[:5] == b"%PDF-"


class TestSigned:
    async def test_what_the_services_accept_holds(self, tmp_path: Path) -> None:
        """Documents, tokens, submissions, polls, exports and download links."""
        sandbox = made()
        async with sandbox.documents_session() as session, e_invoices(sandbox) as invoices:
            await fetch(session)
            done = await invoices.wait((await invoices.submit(draft())).request_id)
            assert done.data is not None
            await invoices.export(done.data.id, tmp_path)
        assert {request.operation.value for request in sandbox.requests} >= {"document", "token", "submit", "file"}
        sandbox.assert_signed()

    async def test_a_wrong_key_fails_and_says_so(self) -> None:
        sandbox = made()
        auth = HmacAuth(**{**sandbox.credentials.partner(), "secret_key": "another"})
        async with Session("http://sandbox.test/api/v1", auth=auth, transport=sandbox, clock=sandbox.clock) as session:
            with pytest.raises(AuthenticationError):
                await fetch(session)
        with pytest.raises(AssertionError, match=f"document {ORDER}: .*401 .x-signature does not sign this request"):
            sandbox.assert_signed()

    async def test_another_clock_than_the_sandbox_s_is_named(self) -> None:
        sandbox = made()
        other = FakeClock(start=0)
        auth = sandbox.documents_auth
        async with Session("http://sandbox.test/api/v1", auth=auth, transport=sandbox, clock=other) as session:
            with pytest.raises(AuthenticationError):
                await fetch(session)
        with pytest.raises(AssertionError, match="x-timestamp is more than 300 s from now"):
            sandbox.assert_signed()

    async def test_an_address_that_is_not_there_fails(self) -> None:
        sandbox = made()
        async with Session("http://sandbox.test", auth=sandbox.documents_auth, transport=sandbox) as session:
            with pytest.raises(AuthenticationError):
                await fetch(session)
        with pytest.raises(AssertionError, match="were not signed"):
            sandbox.assert_signed()

    async def test_a_token_that_was_renewed_is_no_fault(self) -> None:
        sandbox = made()
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft("A-1", "B-1"))
            sandbox.revoke_tokens()
            await invoices.submit(draft("A-2", "B-2"))
        assert 401 in {request.status for request in sandbox.requests_to("submit")}
        sandbox.assert_signed()

    async def test_a_credential_on_a_download_link_fails(self) -> None:
        sandbox = made()
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft())
        (invoice,) = sandbox.created.values()
        leaked = RecordedRequest(
            at=0, operation=Operation.FILE, method="GET", path="/files/x.pdf",
            ids=(invoice.invoice_id, "pdf"), headers={"authorization": "Bearer x"}, status=200,
        )  # fmt: skip
        sandbox._requests.append(leaked)
        with pytest.raises(AssertionError, match="a download link got authorization"):
            sandbox.assert_signed()

    async def test_nothing_asked_for_is_a_failure(self) -> None:
        with pytest.raises(AssertionError, match="no request reached the sandbox"):
            made().assert_signed()

    async def test_a_long_list_is_cut(self) -> None:
        sandbox = made()
        auth = HmacAuth(**{**sandbox.credentials.partner(), "secret_key": "another"})
        async with Session("http://sandbox.test/api/v1", auth=auth, transport=sandbox, clock=sandbox.clock) as session:
            for order in demo_orders(25):
                with pytest.raises(AuthenticationError):
                    await fetch(session, order)
        with pytest.raises(AssertionError) as caught:
            sandbox.assert_signed()
        assert len(str(caught.value).splitlines()) == 22
        assert re.search(r"\n  and \d+ more$", str(caught.value))


class TestDuplicates:
    async def test_different_drafts_are_none(self) -> None:
        sandbox = made("lost:share=0.3", faults=Faults(failed_share=0.3))
        async with e_invoices(sandbox) as invoices:
            async for _ in invoices.submit_many([draft(f"A-{number}", f"B-{number}") for number in range(30)]):
                pass
        assert len(sandbox.created) == 30
        sandbox.assert_no_duplicates()

    async def test_a_draft_sent_again_is_named_with_its_requests(self) -> None:
        """As code does that sends again after a lost answer."""
        sandbox = made("lost:first=1")
        async with e_invoices(sandbox) as invoices:
            with pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft())
            await invoices.submit(draft())
        first, second = sandbox.created
        with pytest.raises(AssertionError) as caught:
            sandbox.assert_no_duplicates()
        assert f"the draft for B-1 (Tea): 2 e-invoices, requests {first}, {second}" in str(caught.value)

    async def test_the_same_content_is_the_same_draft_however_it_is_written(self) -> None:
        """In another order, with spaces, and its numbers in another form."""
        sandbox, path = made(), "/v2/ob/invoices"
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft())
        body = sandbox.requests_to("submit")[0].body
        again = dict(reversed(json.loads(body).items()))
        async with sandbox.invoices_session() as session:
            for content in (json.dumps(again, indent=1).encode(), body.replace(b'"B-1"', b'"B-2"')):
                headers = {"Content-Type": "application/json", "Accept": "application/json"}
                await session.call(Request(method="POST", path=path, headers=headers, body=content), read)
        with pytest.raises(AssertionError, match=r"^1 drafts.*\n.*B-1.*: 2 e-invoices"):
            sandbox.assert_no_duplicates()

    async def test_true_and_one_are_not_the_same(self) -> None:
        first, second = (
            Created(request_id="r", invoice_id="i", at=0.0, body=body, outcome=RequestStatus.SUCCESS)
            for body in (b"[true]", b"[1]")
        )
        assert content_of(first) != content_of(second)

    async def test_a_refused_submission_is_none(self) -> None:
        sandbox = made("random503:1,operation=submit,first=2")
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft())
        assert len(sandbox.requests_to("submit")) == 3
        sandbox.assert_no_duplicates()

    async def test_a_key_says_what_a_draft_is(self) -> None:
        """Two of the same buyer are duplicates only for who says that buyers are unique."""
        sandbox = made()
        other = InvoiceLine(name="Sugar", unit="kg", price=Decimal(5), quantity=Decimal(1))
        async with e_invoices(sandbox) as invoices:
            await invoices.submit(draft())
            await invoices.submit(
                InvoiceDraft(key="A-2", invoice_template_id=TEMPLATE, lines=[other], consumer=Consumer(code="B-1"))
            )
        sandbox.assert_no_duplicates()
        with pytest.raises(AssertionError, match="the draft for B-1"):
            sandbox.assert_no_duplicates(key=lambda invoice: invoice.content["invoice_data"]["consumer"]["code"])

    async def test_without_an_e_invoice_there_is_none(self) -> None:
        made().assert_no_duplicates()


class TestSettled:
    async def test_both_ends_are_ends(self) -> None:
        sandbox = made(faults=Faults(failed_share=0.5))
        async with e_invoices(sandbox) as invoices:
            ids = [(await invoices.submit(draft(f"A-{n}", f"B-{n}"))).request_id for n in range(12)]
            found = {done.status async for done in invoices.wait_many(ids)}
        assert found == {"SUCCESS", "FAILED"}
        sandbox.assert_all_settled()

    async def test_what_ended_once_has_ended(self) -> None:
        """Whatever a service says of it later."""
        sandbox = made()
        async with e_invoices(sandbox) as invoices:
            request = await invoices.wait((await invoices.submit(draft())).request_id)
            sandbox.inject("neverdone")
            assert (await invoices.status(request.request_id)).status == "NEW"
        sandbox.assert_all_settled()

    async def test_what_nobody_waited_for_is_named(self) -> None:
        sandbox = made(faults=Faults(polls_until_done=(2, 2)))
        async with e_invoices(sandbox) as invoices:
            request = await invoices.submit(draft())
            await invoices.status(request.request_id)
            with pytest.raises(AssertionError) as caught:
                sandbox.assert_all_settled()
            said = "was last told to be NEW: nobody waited for its end"
            assert str(caught.value).endswith(f"the draft for B-1 (Tea): request {request.request_id} {said}")
            await invoices.wait(request.request_id)
        sandbox.assert_all_settled()

    async def test_a_doubt_is_one_until_it_was_looked_up(self) -> None:
        sandbox = made("lost:first=1")
        async with e_invoices(sandbox) as invoices:
            with pytest.raises(SubmissionInDoubtError):
                await invoices.submit(draft())
            (found,) = sandbox.created
            with pytest.raises(AssertionError, match=f"request {found} was made, but no answer named it.*in doubt"):
                sandbox.assert_all_settled()
            await invoices.wait(found)
        sandbox.assert_all_settled()

    async def test_an_end_that_nobody_heard_of_is_none(self) -> None:
        """The poll's answer was SUCCESS, and was lost on its way."""
        sandbox = made(faults=Faults(polls_until_done=(1, 1)))
        async with e_invoices(sandbox) as invoices:
            request = await invoices.submit(draft())
            sandbox.inject("reset:after-head,operation=status")
            with pytest.raises(Exception, match="reset"):
                await invoices.status(request.request_id)
            with pytest.raises(AssertionError, match="last told to be NEW"):
                sandbox.assert_all_settled()

    async def test_no_e_invoice_at_all_is_a_failure(self) -> None:
        with pytest.raises(AssertionError, match="no e-invoice was made"):
            made().assert_all_settled()

    async def test_an_answer_that_is_no_json_tells_nothing(self) -> None:
        sandbox = made()
        async with e_invoices(sandbox) as invoices:
            request = await invoices.submit(draft())
            sandbox.script("status", [Answer(body=b"<html>"), Answer(body=b"[]"), Answer(body=b"{}")])
            done = await invoices.wait(request.request_id, poller=Poller(first=1))
        assert [each.told for each in sandbox.requests_to("status")][:3] == [None, None, None]
        assert done.status == "SUCCESS"
        sandbox.assert_all_settled()


class TestOnAPort:
    async def test_a_thread_serves_while_the_block_runs(self) -> None:
        sandbox = RecordingSandbox()
        with sandbox.serve_in_thread() as url:
            async with Session(url, auth=sandbox.documents_auth) as session:
                assert (await fetch(session))[:5] == b"%PDF-"
        sandbox.assert_signed()
        assert sandbox.requests[0].delivered
        with pytest.raises(OSError, match=r"refused|Connect"):
            await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/")[0]))

    async def test_time_is_turned_for_both_sides(self) -> None:
        sandbox = made("outage:length=67")
        with sandbox.serve_in_thread() as url:
            session = Session(
                url, auth=sandbox.documents_auth, clock=sandbox.clock, retry=RetryPolicy(attempts=10, first=1.0)
            )
            async with session:
                assert (await fetch(session))[:5] == b"%PDF-"
        assert len(sandbox.requests) == 10

    async def test_time_stands_still_while_the_service_works(self) -> None:
        """A sleep elsewhere does not run the requests that are under way into their time-outs."""

        class Busy:
            async def play(self, stage: Stage) -> Reply:
                time.sleep(0.05)  # noqa: ASYNC251 - work, as the drawing of a page is
                return stage.genuine()

        sandbox = RecordingSandbox(clock=FakeClock())
        sandbox.script("document", [Busy()])
        with sandbox.serve_in_thread() as url:
            session = Session(url, auth=sandbox.documents_auth, clock=sandbox.clock, retry=RetryPolicy(attempts=1))
            async with session:
                sleeping = asyncio.create_task(sandbox.clock.sleep(3600))
                assert (await fetch(session))[:5] == b"%PDF-"
                sleeping.cancel()

    async def test_whatever_ends_the_service_before_it_is_there_is_raised(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Sandbox, "serve", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError), RecordingSandbox().serve_in_thread():
            pass

    async def test_an_error_within_the_block_ends_the_thread(self) -> None:
        sandbox = RecordingSandbox()
        with pytest.raises(KeyError), sandbox.serve_in_thread():
            raise KeyError
        with sandbox.serve_in_thread(base_path="") as url:
            assert url.count("/") == 2

    async def test_a_port_that_cannot_be_had_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.socket.bind", lambda *_: (_ for _ in ()).throw(OSError("no port")))
        with pytest.raises(OSError, match="no port"), RecordingSandbox().serve_in_thread():
            pass

    async def test_the_environment_is_what_settings_read(self) -> None:
        sandbox = RecordingSandbox()
        with sandbox.serve_in_thread() as url:
            settings = Settings.load(environ=sandbox.environment(url))
            async with settings.documents() as session:
                assert (await fetch(session))[:5] == b"%PDF-"
            async with settings.invoices() as session:
                await AsyncInvoices(session).submit(draft())
        sandbox.assert_signed()


async def test_without_fpdf2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not as a broken answer of the service."""
    monkeypatch.setitem(sys.modules, "fpdf", None)
    with pytest.raises(ImportError, match=r"install invoicing-async\[sandbox\]"):
        RecordingSandbox()


async def test_it_is_a_sandbox_with_the_credentials_that_it_is_given() -> None:
    sandbox = RecordingSandbox()
    assert isinstance(sandbox, Sandbox)
    assert sandbox.credentials == SandboxCredentials()
    assert sandbox.invoices_auth.client_id == sandbox.credentials.client_id
