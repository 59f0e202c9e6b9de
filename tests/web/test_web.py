"""What a web service tells its clients of an error: the whole table, and what ends when a client leaves."""

from __future__ import annotations

import asyncio
import errno
import pickle
from collections.abc import Iterator
from inspect import isclass
from itertools import product
from types import ModuleType

import pytest

from invoicing_async import errors, repair, runs, web
from invoicing_async._core.envelope import error_from
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    BatchStoppedError,
    DeadlineError,
    DraftError,
    ExportError,
    Fault,
    IncompleteDocumentError,
    InterruptedDocumentError,
    InvoicingError,
    OrderStatusError,
    OversizedDocumentError,
    PermissionDeniedError,
    PollTimeoutError,
    ProtocolError,
    RateLimitError,
    ResolutionTooEarlyError,
    ServiceDownError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from invoicing_async.health import Health, LaneHealth, LaneState
from invoicing_async.web import JUDGED, ROWS, ClientGoneError, HttpError, http_error, http_status, while_connected

SECRET = "sk-9e1"
"""Stands for all that an error may say and a client must not see: hosts, files, the service's own words."""

TOLD = [
    (SessionError(SECRET), 503, "closing"),
    (TransportError(SECRET, sent="no"), 503, "unavailable"),
    (TransportError(SECRET), 502, "no_answer"),
    (DeadlineError(SECRET), 504, "deadline"),
    (ApiError(SECRET, status=418), 502, "upstream_failed"),
    (ApiError(SECRET, status=500), 502, "upstream_failed"),
    (ApiError(SECRET, status=404, code="ORDER_404"), 404, "not_found"),
    (ApiError(SECRET, status=404, bare=True), 502, "upstream_failed"),
    (ApiError(SECRET, status=400), 422, "refused"),
    (ApiError(SECRET, status=422), 422, "refused"),
    (ApiError(SECRET, status=422, bare=True), 502, "upstream_failed"),
    (AuthenticationError(SECRET, status=401), 502, "upstream_refused"),
    (PermissionDeniedError(SECRET, status=403), 502, "upstream_refused"),
    (OrderStatusError(SECRET, status=422, code="ORDER_021"), 409, "not_eligible"),
    (OrderStatusError(SECRET, status=404, code="ORDER_021"), 409, "not_eligible"),
    (ServiceUnavailableError(SECRET, status=404, code="SYS_DEP_503"), 503, "unavailable"),
    (ServiceUnavailableError(SECRET, status=504), 503, "unavailable"),
    (ServiceDownError(SECRET, since=1.0, next_probe=2.0), 503, "unavailable"),
    (RateLimitError(SECRET, status=429), 503, "busy"),
    (ProtocolError(SECRET), 502, "bad_answer"),
    (IncompleteDocumentError(SECRET), 502, "bad_document"),
    (OversizedDocumentError(SECRET), 502, "bad_document"),
    (InterruptedDocumentError(SECRET), 502, "bad_document"),
    (PollTimeoutError(SECRET, request_id=SECRET), 504, "not_done"),
    (SubmissionInDoubtError(SECRET, key=SECRET), 502, "in_doubt"),
    (ExportError(SECRET, invoice_id=SECRET), 502, "no_document"),
    (ResolutionTooEarlyError(SECRET), 409, "too_early"),
    (BatchStoppedError(SECRET), 502, "upstream_failed"),
    (DraftError((Fault("lines[0].price", "is required"),)), 422, "invalid"),
    (InvoicingError(SECRET), 502, "upstream_failed"),
    (runs.DraftConflictError((SECRET,)), 409, "conflict"),
    (runs.RequestIdTakenError(SECRET), 409, "conflict"),
    (runs.SupersededError(SECRET), 409, "conflict"),
    (runs.RunLockedError(SECRET, host=SECRET), 503, "held"),
    (runs.RunPausedError(SECRET), 503, "paused"),
    (runs.LedgerAwayError(SECRET), 503, "no_ledger"),
    (runs.RunChangedError(SECRET), 500, "internal"),
    (runs.DamagedRunError(SECRET), 500, "internal"),
    (runs.RunFileError(SECRET), 500, "internal"),
    (repair.AnswersError(()), 422, "invalid_answers"),
    (ClientGoneError(SECRET), 499, "client_gone"),
    (OSError(errno.ENOSPC, SECRET, f"/{SECRET}"), 500, "internal"),
    (TimeoutError(SECRET), 504, "deadline"),
    (ValueError(SECRET), 500, "internal"),
    (asyncio.CancelledError(), 500, "internal"),
]


def of(error: BaseException) -> str:
    return f"{type(error).__name__}-{getattr(error, 'status', '')}"


def classes(module: ModuleType) -> Iterator[type[InvoicingError]]:
    found = (value for value in vars(module).values() if isclass(value) and issubclass(value, InvoicingError))
    return (kind for kind in found if not kind.__name__.startswith("_"))


@pytest.mark.parametrize(("error", "status", "code"), TOLD, ids=[of(error) for error, _, _ in TOLD])
def test_an_error_is_told_as_the_table_says(error: BaseException, status: int, code: str) -> None:
    """By a status and a code, and in words that hold nothing of the error's own."""
    found = http_error(error)
    assert (found.status, found.code, http_status(error)) == (status, code, status)
    assert type(found.status) is type(http_status(error)) is int
    assert SECRET not in f"{found!r} {found.body}"
    assert found.body == {"code": code, "message": found.message}
    assert found.message[0].isupper()
    assert found.message.isprintable()


def test_every_class_of_error_has_a_row_of_its_own() -> None:
    """A new one must say what a client is told of it, and be tried above."""
    public = {*classes(errors)}
    assert len(public) >= 21
    assert public - ROWS.keys() == set()
    assert {type(error) for error, _, _ in TOLD} >= public
    assert {code for _, _, code in TOLD} == {row.code for row in (*ROWS.values(), *JUDGED.values())}


def test_the_errors_of_runs_and_repairs_are_none_of_the_services() -> None:
    """Whatever the package raises has a row, or one of a class above it that is not the root's."""
    for kind in {*classes(runs), *classes(repair), *classes(web)}:
        nearest = next(base for base in kind.__mro__ if base in ROWS)
        assert nearest is not InvoicingError or kind is InvoicingError, kind


def test_a_class_of_somebody_elses_is_told_as_the_one_it_comes_from() -> None:
    class OursError(OrderStatusError):
        pass

    assert http_status(OursError("no", status=409)) == 409
    assert http_status(KeyboardInterrupt()) == 500


def no_header(_: str) -> None:
    """Return nothing, for an answer without headers."""


def test_no_answer_of_the_service_asks_its_clients_for_a_credential() -> None:
    """Nor sends them elsewhere, nor says that all is well, whatever its status, with an envelope or without."""
    envelope = b'{"success": false, "error": {"code": "X", "message": "no"}}'
    found = {
        http_status(error)
        for status, body in product(range(100, 600), (envelope, b'{"message": "no"}', b"<html>", b""))
        if (error := error_from(status, no_header, body, now=0.0)) is not None
    }
    assert found == {404, 422, 502, 503}


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ServiceDownError(since=1.0, next_probe=2.0), "2"),
        (ServiceDownError(since=1.0, next_probe=2.0001), "3"),
        (ServiceDownError(since=1.0, next_probe=0.0), "1"),
        (ServiceUnavailableError(status=503, retry_after=2.5), "3"),
        (RateLimitError(status=429, retry_after=30), "30"),
        (ResolutionTooEarlyError(remaining=12.1), "13"),
        (RateLimitError(status=429, retry_after=1e300), "86400"),
        (ServiceUnavailableError(status=503, retry_after=float("inf")), "5"),
        (ServiceUnavailableError(status=503), "5"),
        (SessionError("closing"), "5"),
        (TransportError(), None),
        (OrderStatusError(status=422, retry_after=5), None),
    ],
    ids=lambda value: of(value) if isinstance(value, Exception) else str(value),
)
def test_the_seconds_to_wait_are_whole_and_at_least_one(error: Exception, seconds: str | None) -> None:
    assert http_error(error).headers.get("Retry-After") == seconds


def lane(*, next_probe: float | None = None, state: LaneState = LaneState.PAUSED) -> LaneHealth:
    return LaneHealth(operation="document", state=state, next_probe=next_probe, concurrency=1)


@pytest.mark.parametrize(
    ("lanes", "seconds"),
    [
        ((), "5"),
        ((lane(state=LaneState.OPEN),), "5"),
        ((lane(next_probe=3.2),), "4"),
        ((lane(next_probe=9.0), lane(next_probe=0.0), lane(state=LaneState.OPEN)), "1"),
    ],
)
def test_what_the_error_does_not_say_the_health_does(lanes: tuple[LaneHealth, ...], seconds: str) -> None:
    """The soonest attempt counts; the error's own word goes first, and another status has none."""
    health = Health(lanes=lanes)
    assert http_error(ServiceUnavailableError(status=503), health=health).headers.get("Retry-After") == seconds
    assert http_error(RateLimitError(status=429, retry_after=7), health=health).headers == {"Retry-After": "7"}
    assert http_error(TransportError(), health=health).headers == {}


def test_the_faults_of_a_draft_are_listed() -> None:
    """They are of what the client sent; more than ten are counted, and none makes a line of its own."""
    faults = tuple(Fault(f"lines[{number}].price", "is\nrequired") for number in range(12))
    message = http_error(DraftError(faults)).message
    assert message.startswith("The invoice is not valid: lines[0].price: is required; ")
    assert message.endswith("; and 2 more")


def test_an_answer_is_a_frozen_value() -> None:
    found = http_error(RateLimitError(status=429, retry_after=7))
    assert found == HttpError(status=503, code="busy", message=found.message, headers={"Retry-After": "7"})
    assert pickle.loads(pickle.dumps(found)) == found
    with pytest.raises(AttributeError):
        found.status = 200  # type: ignore[misc] # which is what it is to say


# A client that leaves.


class Client:
    """The messages of one client, as ASGI gives them."""

    def __init__(self) -> None:
        self.messages = asyncio.Queue[dict[str, str]]()
        self.messages.put_nowait({"type": "http.request"})

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


@pytest.mark.asyncio
async def test_the_block_ends_when_the_client_leaves() -> None:
    client, ended = Client(), []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async def request() -> None:
        async with while_connected(client.messages.get):
            await work()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    client.leave()
    with pytest.raises(ClientGoneError):
        await task
    assert ended == [True]


@pytest.mark.asyncio
async def test_the_block_of_a_client_that_stays_is_left_alone() -> None:
    """Its result and its errors pass, a time-out of its own included, and no task stays behind."""
    client, error = Client(), TimeoutError("its own")
    async with while_connected(client.messages.get):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError) as caught:
        async with while_connected(client.messages.get):
            raise error
    assert caught.value is error
    client.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert client.messages.qsize() == 1, "who comes next is told that the client left"


@pytest.mark.asyncio
async def test_a_cancellation_from_outside_is_one() -> None:
    """Also when the client leaves at the same moment."""
    client = Client()

    async def request() -> None:
        async with while_connected(client.messages.get):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    client.leave()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
