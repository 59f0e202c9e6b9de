"""Many items in doubt: exported, answered, judged as a whole, settled; and what tells one invoice from another."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from services import Service, draft, drafts, listed, number_of, opened

from invoicing_async._durable.doubts import seconds_in_doubt
from invoicing_async._durable.records import Change, Item
from invoicing_async._durable.sheet import _entry
from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._values.cells import BOM
from invoicing_async.auth import StaticToken
from invoicing_async.errors import ResolutionTooEarlyError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import Consumer, InvoiceLine
from invoicing_async.repair import (
    COLUMNS,
    Answer,
    AnswersError,
    Contents,
    UnverifiedError,
    contents,
    entries,
    export_again,
    note_unreadable,
    read_answers,
    retry_rejected,
    settle,
    sheet_head,
    sheet_line,
    too_early_for,
    write_sheet,
)
from invoicing_async.runs import ExportTo, InvoiceRun, State
from invoicing_async.sandbox import Faults, Sandbox, SandboxSettings
from invoicing_async.session import Session

ID = "00000000-0000-4000-8000-00000000000"


# --- what an invoice is looked up by ------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.decimals(0, 10**12, places=4),
            st.decimals(0, 10**6, places=3),
            st.none() | st.decimals(0, 10**6, places=2),
            st.booleans(),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_the_amount_is_the_exact_sum_of_the_lines(lines: list[tuple[Decimal, Decimal, Decimal | None, bool]]) -> None:
    """Each line's amount, or price * quantity - discount, with all its digits."""
    made, total = [], Decimal(0)
    for price, quantity, discount, given_ in lines:
        amount = Decimal(f"{price * quantity - (discount or 0):f}")
        total += amount
        more: dict[str, Any] = {"amount": amount} if given_ else {}
        made.append(InvoiceLine(name="n", unit="u", price=price, quantity=quantity, discount_amount=discount, **more))
    found = contents(dump_draft(draft("K", lines=made)))
    assert (found.amount, found.lines) == (total, len(lines))


@pytest.mark.parametrize("payload", [None, "", "[]", "3", "not JSON", '{"lines": 5}', '{"lines": [null]}', "{" * 9])
def test_what_is_no_draft_has_no_contents(payload: str | None) -> None:
    """Of an invalid draft there may be no JSON at all."""
    found = contents(payload)
    assert (found.buyer, found.tax_code, found.amount) == (None, None, None)


def test_another_invoice_is_told_by_what_both_of_them_say() -> None:
    """Tax code and buyer's code, however they are spaced, and the sum of the lines beyond a rounding."""
    mine = Contents(buyer="A", tax_code="0101243150-001", customer="C1", amount=Decimal("100.40"), lines=1)
    alike = (
        mine,
        Contents(),
        Contents(buyer="B"),
        Contents(tax_code="0101243150 001"),
        Contents(customer="c1"),
        Contents(amount=Decimal(100), lines=1),
        Contents(amount=Decimal("98.40"), lines=2),
    )
    assert [[*mine.differs(other)] for other in alike] == [[]] * len(alike)
    other = Contents(tax_code="0101243151-001", customer="C2", amount=Decimal(102), lines=1)
    assert [*mine.differs(other)] == [
        "tax code 0101243151-001, not 0101243150-001",
        "buyer code C2, not C1",
        "amount 102, not 100.40",
    ]


# --- answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("head", ["", BOM, "sep=", BOM + "sep="])
def test_answers_are_read_as_spreadsheets_write_them(delimiter: str, end: str, head: str) -> None:
    """Any order of columns, names in any case, blank rows, rows without an answer, apostrophes before a formula."""
    head = head and head.replace("sep=", f"sep={delimiter}{end}")
    rows = (
        ("Request_ID", "note", " KEY ", "Answer"),
        (f"{ID}1", "x", "K1", "created"),
        ("", "", "", ""),
        ("", "y", "'-k2", "Not-Created"),
        ("", "z", "K3", ""),
        (f" {ID}A ", "", "Đơn-4", " CREATED "),
    )
    text = head + "".join(delimiter.join(row) + end for row in rows)
    first = 2 if "sep=" in head else 1
    assert read_answers(text.encode()) == (
        Answer(key="K1", created=True, request_id=f"{ID}1", line=first + 1),
        Answer(key="-k2", created=False, line=first + 3),
        Answer(key="Đơn-4", created=True, request_id=f"{ID}a", line=first + 5),
    )


def test_every_fault_of_a_file_is_told_with_its_line_and_column() -> None:
    """All at once, in the order of lines."""
    text = (
        "key,answer,request_id,item\n"
        f"K1,perhaps,,\n"
        f"K2,created,,\n"
        f"K3,not-created,{ID}3,\n"
        f"K4,created,7,\n"
        f",created,{ID}5,\n"
        f"K6,,{ID}6,\n"
        f"K7,created,{ID}7,x\n"
        f"K8,created,{ID}8,\n"
        f"K9,created,{ID}8,\n"
        f"K8,not-created,,\n"
    )
    with pytest.raises(AnswersError) as caught:
        read_answers(text.encode())
    assert [str(fault) for fault in caught.value.faults] == [
        "line 2, column answer: must be created or not-created, got 'perhaps'",
        "line 3, column request_id: must be given with created",
        "line 4, column request_id: must be empty with not-created",
        "line 5, column request_id: must be a UUID (8-4-4-4-12 hex digits), got '7'",
        "line 6, column key: must not be empty",
        "line 7, column answer: must be created or not-created, got ''",
        "line 8, column item: must be the item's number as it was exported, got 'x'",
        f"line 10, column request_id: {ID}8 stands in line 9 too: one request is one invoice",
        "line 11, column key: 'K8' stands in line 9 too",
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1: the file is empty"),
        (b"\n\n", "line 1: the file is empty"),
        (b"key,answer\n", "line 1, column request_id: must be there"),
        (b"key,answer,request_id,key\n", "line 1, column key: must be there once"),
        (b"key,answer,request_id\nK\xff,created,\n", "line 2: not UTF-8 text"),
        (b'key,answer,request_id\n"K,created,\n', "line 2: not CSV"),
        ("key,answer,request_id\n".encode("utf-16"), "line 1: not UTF-8 text"),
    ],
)
def test_a_file_that_is_none_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(AnswersError) as caught:
        read_answers(data)
    assert str(caught.value.faults[0]).startswith(said)


@given(st.binary(max_size=80))
def test_any_bytes_are_answers_or_a_fault(data: bytes) -> None:
    """Nothing but `AnswersError` comes out of a file, whatever is in it."""
    for head in (b"", b"key,answer,request_id\n"):
        with suppress(AnswersError):
            assert all(answer.key for answer in read_answers(head + data))


# --- settling -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def doubtful(folder: Path, service: Service, count: int = 4) -> AsyncIterator[InvoiceRun]:
    """A run in which every other draft of `count`, from the second, is in doubt, long enough ago to say so."""
    clock = FakeClock()
    service.lost |= {f"K{number}" for number in range(1, count, 2)}
    async with opened(service) as invoices, InvoiceRun.open(folder / "run.db", clock=clock) as run:
        await run.add(drafts(count))
        await listed(run.run(invoices))
        clock.advance(1000)
        yield run


async def states(run: InvoiceRun) -> dict[str, str]:
    return {item.key: item.state for item in await run.ledger.rows()}


async def sheet(run: InvoiceRun, *wanted: State) -> str:
    return sheet_head() + "".join([sheet_line(entry) async for entry in entries(run.ledger, wanted)])


@pytest.mark.asyncio
async def test_a_sheet_goes_round_through_a_spreadsheet_and_settles_the_run(tmp_path: Path) -> None:
    """Exported, filled in, parted by semicolons with a mark, read back: each item stands as its row says."""
    service = Service()
    async with doubtful(tmp_path, service, 6) as run, opened(service) as invoices:
        rows = list(csv.DictReader(io.StringIO((await sheet(run, State.IN_DOUBT)).removeprefix(BOM), newline="")))
        assert [row["key"] for row in rows] == ["K1", "K3", "K5"]
        assert set(rows[0]) == set(COLUMNS)
        assert (rows[0]["buyer"], rows[0]["tax_code"], rows[0]["amount"]) == ("Buyer K1", "0101243150", "20.50")
        assert (rows[0]["answer"], rows[0]["request_id"]) == ("", "")
        assert rows[0]["sent_at"][10] == "T"
        assert rows[0]["sent_at"][-6] in "+-"
        assert "no answer came" in rows[0]["said"]
        rows[0] |= {"answer": "created", "request_id": number_of("K1").upper()}
        rows[1] |= {"answer": "not-created"}
        filled = io.StringIO()
        writer = csv.DictWriter(filled, COLUMNS, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
        answers = read_answers((BOM + filled.getvalue()).encode())
        settled = await listed(settle(run, answers, invoices=invoices))
        assert {one.item.key: one.item.state for one in settled} == {"K1": "submitted", "K3": "not_sent"}
        [finding] = [one.finding for one in settled if one.finding]
        assert (finding.json()["amount"], finding.json()["buyer"], finding.faults) == ("20.50", "Buyer K1", ())
        found = await states(run)
        assert (found["K1"], found["K3"], found["K5"]) == ("submitted", "not_sent", "in_doubt")
        again = await listed(settle(run, answers, invoices=invoices))
        assert [one.changed for one in again] == [False, False]
        assert await states(run) == found


@given(
    keys=st.lists(
        st.text(st.sampled_from("=+-@'09Eđ.;,\" "), min_size=1, max_size=6).filter(lambda key: key == key.strip()),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_whatever_a_key_is_it_reads_back_from_its_sheet(keys: list[str]) -> None:
    """Formula characters, quotes, delimiters: the answers name exactly the keys that were exported."""
    text = sheet_head() + "".join(
        sheet_line(_entry(Item(number, key, "in_doubt"))) for number, key in enumerate(keys, 1)
    )
    [head, *rows] = csv.reader(io.StringIO(text.removeprefix(BOM), newline=""))
    filled = io.StringIO()
    csv.writer(filled).writerows([head, *([*row[:-2], "not-created", ""] for row in rows)])
    assert [answer.key for answer in read_answers(filled.getvalue().encode())] == keys


@pytest.mark.asyncio
async def test_nothing_is_changed_unless_every_answer_can_stand(tmp_path: Path) -> None:
    """Unknown keys, other states, another item's id: all told at once, and the good rows are not carried out."""
    service = Service()
    async with doubtful(tmp_path, service) as run:
        before = await states(run)
        answers = [
            Answer(key="K1", created=True, request_id=number_of("K1"), line=2),
            Answer(key="K3", created=True, request_id=number_of("K0").upper(), line=3),
            Answer(key="K9", created=False, line=4),
            Answer(key="K2", created=False, line=5),
        ]
        with pytest.raises(AnswersError) as caught:
            await listed(settle(run, answers))
        assert [str(fault) for fault in caught.value.faults] == [
            f"line 3, column request_id: {number_of('K0').upper()} is the request of 'K0'",
            "line 4, column key: this run has no 'K9'",
            "line 5, column answer: 'K2' is success, not in doubt",
        ]
        assert await states(run) == before


@pytest.mark.asyncio
async def test_the_service_is_asked_before_an_id_stands(tmp_path: Path) -> None:
    """An id it does not know, one of another invoice, and one it does not tell of are refused, all at once."""
    service = Service()
    async with doubtful(tmp_path, service, 8) as run, opened(service) as invoices:
        before = await states(run)
        service.forgotten.add("K7")
        answers = [
            Answer(key="K1", created=True, request_id=f"{ID}0", line=2),
            Answer(key="K3", created=True, request_id=number_of("K5"), line=3),
            Answer(key="K7", created=True, request_id=number_of("K7"), line=4),
        ]
        with pytest.raises(UnverifiedError) as caught:
            await listed(settle(run, answers, invoices=invoices))
        assert [str(fault) for fault in caught.value.faults] == [
            f"line 2, column request_id: the service knows no request {ID}0",
            f"line 3, column request_id: {number_of('K5')} is another invoice than 'K3': buyer code K5, not K3",
            f"line 4, column request_id: the service knows no request {number_of('K7')}",
        ]
        service.refuse = 418
        with pytest.raises(UnverifiedError, match=r"could not be asked for: .*418"):
            await listed(settle(run, answers[2:], invoices=invoices))
        assert await states(run) == before
        await listed(settle(run, answers[2:]))
        assert (await states(run))["K7"] == "submitted"


@pytest.mark.asyncio
async def test_a_request_that_is_not_done_is_taken_as_it_is(tmp_path: Path) -> None:
    """Counterweight: NEW and FAILED have no invoice to compare, and both are what became of the draft."""
    service = Service(status={"K1": "NEW", "K3": "FAILED"})
    async with doubtful(tmp_path, service) as run, opened(service) as invoices:
        answers = [Answer(key=key, created=True, request_id=number_of(key)) for key in ("K1", "K3")]
        settled = await listed(settle(run, answers, invoices=invoices))
        assert [one.finding and one.finding.json()["status"] for one in settled] == ["NEW", "FAILED"]


@pytest.mark.asyncio
async def test_a_key_that_a_spreadsheet_changed_is_known_by_its_number(tmp_path: Path) -> None:
    """Zeros before a number may be gone; another key, even one of the run, is refused."""
    service = Service(lost={"007", "7"})
    clock = FakeClock()
    async with opened(service) as invoices, InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        await run.add([draft("007"), draft("7")])
        await listed(run.submit(invoices))
        clock.advance(1000)
        head = "item,key,answer,request_id\n"
        with pytest.raises(AnswersError, match="item 1 is '007', not '8': a spreadsheet may have changed the key"):
            await listed(settle(run, read_answers(f"{head}1,8,not-created,\n".encode())))
        with pytest.raises(AnswersError, match="stands in line 2 too"):
            await listed(settle(run, read_answers(f"{head}1,007,not-created,\n1,7.0,not-created,\n".encode())))
        await listed(settle(run, read_answers(f"{head}1,7,not-created,\n".encode())))
        assert await states(run) == {"007": "not_sent", "7": "in_doubt"}


@pytest.mark.asyncio
async def test_too_early_for_one_is_too_early_for_all(tmp_path: Path) -> None:
    """Nothing is carried out while one that is said to be not created may still arrive; created can be said at once."""
    service, clock = Service(lost={"K0", "K1", "K2"}), FakeClock()
    async with opened(service) as invoices, InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        for number in range(3):
            await run.add(drafts(number + 1))
            await listed(run.submit(invoices))
            clock.advance(100)
        answers = [Answer(key="K0", created=False), Answer(key="K2", created=False)]
        with pytest.raises(ResolutionTooEarlyError, match="sent of 'K2' may still arrive") as caught:
            await listed(settle(run, answers, clock=clock))
        assert caught.value.remaining == pytest.approx(26)
        assert set((await states(run)).values()) == {"in_doubt"}
        await listed(settle(run, [Answer(key="K1", created=True, request_id=number_of("K1"))], clock=clock))
        clock.advance(26)
        await listed(settle(run, answers, clock=clock))
        assert await states(run) == {"K0": "not_sent", "K1": "submitted", "K2": "not_sent"}


@pytest.mark.parametrize(
    ("late", "now", "left"), [(126.0, 0.0, 126.0), (126.0, 125.5, 0.5), (126.0, 126.0, 0.0), (12.0, 1e6, 0.0)]
)
def test_how_long_it_may_still_arrive(late: float, now: float, left: float) -> None:
    """Counted from its intent; what never had one cannot arrive."""
    assert too_early_for(Item(1, "K", "in_doubt", sent_at=1000.0, updated=1000.0), late, 1000.0 + now) == left
    assert too_early_for(Item(1, "K", "in_doubt"), late, now) == 0.0


SECONDS = st.floats(0.0, 1e6)


@given(
    state=st.sampled_from(State),
    late=SECONDS,
    after=SECONDS,
    since=SECONDS,
    back=st.floats(0.0, 1e6),
)
def test_never_early_and_never_longer_than_it_takes(
    state: State, late: float, after: float, since: float, back: float
) -> None:
    """Recorded `after` seconds, asked `since` then; the clock was set `back` between: all of it in whole."""
    sent, updated = 2e6, 2e6 + after - back
    left = seconds_in_doubt(Item(1, "K", state, sent_at=sent, updated=updated), late, updated + since)
    if state != State.IN_DOUBT:
        assert left == 0.0
        return
    near = 1e-6
    assert 0.0 <= left <= late + near  # of the time that has passed none counts against whoever waits
    assert left + after + since >= late - near  # in true seconds nothing can arrive any more
    assert back or left == pytest.approx(max(0.0, late - after - since), abs=near)


@pytest.mark.asyncio
async def test_one_key_and_a_file_are_refused_alike(tmp_path: Path) -> None:
    """Where the clock was set back between the intent and its end, both count from the end, which came later."""

    class SetBack(FakeClock):
        def now(self) -> float:
            return super().now() - back

    back = 0.0
    service, clock = Service(lost={"K0"}), SetBack()
    async with opened(service) as invoices, InvoiceRun.open(tmp_path / "run.db", clock=clock) as run:
        await run.add(drafts(1))
        intend = run.ledger.transition_many

        async def set_back(changes: Iterable[Change]) -> list[State]:
            nonlocal back
            states = await intend(changes)
            back = 3600.0
            return states

        run.ledger.transition_many = set_back  # type: ignore[method-assign]
        await listed(run.submit(invoices))
        [item] = await run.ledger.rows()
        assert (item.sent_at or 0.0) - item.updated == pytest.approx(3600)
        answers = [Answer(key="K0", created=False)]
        for _ in range(2):
            remaining = await run.remaining("K0")
            assert remaining == pytest.approx(126 - clock.elapsed)
            with pytest.raises(ResolutionTooEarlyError, match="sent of 'K0' may still arrive") as alone:
                await run.resolve("K0", created=False)
            with pytest.raises(ResolutionTooEarlyError, match=str(alone.value)):
                await listed(settle(run, answers, clock=clock))
            clock.advance(100)
        assert await run.remaining("K0") == 0.0
        [settled] = await listed(settle(run, answers, clock=clock))
        assert settled.item.state == "not_sent"


@pytest.mark.asyncio
async def test_a_sheet_says_what_the_service_answered(tmp_path: Path) -> None:
    """The recorded answer of an item in doubt: its words, status, code and the ids that it named; no formula runs."""
    service = Service()
    async with doubtful(tmp_path, service, 2) as run:
        found = [entry async for entry in entries(run.ledger, [State.IN_DOUBT])]
        assert (found[0].http_status, found[0].named_ids) == (None, ())
    result = {"status": 409, "code": "DUP", "request_ids": [f"{ID}1"], "answer": "=1+1\nsaid"}
    item = Item(3, "@k", "in_doubt", error="=it  said", code="DUP", result=json.dumps(result))
    [row] = csv.reader(io.StringIO(sheet_line(_entry(item)), newline=""))
    cells = dict(zip(COLUMNS, row, strict=True))
    assert cells["said"] == "'=it said; =1+1 said"
    assert (cells["http_status"], cells["code"], cells["named_ids"], cells["key"]) == ("409", "DUP", f"{ID}1", "'@k")
    assert _entry(Item(1, "K", "in_doubt", result="[]")).http_status is None
    assert _entry(Item(1, "K", "in_doubt", result="x")).said is None


@pytest.mark.asyncio
async def test_rejected_ones_are_let_go_by_their_code(tmp_path: Path) -> None:
    """All of them, or those refused with one of the codes; nothing else moves."""
    service = Service(rejected={"K0": "A", "K1": "B", "K2": "A"})
    async with opened(service) as invoices, InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await run.add(drafts(4))
        await listed(run.run(invoices))
        assert await retry_rejected(run, ["C"]) == []
        items = await retry_rejected(run, ["A"])
        assert [(item.key, item.state) for item in items] == [("K0", "not_sent"), ("K2", "not_sent")]
        assert await states(run) == {"K0": "not_sent", "K1": "rejected", "K2": "not_sent", "K3": "success"}
        assert [item.key for item in await retry_rejected(run)] == ["K1"]


@pytest.mark.asyncio
async def test_a_sheet_is_a_new_file_or_none(tmp_path: Path) -> None:
    """It is what `entries` has; one that is there may be filled in, and is left as it is."""
    async with doubtful(tmp_path, Service()) as run:
        out = tmp_path / "new" / "sheet.csv"
        assert await write_sheet(run.ledger, out, [State.IN_DOUBT]) == 2
        assert out.read_bytes().decode() == await sheet(run, State.IN_DOUBT)
        with pytest.raises(FileExistsError, match=r"sheet\.csv"):
            await write_sheet(run.ledger, out, [State.SUCCESS])
        assert out.read_bytes().decode() == await sheet(run, State.IN_DOUBT)
    assert sheet_head(mark=False) == sheet_head().removeprefix(BOM)


@pytest.mark.asyncio
async def test_drafts_that_cannot_be_read_are_invalid_until_they_are_corrected(tmp_path: Path) -> None:
    """One without a key of its own is not taken, nor one whose key a draft has that can be sent."""
    async with InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await run.add(drafts(1))
        errors = {"K0": "no", "K1": "price: is no number", "": "no key", "\n": "no key", "k" * 1000: "long"}
        intake, kept = await note_unreadable(run, errors)
        assert (intake.given, intake.added, set(kept)) == (1, 1, {"K1"})
        assert await states(run) == {"K0": "planned", "K1": "invalid"}
        assert (await note_unreadable(run, {"K1": "name: is missing"}))[1] == {"K1"}
        await run.add(drafts(2))
        assert await states(run) == {"K0": "planned", "K1": "planned"}


@asynccontextmanager
async def sandboxed() -> AsyncIterator[AsyncInvoices]:
    """Invoices of a service that has their files."""
    service = Sandbox(SandboxSettings(), clock=FakeClock(), faults=Faults(polls_until_done=(0, 0)))
    auth = StaticToken(service.credentials.token)
    async with Session("https://api.test/api", auth=auth, transport=service, clock=FakeClock()) as session:
        yield AsyncInvoices(session)


@pytest.mark.asyncio
async def test_a_file_that_is_gone_is_exported_again_to_its_place(tmp_path: Path) -> None:
    """Where its folder is gone too, it goes where the run goes now."""
    to = ExportTo(folder=tmp_path / "now", format="pdf")
    async with sandboxed() as invoices, InvoiceRun.open(tmp_path / "run.db", clock=FakeClock()) as run:
        await run.add(drafts(2))
        await listed(run.run(invoices))
        assert not await export_again(run, invoices, "K0", to)
        assert not await export_again(run, invoices, "absent", to)
        paths = {item.key: Path(item.path or "") for item in await listed(run.export(invoices, tmp_path / "then"))}
        paths["K0"].unlink()
        assert await export_again(run, invoices, "K0", to)
        assert paths["K0"].is_file()
        shutil.rmtree(tmp_path / "then")
        assert await export_again(run, invoices, "K1", to)
        again = await run.ledger.get("K1")
        assert again is not None
        assert Path(again.path or "").parent == to.folder


def test_a_long_list_of_faults_is_short_in_one_line() -> None:
    """All of them are in `faults`."""
    text = "key,answer,request_id\n" + "K,x,\n" * 12
    with pytest.raises(AnswersError, match=r"; and 2 more$") as caught:
        read_answers(text.encode())
    assert len(caught.value.faults) == 12


def test_a_buyer_without_a_name_is_a_person() -> None:
    """The company's name goes before the person's."""
    person = draft("K", consumer=Consumer(buyer_name="Nguyen Van An"))
    assert contents(dump_draft(person)).buyer == "Nguyen Van An"
