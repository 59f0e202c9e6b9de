"""The events of calls and what the standard `logging` makes of them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, fields, frozen
from fakes import FakeClock, FakeResponse
from session_calls import BASE, CALL, DOWN, FINE, ONCE, SUBMISSION, body, scripted, sent, steps

from invoicing_async import HmacAuth, events
from invoicing_async.errors import ApiError, InvoicingError, ServiceUnavailableError, SessionError, TransportError
from invoicing_async.events import (
    AttemptFailed,
    CallCancelled,
    CallEvent,
    CallFailed,
    CallStarted,
    DocumentSaved,
    Event,
    RequestStarted,
    RequestSucceeded,
    RetryScheduled,
    UnknownStatus,
    combined,
)
from invoicing_async.policies import Limits, RetryPolicy
from invoicing_async.session._internals import Internals
from invoicing_async.session._log import ROWS, TAKEN, log_event, logger, row_of
from invoicing_async.session._session import internals_of

KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and hasattr(kind, "__attrs_attrs__")]


class Kept(logging.Handler):
    """Keeps every record as it comes."""

    def __init__(self) -> None:
        super().__init__(1)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[tuple[int, str]]:
        return [(record.levelno, record.getMessage()) for record in self.records]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """What the library logs, from the lowest level on."""
    handler, level = Kept(), logger.level
    logger.addHandler(handler)
    logger.setLevel(1)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def example(kind: type[Any]) -> Any:
    """One event of a kind, each field with a value that its type allows."""
    values: dict[str, Any] = {"int": 3, "float": 1.5, "str": "word", "Path": Path("/d/x.pdf"), "bool": False}
    errors = ("Exception", "Exception | None", "BaseException | None", "InvoicingError")
    values |= dict.fromkeys(errors, ApiError("no", status=500))
    values |= {"int | None": 500, "Reason | None": "status"}
    return kind(**{field.name: values[str(field.type)] for field in fields(kind)})


class TestRows:
    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not CallEvent], ids=lambda kind: kind.__name__)
    def test_every_kind_of_event_has_a_row_and_its_fields_beside_the_line(self, kind: type[Any], kept: Kept) -> None:
        """A JSON formatter finds each field under its own name, as a value that JSON has."""
        log_event(example(kind))
        [record] = kept.records
        assert record.levelno == ROWS[kind.__name__].level
        assert record.__dict__["event"] == kind.__name__
        found = {field.name: record.__dict__[field.name] for field in fields(kind)}
        assert json.loads(json.dumps(found)) == found
        assert "\n" not in record.getMessage()

    def test_the_words_of_each_row_name_fields_of_its_kind(self) -> None:
        known = {kind.__name__: kind for kind in KINDS}
        for name, row in ROWS.items():
            if name in known:
                assert row.words % {field.name: 1 for field in fields(known[name])}

    def test_levels_are_those_that_the_readme_names(self) -> None:
        by_level: dict[int, set[str]] = {}
        for name, row in ROWS.items():
            by_level.setdefault(row.level, set()).add(name)
        assert by_level[logging.ERROR] == {"RunHalted"}
        assert by_level[logging.WARNING] == {"CallFailed", "SubmissionInDoubt", "UnknownStatus", "QueueLost"}
        assert by_level[logging.INFO] == {
            *("RetryScheduled", "ClockCorrected", "Paused", "Probing", "Resumed"),
            *("ChunkTakenOver", "QueueReconnected"),
        }

    def test_an_event_without_a_row_is_logged_by_its_fields(self, kept: Kept) -> None:
        """Also where a field has a name that a log record has, or a value that is none of JSON's."""

        @frozen
        class Novel:
            name: str
            args: tuple[int, ...]

        log_event(Novel(name="x", args=(1, 2)))
        assert kept.lines == [(logging.INFO, "Novel, name=x, args=(1, 2)")]
        assert kept.records[0].__dict__["name_"] == "x"
        assert {"name", "args", "msg"} <= TAKEN

    def test_a_failed_poll_is_no_warning(self) -> None:
        """The wait asks again by itself."""
        about: dict[str, Any] = {"operation": "s", "path": "/", "attempts": 1, "elapsed": 0.1, "error": ValueError()}
        assert row_of(CallFailed(**about)).level == logging.WARNING
        assert row_of(CallFailed(**about, is_step=True)).level == logging.INFO

    @pytest.mark.parametrize(
        ("operation", "error", "level"),
        [
            ("token", TransportError(sent="unknown"), logging.INFO),
            ("create_invoice", TransportError(sent="unknown"), logging.INFO),
            ("create_invoice", ApiError(status=502), logging.INFO),
            ("create_invoice", TransportError(sent="no"), logging.WARNING),
            ("create_invoice", ApiError(status=422), logging.WARNING),
            ("create_invoice", OSError(), logging.WARNING),
            ("invoice_status", TransportError(sent="unknown"), logging.WARNING),
        ],
    )
    def test_a_cause_is_one_warning(self, operation: str, error: Exception, level: int) -> None:
        """Of a call that is made for another, the other's; of a submission in doubt, the doubt."""
        failed = CallFailed(operation=operation, path="/", attempts=1, elapsed=0.1, error=error)
        assert row_of(failed).level == level

    def test_a_line_is_bounded_and_one_whatever_a_service_says(self, kept: Kept) -> None:
        error = ApiError("\x1b[2J" + "long\n" * 5_000, status=500)
        log_event(AttemptFailed(operation="o" * 5_000, path="/", attempt=1, error=error))
        [(_, line)] = kept.lines
        assert line.isprintable()
        assert len(line) < 1_000


@pytest.mark.asyncio
class TestCalls:
    async def test_a_retried_call_is_told_at_each_level(self, kept: Kept) -> None:
        async with scripted(DOWN, FINE, clock=FakeClock()) as session:
            await session.call(CALL, body)
        [number] = {record.__dict__["call_id"] for record in kept.records}
        call = f"test, call {number}: "
        assert kept.lines == [
            (logging.DEBUG, f"{call}begins, POST /x"),
            (logging.DEBUG, f"{call}attempt 1 begins, /x"),
            (
                logging.DEBUG,
                f"{call}attempt 1 failed: ServiceUnavailableError: down (SYS_DEP_503, HTTP 503, request r-1)",
            ),
            (logging.INFO, f"{call}attempt 1 failed (service_unavailable); tried again in 0.2 s"),
            (logging.DEBUG, f"{call}attempt 2 begins, /x"),
            (logging.DEBUG, f"{call}succeeded with 200 in 0.250 s, attempts: 2"),
        ]

    async def test_a_call_tells_first_where_it_goes_without_a_query(self) -> None:
        heard: list[Any] = []
        auth = HmacAuth(partner_client_id="p", secret_key="k", store_client_id="shop-9", store_token="t")
        elsewhere = evolve(CALL, base_url="https://files.test", query="signature=x", authorised=False, subject="s")
        async with scripted(FINE, auth=auth, on_event=heard.append) as session:
            await session.call(CALL, body)
            await session.call(elsewhere, body)
        first, second = [event for event in heard if isinstance(event, CallStarted)]
        assert (first.base_url, first.path, first.method, first.store, first.subject) == (
            BASE,
            "/x",
            "POST",
            "shop-9",
            "",
        )
        assert (second.base_url, second.path, second.subject) == ("https://files.test", "/x", "s")
        assert "signature" not in f"{second!r}"

    async def test_a_final_failure_is_a_warning_with_its_history(self, kept: Kept) -> None:
        heard: list[Event] = []
        async with scripted(DOWN, clock=FakeClock(), retry=RetryPolicy(attempts=3), on_event=heard.append) as session:
            with pytest.raises(ServiceUnavailableError) as caught:
                await session.call(CALL, body)
        failed = heard[-1]
        assert isinstance(failed, CallFailed)
        assert (failed.error, failed.attempts, failed.status, failed.is_step) == (caught.value, 3, 503, False)
        assert failed.elapsed == sum(attempt.waited for attempt in caught.value.attempts)
        assert kept.lines[-1][0] == logging.WARNING

    @pytest.mark.parametrize("raised", [OSError("disk full"), ZeroDivisionError()])
    async def test_what_the_reader_raises_ends_the_call_and_is_told(self, raised: Exception) -> None:
        async def fail(_: object) -> None:
            raise raised

        heard: list[Event] = []
        async with scripted(FINE, on_event=heard.append) as session:
            with pytest.raises(type(raised)):
                await session.call(CALL, fail)
        assert [type(event) for event in heard] == [CallStarted, RequestStarted, CallFailed]

    async def test_a_cancelled_call_is_no_failure(self, kept: Kept) -> None:
        heard: list[Event] = []

        async def hang(_: object) -> FakeResponse:
            await asyncio.Event().wait()
            raise AssertionError

        async with scripted(hang, on_event=heard.append) as session:
            task = asyncio.create_task(session.call(CALL, body))
            while not sent(session):  # noqa: ASYNC110 - the transport tells
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert [type(event) for event in heard] == [CallStarted, RequestStarted, CallCancelled]
        assert kept.lines[-1][0] == logging.DEBUG

    async def test_a_call_that_the_sessions_end_cuts_off_is_told_as_failed(self) -> None:
        heard: list[Event] = []

        async def hang(_: object) -> FakeResponse:
            await asyncio.Event().wait()
            raise AssertionError

        async with scripted(hang, on_event=heard.append) as session:
            task = asyncio.create_task(session.call(CALL, body))
            while not sent(session):  # noqa: ASYNC110 - the transport tells
                await asyncio.sleep(0)
        with pytest.raises(SessionError):
            await task
        assert isinstance(heard[-1], CallFailed)

    async def test_each_call_has_another_number_and_its_events_the_same(self) -> None:
        heard: list[Any] = []
        async with scripted(FINE, on_event=heard.append) as session:
            await asyncio.gather(*(session.call(CALL, body) for _ in range(20)))
        numbers = [event.call_id for event in heard]
        assert len({*numbers}) == 20
        assert all(numbers.count(number) == 3 for number in numbers)
        assert all(event.status == 200 for event in heard if isinstance(event, RequestSucceeded))

    async def test_waiting_for_a_place_is_counted(self) -> None:
        clock, heard = FakeClock(auto=False), list[Any]()

        async def slow(_: object) -> FakeResponse:
            await clock.sleep(2.0)
            return FINE

        async with scripted(slow, clock=clock, limits=Limits(concurrency=1), on_event=heard.append) as session:
            calls = asyncio.gather(*(session.call(CALL, body) for _ in range(3)))
            while not calls.done():
                await steps()
                clock.advance(2.0)
        waited = [event.queued for event in heard if isinstance(event, RequestSucceeded)]
        assert waited == [0.0, 2.0, 4.0]


@pytest.mark.asyncio
class TestNobodyListens:
    async def test_a_call_that_goes_well_has_no_number(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is made where neither an observer nor the log's level asks for it."""
        monkeypatch.setattr(logger, "level", logging.WARNING)
        logger.manager._clear_cache()  # type: ignore[attr-defined] # it remembers what is enabled
        told: list[Event] = []
        monkeypatch.setattr(Internals, "tell", lambda self, event: told.append(event))
        async with scripted(DOWN, FINE, clock=FakeClock()) as session:
            await session.call(CALL, body)
            assert told == []
            assert not internals_of(session).hears()
            assert internals_of(session).hears(logging.WARNING)
        logger.manager._clear_cache()  # type: ignore[attr-defined]

    async def test_only_the_level_that_is_enabled_is_told(self, kept: Kept) -> None:
        logger.setLevel(logging.INFO)
        async with scripted(DOWN, DOWN, FINE, clock=FakeClock()) as session:
            await session.call(CALL, body)
        assert [level for level, _ in kept.lines] == [logging.INFO, logging.INFO]

    async def test_a_handler_that_raises_changes_nothing(self, kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: logging.LogRecord) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(kept, "handle", refuse)
        async with scripted(DOWN, FINE, clock=FakeClock()) as session:
            assert await session.call(SUBMISSION, body) == b"fine"


def test_the_library_prints_nothing_by_itself() -> None:
    """Its logger has a handler that does nothing, so that the last resort of `logging` stays silent."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logger.handlers)


class TestOwnEvents:
    def test_events_made_with_the_fields_of_before_are_equal_to_those_that_are_told(self) -> None:
        """A test of a user's compares them."""
        retry = RetryScheduled(operation="o", path="/", attempt=1, delay=0.5)
        told = RetryScheduled(operation="o", path="/", attempt=1, delay=0.5, call_id=7, status=503, reason="status")
        assert retry == told
        assert UnknownStatus(request_id="r", status="A") != UnknownStatus(request_id="r", status="B")
        saved = {"order_id": "o", "path": Path("x"), "size": 1}
        assert DocumentSaved(**saved) == DocumentSaved(**saved, call_id=3, status=200)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_a_failed_call_ends_with_one_event_and_the_error_that_is_raised() -> None:
    heard: list[Event] = []
    async with scripted(FakeResponse(status=404), retry=ONCE, on_event=heard.append) as session:
        with pytest.raises(InvoicingError) as caught:
            await session.call(CALL, body)
    assert [type(event) for event in heard] == [CallStarted, RequestStarted, AttemptFailed, CallFailed]
    assert heard[-1] == CallFailed(operation="test", path="/x", attempts=1, elapsed=0.0, error=caught.value)


class TestCombined:
    def test_each_observer_is_told_in_order_also_where_one_raises(self) -> None:
        told: list[str] = []

        def refuse(event: Event) -> None:
            told.append("refused")
            raise ZeroDivisionError

        event = RequestStarted(operation="o", path="/", attempt=1)
        with pytest.raises(ZeroDivisionError):
            combined(lambda _: told.append("first"), refuse, lambda _: told.append("last"))(event)
        assert told == ["first", "refused", "last"]
        combined()(event)
