"""A batch begins with a few items and stops when the first fail alike; its end never lies about what was sent."""

from __future__ import annotations

import asyncio
import pickle
import sys
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from fakes import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async import (
    AsyncInvoices,
    BatchStoppedError,
    InvoiceDraft,
    InvoiceLine,
    InvoicingError,
    Limits,
    OrderDocuments,
    RetryPolicy,
    Session,
    StaticToken,
)
from invoicing_async._core.batch import Careful, map_concurrently, stopped_by
from invoicing_async._core.causes import of_document, of_submission
from invoicing_async._core.ramp import Cause, Ramp, Streak, Verdict, limit
from invoicing_async.errors import (
    ApiError,
    DraftError,
    PermissionDeniedError,
    ProtocolError,
    SubmissionInDoubtError,
    TransportError,
)
from invoicing_async.models import Duplicate, InDoubt, NotSent, Submitted

STOP = 5


def cause(key: str, *, of_item: bool = False) -> Cause:
    return Cause(key, LookupError(key), of_item=of_item)


@given(top=st.integers(1, 300), answers=st.integers(0, 400))
def test_a_ramp_has_one_place_more_with_each_answer_up_to_its_top(top: int, answers: int) -> None:
    ramp = Ramp(top)
    grown = [ramp.grow() for _ in range(answers)]
    assert ramp.places == min(top, 1 + answers) == 1 + sum(grown)


def test_a_ramp_doubles_with_each_round() -> None:
    ramp, rounds = Ramp(32), []
    while ramp.places < ramp.top:
        rounds.append(ramp.places)
        for _ in range(ramp.places):
            ramp.grow()
    assert rounds == [1, 2, 4, 8, 16]


@given(first=st.integers(1, 50), width=st.integers(1, 300), well=st.booleans(), of_item=st.booleans())
def test_a_limit_is_never_below_the_first_and_wider_after_a_success(
    *,
    first: int,
    width: int,
    well: bool,
    of_item: bool,
) -> None:
    found = limit(first, width, well=well, of_item=of_item)
    assert found == first if not well else found > first
    if well and not of_item:
        assert found > width, "one moment's trouble of all that are under way ends no batch"


@given(first=st.integers(1, 8), met=st.lists(st.sampled_from(["ok", "a", "b"]), max_size=80), width=st.integers(1, 6))
def test_a_streak_ends_when_one_cause_reaches_its_limit_and_at_no_other_time(
    first: int, met: list[str], width: int
) -> None:
    streak = Streak(first, width)
    for number, what in enumerate(met):
        if what == "ok":
            streak.succeed()
            continue
        before = met[: number + 1]
        since = before[len(before) - before[::-1].index("ok") :] if "ok" in before else before
        reached = since.count(what) >= limit(first, width, well="ok" in before, of_item=False)
        assert (streak.meet(cause(what)) is not None) is reached


def test_without_a_number_nothing_ends_a_batch() -> None:
    streak = Streak(None, 4)
    assert [streak.meet(cause("a")) for _ in range(500)] == [None] * 500


def test_a_handful_of_bad_drafts_side_by_side_ends_no_batch_that_went_well() -> None:
    streak = Streak(STOP, 4)
    streak.succeed()
    assert [streak.meet(cause("400", of_item=True)) for _ in range(10 * STOP - 1)] == [None] * (10 * STOP - 1)
    assert streak.meet(cause("400", of_item=True)) is not None


def doubt(error: InvoicingError, key: str) -> SubmissionInDoubtError:
    found = SubmissionInDoubtError(f"invoice {key!r}: {error}", key=key, status=getattr(error, "status", None))
    found.__cause__ = error
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ApiError("bad A", status=400), ApiError("bad B", status=400)),
        (ApiError("", status=404, bare=True), ApiError("", status=404, bare=True)),
        (PermissionDeniedError("", status=403), PermissionDeniedError("", status=403)),
        (TransportError("reset", sent="no"), TransportError("refused", sent="no")),
        (doubt(ProtocolError("page", status=200), "A"), doubt(ProtocolError("page", status=200), "B")),
    ],
)
def test_the_same_cause_whatever_the_items_own_words(one: Exception, other: Exception) -> None:
    assert of_submission(one) == of_submission(other)


def test_another_status_code_type_or_meaning_is_another_cause() -> None:
    errors: list[Exception] = [
        ApiError("", status=400),
        ApiError("", status=400, code="A"),
        ApiError("", status=422),
        ApiError("", status=404, bare=True),
        ApiError("", status=404),
        TransportError("", sent="no"),
        doubt(TransportError(""), "A"),
        doubt(ApiError("", status=500), "A"),
    ]
    assert len({of_submission(error) for error in errors}) == len(errors)


def test_faults_of_a_draft_and_ids_that_are_none_say_nothing_of_the_service() -> None:
    assert of_submission(DraftError()) is Verdict.SILENT
    assert of_document(ValueError("no id")) is Verdict.SILENT
    assert of_document(OSError("name too long")) is Verdict.SILENT


@pytest.mark.parametrize(("status", "code", "counts"), [(404, "ORDER_404", False), (404, None, True), (403, "A", True)])
def test_a_coded_refusal_is_about_its_order(status: int, code: str | None, *, counts: bool) -> None:
    assert isinstance(of_document(ApiError("", status=status, code=code)), Cause) is counts


def test_the_error_names_its_cause_and_survives_a_pickle() -> None:
    error = stopped_by(PermissionDeniedError("no", status=403), 5)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.count, type(copy.cause), str(copy)) == (5, PermissionDeniedError, str(error))
    assert "403" in str(error)


async def in_a_step(item: int, sleep: Any) -> tuple[str, int]:
    await asyncio.sleep(0.001)
    return "done", item


def run(items: Any, work: Any = in_a_step, **named: Any) -> AsyncGenerator[tuple[str, int]]:
    named.setdefault("concurrency", 4)
    named.setdefault("sleep", FakeClock().sleep)
    return map_concurrently(items, work, on_not_started=lambda item, error: ("left", item), **named)


async def all_of(outcomes: AsyncGenerator[Any]) -> tuple[list[Any], BaseException | None]:
    found: list[Any] = []
    try:
        async with aclosing(outcomes):
            async for outcome in outcomes:
                found.append(outcome)  # noqa: PERF401 - what came before an error is kept
    except BaseException as error:  # noqa: BLE001 - a CancelledError is looked at too
        return found, error
    return found, None


def tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def timed(closed: list[str]) -> AsyncIterator[int]:
    try:
        async with asyncio.timeout(0.05):
            for number in range(10_000):
                await asyncio.sleep(0.002 if number else 0)
                yield number
    finally:
        closed.append("closed")


async def grouped(closed: list[str]) -> AsyncIterator[int]:
    async def broken() -> None:
        await asyncio.sleep(0.03)
        raise LookupError("the producer broke")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(broken())
            for number in range(10_000):
                await asyncio.sleep(0.002 if number else 0)
                yield number
    finally:
        closed.append("closed")


async def cancelled(closed: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(20):
            yield number
        raise asyncio.CancelledError
    finally:
        closed.append("closed")


SOURCES = [(timed, TimeoutError), (grouped, ExceptionGroup), (cancelled, RuntimeError)]


@pytest.mark.asyncio
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(("source", "kind"), SOURCES)
async def test_what_ends_a_source_is_raised_after_what_it_gave(
    source: Callable[[list[str]], AsyncIterator[int]], kind: type[BaseException], *, slow: bool
) -> None:
    """Also where it ends while it stands at its `yield`, because nobody asks for more."""

    async def work(item: int, sleep: Any) -> tuple[str, int]:
        await asyncio.sleep(0.1 if slow else 0.001)
        return "done", item

    closed: list[str] = []
    found, error = await all_of(run(source(closed), work))
    assert type(error) is kind
    assert found
    assert sorted(found) == [("done", number) for number in range(len(found))]
    assert closed == ["closed"]
    assert tasks() == set()


@pytest.mark.asyncio
@pytest.mark.parametrize("source", [timed, grouped])
async def test_leaving_closes_the_source_where_it_was_read(source: Callable[[list[str]], AsyncIterator[int]]) -> None:
    closed: list[str] = []
    async with aclosing(run(source(closed))) as outcomes:
        async for _ in outcomes:
            break
    assert closed == ["closed"]
    assert tasks() == set()


@pytest.mark.asyncio
async def test_a_source_is_read_and_closed_by_one_task() -> None:
    seen: set[asyncio.Task[Any] | None] = set()

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(50):
                seen.add(asyncio.current_task())
                await asyncio.sleep(0)
                yield number
        finally:
            seen.add(asyncio.current_task())

    found, error = await all_of(run(source()))
    assert (len(found), error, len(seen)) == (50, None, 1)


@pytest.mark.asyncio
async def test_no_more_than_the_concurrency_is_read_ahead() -> None:
    read = 0

    async def source() -> AsyncIterator[int]:
        nonlocal read
        for number in range(1000):
            read += 1
            yield number

    async with aclosing(run(source())) as outcomes:
        for taken in range(1, 30):
            await anext(outcomes)
            await asyncio.sleep(0.005)
            assert read <= taken + 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
@pytest.mark.parametrize("is_async", [True, False])
def test_eager_tasks_change_nothing(*, is_async: bool) -> None:
    async def instantly(item: int, sleep: Any) -> tuple[str, int]:
        return "done", item

    async def source() -> AsyncIterator[int]:
        for number in range(2000):
            yield number

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - 3.11 has none
        found, error = await all_of(run(source() if is_async else range(2000), instantly, concurrency=200))
        assert (len(found), error) == (2000, None)

    asyncio.run(main())


def judge(outcome: tuple[str, int]) -> Cause | Verdict:
    return Verdict.WELL if outcome[0] == "done" else cause(outcome[0])


@pytest.mark.asyncio
async def test_a_careful_batch_stops_after_the_first_few_and_gives_the_rest_as_left() -> None:
    async def work(item: int, sleep: Any) -> tuple[str, int]:
        return "refused", item

    found, error = await all_of(run(range(100), work, concurrency=32, careful=Careful(judge, STOP)))
    assert Counter(kind for kind, _ in found) == {"refused": STOP, "left": 100 - STOP}
    assert isinstance(error, BatchStoppedError)
    assert error.count == STOP


@pytest.mark.asyncio
async def test_a_careful_batch_reaches_its_concurrency() -> None:
    inside = most = 0

    async def work(item: int, sleep: Any) -> tuple[str, int]:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        assert inside <= 1 + item
        await asyncio.sleep(0.001)
        inside -= 1
        return "done", item

    found, error = await all_of(run(range(300), work, concurrency=16, careful=Careful(judge, STOP)))
    assert (len(found), error, most) == (300, None, 16)


@pytest.mark.asyncio
async def test_an_outage_in_the_middle_ends_it_before_all_are_lost() -> None:
    async def work(item: int, sleep: Any) -> tuple[str, int]:
        await asyncio.sleep(0)
        return "done" if item < 100 else "lost", item

    found, error = await all_of(run(range(1000), work, cancel=False, careful=Careful(judge, STOP)))
    assert isinstance(error, BatchStoppedError)
    assert Counter(kind for kind, _ in found)["lost"] <= STOP + 2 * 4
    assert len(found) == 1000


def draft(key: str) -> InvoiceDraft:
    line = InvoiceLine(name="Tea", unit="box", price=1, quantity=1)
    return InvoiceDraft(key=key, invoice_template_id="d0e11047-acaf-468f-a325-3d2f5964f5ff", lines=(line,))


class Answers:
    """A peer on a socket: the answer to each request is the next of a list, the last one for ever."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0"
                )
                await reader.readexactly(int(length.split(b":")[1]))
                self.asked += 1
                writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def answer(status: int, body: bytes = b"", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


RID = "11111111-2222-4333-8444-000000000001"
TAKEN = answer(200, b'{"request_id": "%s", "status": "NEW"}' % RID.encode())


@asynccontextmanager
async def session(peer: Answers, **limits: Any) -> AsyncIterator[Session]:
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    try:
        retry = RetryPolicy(attempts=1)
        async with Session(url, auth=StaticToken("t"), retry=retry, limits=Limits(**limits)) as opened:
            yield opened
    finally:
        server.close()


BAD = {
    "a sign-in page": answer(200, b"<html>sign in</html>", "text/html"),
    "a redirect": answer(302),
    "a 500": answer(500, b'{"message": "oops"}'),
    "a bare 403": answer(403, b"Forbidden", "text/plain"),
    "a wrong path": answer(404, b"<html>nginx</html>", "text/html"),
    "a refusal of all": answer(400, b'{"message": "no"}'),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BAD)
async def test_a_thousand_drafts_are_not_burned(name: str) -> None:
    peer = Answers(BAD[name])
    async with session(peer) as opened:
        found, error = await all_of(AsyncInvoices(opened).submit_many(draft(str(n)) for n in range(1000)))
    assert peer.asked == STOP
    assert isinstance(error, BatchStoppedError)
    rest = [outcome for outcome in found if isinstance(outcome, NotSent) and outcome.error is error]
    assert (len(found), len(rest)) == (1000, 1000 - STOP)


@pytest.mark.asyncio
async def test_documents_stop_too_and_none_goes_on(tmp_path: Any) -> None:
    for stop_after, asked in ((STOP, STOP), (None, 40)):
        peer = Answers(BAD["a wrong path"])
        async with session(peer, stop_after=stop_after) as opened:
            ids = [str(n) for n in range(40)]
            found, error = await all_of(OrderDocuments(opened).download_many(ids, tmp_path))
        assert (peer.asked, len(found), isinstance(error, BatchStoppedError)) == (asked, 40, stop_after is not None)


@pytest.mark.asyncio
async def test_one_key_is_sent_once_per_call_also_in_another_form() -> None:
    peer = Answers(TAKEN)
    async with session(peer) as opened:
        drafts = [draft("H\u00f3a"), draft("Ho\u0301a"), draft("B"), draft("B")]
        found, _ = await all_of(AsyncInvoices(opened).submit_many(drafts))
    assert peer.asked == 2
    assert Counter(type(outcome) for outcome in found) == {Submitted: 2, Duplicate: 2}
    assert [outcome.draft for outcome in found if isinstance(outcome, Duplicate)] == [drafts[1], drafts[3]]


@pytest.mark.asyncio
async def test_a_draft_whose_first_byte_left_is_in_doubt_when_it_is_cut_off() -> None:
    class Cut(Answers):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            # Somebody else's hand, as a debugger's or a supervisor's.
            [task.cancel() for task in asyncio.all_tasks() if "_worked" in repr(task.get_coro())]
            writer.close()

    peer = Cut()
    async with session(peer) as opened:
        found, _ = await all_of(AsyncInvoices(opened).submit_many([draft("A")]))
    assert [type(outcome) for outcome in found] == [InDoubt]


@pytest.mark.asyncio
async def test_the_error_of_a_wait_names_the_request_that_was_made() -> None:
    peer = Answers(TAKEN, answer(403, b'{"message": "no"}'))
    async with session(peer) as opened:
        with pytest.raises(InvoicingError) as caught:
            await AsyncInvoices(opened).create(draft("A"), poller=[0.001, 0.001])
    assert caught.value.created_request_id == RID
    assert pickle.loads(pickle.dumps(caught.value)).created_request_id == RID


@pytest.mark.asyncio
async def test_an_error_of_the_submission_names_no_request() -> None:
    async with session(Answers(BAD["a 500"])) as opened:
        with pytest.raises(SubmissionInDoubtError) as caught:
            await AsyncInvoices(opened).create(draft("A"))
    assert caught.value.created_request_id is None
