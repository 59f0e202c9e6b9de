"""What the failure of a submission means for its invoice: the rule itself, and the rule against peers that die."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.http import StreamWriter
from attrs import define, field, frozen
from mocked import Mocked
from peers import Connection, Peer, free_port, listening

from invoicing_async import AsyncInvoices, InvoiceDraft, InvoiceLine, RequestStatus, RetryPolicy, Session, StaticToken
from invoicing_async import errors as tree
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async.errors import (
    ApiError,
    AuthenticationError,
    DeadlineError,
    DraftError,
    InvoicingError,
    ProtocolError,
    RateLimitError,
    ServiceDownError,
    ServiceUnavailableError,
    SessionError,
    SubmissionInDoubtError,
    TransportError,
)
from invoicing_async.invoices import Fate, fate
from invoicing_async.invoices._client import work_of
from invoicing_async.policies import Timeouts

DRAFT = InvoiceDraft(
    key="INV-1",
    invoice_template_id="01234567-89ab-cdef-0123-456789abcdef",
    lines=[InvoiceLine(name="Cà phê", unit="kg", price="12.50", quantity="2")],
)
BODY = AsyncInvoices(Session("http://unused.test", auth=StaticToken("t"))).encode(DRAFT)
ID = "7f6c0e1a-0000-4000-8000-000000000001"
SUBMISSION = b"POST /v2/ob/invoices HTTP/1.1\r\n"
PATIENT = RetryPolicy(attempts=3, first=0.0)


def answer(status: str, body: bytes = b"", kind: str = "application/json", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def envelope(code: str | None) -> bytes:
    inner = b'{"message":"no"}' if code is None else b'{"code":"%s","message":"no"}' % code.encode()
    return b'{"success":false,"error":%s,"requestId":"r-1"}' % inner


GOOD = answer("200 OK", b'{"request_id":"%s","status":"NEW"}' % ID.encode())


def every_class() -> Iterator[type[InvoicingError]]:
    found = [InvoicingError]
    while found:
        kind = found.pop()
        found += kind.__subclasses__()
        if kind.__module__ == tree.__name__:
            yield kind


def instances(kind: type[InvoicingError]) -> Iterator[InvoicingError]:
    if kind is ServiceDownError:
        # No answer: nothing was sent.
        yield kind("no", since=0.0, next_probe=1.0)
    elif issubclass(kind, ApiError):
        for status in range(200, 600):
            yield kind("no", status=status)
            yield kind("no", status=status, code="CODE_1")
    elif kind is DraftError:
        yield DraftError(())
    else:
        yield kind("no")


def expected(error: InvoicingError) -> Fate:
    """The documented table, written down a second time as what each answer is."""
    if error.sent == "no":
        return Fate.NOT_SENT
    if not isinstance(error, ApiError):
        return Fate.IN_DOUBT
    if error.status in {401, 429}:
        return Fate.REFUSED_FOR_NOW
    refused = error.status in {400, 403, 404, 405, 410, 411, 413, 414, 415, 422, 431}
    return Fate.REJECTED if refused else Fate.IN_DOUBT


@pytest.mark.parametrize("kind", sorted(every_class(), key=repr))
def test_every_error_at_every_status_has_its_documented_fate(kind: type[InvoicingError]) -> None:
    for error in instances(kind):
        assert fate(error) is expected(error), error
        error.sent = "no"
        assert fate(error) is Fate.NOT_SENT


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (TransportError("cut"), Fate.IN_DOUBT),
        (TransportError("refused", sent="no"), Fate.NOT_SENT),
        (DeadlineError("late"), Fate.IN_DOUBT),
        (SessionError("closed"), Fate.NOT_SENT),
        (ProtocolError("a login page", status=200), Fate.IN_DOUBT),
        (ApiError(status=400), Fate.REJECTED),
        (ApiError(status=500), Fate.IN_DOUBT),
        (ApiError(status=500, code="BROKEN"), Fate.IN_DOUBT),
        (ApiError(status=200, code="RULE_7"), Fate.IN_DOUBT),
        (ApiError(status=200), Fate.IN_DOUBT),
        (ApiError(status=302, code="RULE_7"), Fate.IN_DOUBT),
        (AuthenticationError(status=401), Fate.REFUSED_FOR_NOW),
        (RateLimitError(status=429), Fate.REFUSED_FOR_NOW),
        (ServiceUnavailableError(status=503), Fate.IN_DOUBT),
        (ServiceUnavailableError(status=503, code="UPSTREAM_RESET"), Fate.IN_DOUBT),
        (ServiceUnavailableError(status=200, code="SYS_DEP_503"), Fate.REFUSED_FOR_NOW),
    ],
)
def test_the_fates_that_matter_most(error: InvoicingError, meaning: Fate) -> None:
    assert fate(error) is meaning


@define
class Wire:
    """What a dying peer saw: the bytes of each submission."""

    submissions: list[bytes] = field(factory=list)

    @property
    def count(self) -> int:
        """Submissions of which at least one byte came."""
        return sum(bool(seen) for seen in self.submissions)


@frozen
class Certified:
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def certified() -> Certified:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return Certified(server, client)


@asynccontextmanager
async def calling(
    url: str, *, client: ssl.SSLContext | None = None, retry: RetryPolicy = PATIENT, timeouts: Timeouts | None = None
) -> AsyncIterator[AsyncInvoices]:
    transport = AiohttpTransport(ssl=client, timeouts=timeouts)
    try:
        async with Session(url, auth=StaticToken("t"), retry=retry, timeouts=timeouts, transport=transport) as session:
            yield AsyncInvoices(session)
    finally:
        await transport.close()


async def failed(invoices: AsyncInvoices) -> InvoicingError:
    with pytest.raises(InvoicingError) as caught:
        await invoices.submit(DRAFT)
    return caught.value


def assert_in_doubt(error: InvoicingError, attempts: int = 1) -> None:
    """Everything that is needed to settle it is there."""
    assert isinstance(error, SubmissionInDoubtError)
    assert error.key == "INV-1"
    assert error.body_sha256 == sha256(BODY).hexdigest()
    assert error.sent_at is not None
    assert len(error.attempts) == attempts
    assert abs(error.sent_at - error.attempts[-1].at) < 5
    assert isinstance(error.__cause__, InvoicingError)
    assert fate(error.__cause__) is Fate.IN_DOUBT


async def head_size() -> int:
    """How long the head of a submission is: the points of death are counted from it."""
    wire = Wire()
    async with listening(dying(wire, die=Connection.reset)) as peer, calling(peer.url) as invoices:
        await failed(invoices)
    return wire.submissions[0].index(b"\r\n\r\n") + 4


Death = Callable[[Connection], Any]


def closed(connection: Connection) -> None:
    connection.writer.close()


DEATHS = [pytest.param(closed, id="closed"), pytest.param(Connection.reset, id="reset")]


def dying(
    wire: Wire, *, die: Death, after: int | None = None, say: bytes = b"", reuse: bool = False
) -> Callable[[Connection, Peer], Awaitable[None]]:
    """Take `after` bytes of a submission (None: all of it), say the start of an answer, die.

    With `reuse` the connection has first carried a status call to its end.
    """

    async def play(connection: Connection, peer: Peer) -> None:
        if reuse and not wire.submissions:
            peer.requests.append(await connection.request())
            await connection.say(GOOD)
        if reuse and after == 0:
            # Only then has the submission begun: an idle connection that dies sooner is simply replaced.
            await connection.reader.readexactly(1)
        if after is None:
            wire.submissions.append(await connection.request())
        else:
            wire.submissions.append(await connection.reader.readexactly(after))
        await connection.say(say)
        die(connection)

    return play


BEFORE_COMMIT = [0, 1, len(SUBMISSION) - 1, "head-1", "head", "head+1", "all-1"]
AFTER_COMMIT = [0, 1, 15, 40, len(GOOD) - 30, len(GOOD) - 1]


async def sized(point: int | str) -> int:
    if isinstance(point, int):
        return point
    head = await head_size()
    return {"head-1": head - 1, "head": head, "head+1": head + 1, "all-1": head + len(BODY) - 1}[point]


async def dies(wire: Wire, *, reuse: bool, **named: Any) -> tuple[InvoicingError, Peer]:
    async with listening(dying(wire, reuse=reuse, **named)) as peer, calling(peer.url) as invoices:
        if reuse:
            await invoices.status(ID)
        error = await failed(invoices)
    return error, peer


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "re-used"])
@pytest.mark.parametrize("die", DEATHS)
class TestAPeerThatDies:
    @pytest.mark.parametrize("point", BEFORE_COMMIT)
    async def test_while_it_reads(self, point: int | str, die: Death, *, reuse: bool) -> None:
        """The connection stood, so the head may have left: in doubt, and sent once, whatever the peer read of it."""
        wire = Wire()
        error, peer = await dies(wire, reuse=reuse, die=die, after=await sized(point))
        assert_in_doubt(error)
        assert (len(wire.submissions), peer.connections) == (1, 1)
        assert SUBMISSION.startswith(wire.submissions[0][: len(SUBMISSION)])

    @pytest.mark.parametrize("said", AFTER_COMMIT)
    async def test_after_it_committed(self, said: int, die: Death, *, reuse: bool) -> None:
        """The invoice was made and the answer broke off: the case that must never be sent again."""
        wire = Wire()
        error, peer = await dies(wire, reuse=reuse, die=die, say=GOOD[:said])
        assert_in_doubt(error)
        assert wire.count == 1
        assert peer.connections == 1
        assert wire.submissions[0].endswith(b"\r\n\r\n" + BODY)
        assert wire.submissions[0].startswith(SUBMISSION)


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_an_idle_connection_that_died_is_replaced_and_the_submission_sent_once() -> None:
    wire = Wire()

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            request = await connection.request()
            if request.startswith(SUBMISSION):
                wire.submissions.append(request)
            await connection.say(GOOD)
            if peer.connections == 1:
                connection.writer.close()
                return

    async with listening(play) as peer, calling(peer.url) as invoices:
        await invoices.status(ID)
        await asyncio.wait_for(peer.gone(), 2)
        await asyncio.sleep(0.01)
        assert (await invoices.submit(DRAFT)).request_id == ID
    assert (wire.count, peer.connections) == (1, 2)


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_a_peer_that_never_accepts_and_leaves_is_in_doubt() -> None:
    """The system has taken the connection and the bytes for it: nobody can say how far they went."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        async with calling(f"http://127.0.0.1:{listener.getsockname()[1]}") as invoices:
            submission = asyncio.create_task(failed(invoices))
            await asyncio.sleep(0.05)
            listener.close()
            assert_in_doubt(await submission)


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_a_peer_that_falls_silent_is_in_doubt() -> None:
    async def play(connection: Connection, peer: Peer) -> None:
        peer.requests.append(await connection.request())
        await connection.hang()

    quick = Timeouts(connect=1, read=0.1, attempt=5)
    async with listening(play) as peer, calling(peer.url, timeouts=quick) as invoices:
        assert_in_doubt(await failed(invoices))
    assert len(peer.requests) == 1


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_a_deadline_after_the_head_left_is_in_doubt() -> None:
    async def play(connection: Connection, peer: Peer) -> None:
        peer.requests.append(await connection.request())
        await connection.hang()

    async with (
        listening(play) as peer,
        calling(peer.url, retry=RetryPolicy(attempts=3, first=0.0, deadline=0.1)) as invoices,
    ):
        error = await failed(invoices)
        assert_in_doubt(error)
        assert isinstance(error.__cause__, DeadlineError)
    assert len(peer.requests) == 1


def accepting(wire: Wire, server: ssl.SSLContext | None = None) -> Callable[[Connection, Peer], Awaitable[None]]:
    """Answer every submission well, over TLS that the peer begins itself if a context is given."""

    async def play(connection: Connection, peer: Peer) -> None:
        if server is not None:
            await connection.writer.start_tls(server)
        wire.submissions.append(await connection.request())
        await connection.say(GOOD)

    return play


def not_sent(error: InvoicingError, attempts: int = 3) -> None:
    assert isinstance(error, TransportError)
    assert error.sent == "no"
    assert fate(error) is Fate.NOT_SENT
    assert len(error.attempts) == attempts


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
class TestNothingWasSent:
    async def test_nobody_listens(self) -> None:
        async with calling(f"http://127.0.0.1:{free_port()}") as invoices:
            not_sent(await failed(invoices))

    async def test_somebody_listens_at_the_third_attempt(self) -> None:
        wire, port = Wire(), free_port()
        servers: list[asyncio.Server] = []
        waits = 0

        async def sleep(seconds: float) -> None:
            nonlocal waits
            waits += 1
            if waits == 2:

                async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    await accepting(wire)(Connection(reader, writer), Peer())
                    writer.close()

                servers.append(await asyncio.start_server(serve, "127.0.0.1", port))

        async with calling(f"http://127.0.0.1:{port}") as invoices:
            request = await work_of(invoices).calls.submit(invoices.encode(DRAFT), DRAFT.key, sleep, None, None)
            assert request.request_id == ID
        servers[0].close()
        assert (waits, wire.count) == (2, 1)
        assert wire.submissions[0].endswith(BODY)

    async def test_a_name_that_resolves_at_the_second_attempt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wire, asked = Wire(), 0

        async with listening(accepting(wire)) as peer:
            port = int(peer.url.rpartition(":")[2])

            def look_up(*args: Any, **named: Any) -> Any:
                nonlocal asked
                asked += 1
                if asked == 1:
                    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            async with calling(f"http://service.test:{port}") as invoices:
                assert (await invoices.submit(DRAFT)).request_id == ID
        assert wire.count == 1

    @pytest.mark.parametrize("die", DEATHS)
    @pytest.mark.parametrize("read", [0, 1, 50])
    async def test_a_peer_that_dies_during_the_handshake(self, read: int, die: Death, certified: Certified) -> None:
        wire = Wire()

        async def play(connection: Connection, peer: Peer) -> None:
            if peer.connections == 1:
                await connection.reader.readexactly(read)
                die(connection)
            else:
                await accepting(wire, certified.server)(connection, peer)

        async with listening(play) as peer:
            async with calling(peer.url.replace("http", "https"), client=certified.client) as invoices:
                assert (await invoices.submit(DRAFT)).request_id == ID
            assert (peer.connections, wire.count) == (2, 1)

    async def test_a_peer_that_answers_the_handshake_with_nonsense(self, certified: Certified) -> None:
        async def play(connection: Connection, peer: Peer) -> None:
            await connection.reader.read(1)
            await connection.say(answer("400 Bad Request"))

        async with listening(play) as peer:
            async with calling(peer.url.replace("http", "https"), client=certified.client) as invoices:
                not_sent(await failed(invoices))
            assert peer.connections == 3

    async def test_a_certificate_that_nobody_vouches_for(self, certified: Certified) -> None:
        wire = Wire()
        async with listening(accepting(wire), ssl=certified.server) as peer, calling(peer.url) as invoices:
            not_sent(await failed(invoices))
        assert wire.count == 0


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("reuse", [False, True], ids=["fresh", "re-used"])
@pytest.mark.parametrize("die", DEATHS)
@pytest.mark.parametrize(("after", "said"), [(0, 0), (20, 0), (None, 0), (None, 25)])
async def test_a_tls_peer_that_dies_after_the_handshake(
    after: int | None, said: int, die: Death, certified: Certified, *, reuse: bool
) -> None:
    wire = Wire()
    play = dying(wire, die=die, after=after, say=GOOD[:said], reuse=reuse)
    async with (
        listening(play, ssl=certified.server) as peer,
        calling(peer.url, client=certified.client) as invoices,
    ):
        if reuse:
            await invoices.status(ID)
        assert_in_doubt(await failed(invoices))
        assert (peer.connections, len(wire.submissions)) == (1, 1)


SYS_DEP = envelope("SYS_DEP_503")
ANSWERS: list[tuple[str, bytes, Fate | None]] = [
    ("200", GOOD, None),
    ("201", GOOD.replace(b"200 OK", b"201 Created"), None),
    ("200 terminal at once", answer("200 OK", b'{"request_id":"%s","status":"FAILED"}' % ID.encode()), None),
    ("200 garbage", answer("200 OK", b"\x00\xff{"), Fate.IN_DOUBT),
    ("200 a list", answer("200 OK", b"[]"), Fate.IN_DOUBT),
    ("200 empty", answer("200 OK"), Fate.IN_DOUBT),
    ("200 without a request id", answer("200 OK", b'{"status":"NEW"}'), Fate.IN_DOUBT),
    ("200 without a status", answer("200 OK", b'{"request_id":"%s"}' % ID.encode()), None),
    ("200 with a request id that is none", answer("200 OK", b'{"request_id":"7","status":"NEW"}'), Fate.IN_DOUBT),
    ("200 truncated", GOOD[:-10], Fate.IN_DOUBT),
    ("200 HTML", answer("200 OK", b"<html>Sign in</html>", "text/html"), Fate.IN_DOUBT),
    ("200 chunked and broken off", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", Fate.IN_DOUBT),
    ("200 envelope", answer("200 OK", envelope("RULE_7")), Fate.IN_DOUBT),
    ("200 envelope without a code", answer("200 OK", envelope(None)), Fate.IN_DOUBT),
    ("200 SYS_DEP_503", answer("200 OK", SYS_DEP), Fate.REFUSED_FOR_NOW),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", Fate.IN_DOUBT),
    ("301", answer("301 Moved Permanently", extra="Location: /elsewhere\r\n"), Fate.IN_DOUBT),
    ("302 to a login page", answer("302 Found", extra="Location: http://127.0.0.1:9/login\r\n"), Fate.IN_DOUBT),
    ("400", answer("400 Bad Request", b"no", "text/plain"), Fate.REJECTED),
    ("400 envelope", answer("400 Bad Request", envelope("VALIDATION_001")), Fate.REJECTED),
    ("400 truncated", answer("400 Bad Request", envelope("VALIDATION_001"))[:-20], Fate.REJECTED),
    ("401", answer("401 Unauthorized", b"Not Authorized", "text/plain"), Fate.REFUSED_FOR_NOW),
    ("403", answer("403 Forbidden", b"Not Allowed", "text/plain"), Fate.REFUSED_FOR_NOW),
    ("403 envelope", answer("403 Forbidden", envelope("RIGHT_1")), Fate.REJECTED),
    ("404 message", answer("404 Not Found", b'{"message":"no such template"}'), Fate.REJECTED),
    ("404", answer("404 Not Found"), Fate.REFUSED_FOR_NOW),
    ("409", answer("409 Conflict", envelope("CONFLICT_1")), Fate.IN_DOUBT),
    ("422", answer("422 Unprocessable Content", envelope("RULE_7")), Fate.REJECTED),
    ("429", answer("429 Too Many Requests", extra="Retry-After: 0\r\n"), Fate.REFUSED_FOR_NOW),
    ("500", answer("500 Internal Server Error"), Fate.IN_DOUBT),
    ("500 envelope", answer("500 Internal Server Error", envelope("BROKEN_1")), Fate.IN_DOUBT),
    ("502", answer("502 Bad Gateway", b"<html>", "text/html"), Fate.IN_DOUBT),
    ("503", answer("503 Service Unavailable", extra="Retry-After: 0\r\n"), Fate.IN_DOUBT),
    ("504", answer("504 Gateway Timeout"), Fate.IN_DOUBT),
    ("503 envelope", answer("503 Service Unavailable", envelope("UPSTREAM_RESET")), Fate.IN_DOUBT),
    ("504 envelope without a code", answer("504 Gateway Timeout", envelope(None)), Fate.IN_DOUBT),
    ("503 SYS_DEP_503", answer("503 Service Unavailable", SYS_DEP), Fate.REFUSED_FOR_NOW),
    ("junk for a status line", b"NONSENSE\r\n\r\n", Fate.IN_DOUBT),
    ("junk for a header", b"HTTP/1.1 200 OK\r\nBad Header\x00: x\r\n\r\n", Fate.IN_DOUBT),
    ("junk for a length", b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", Fate.IN_DOUBT),
    ("no HTTP at all", b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", Fate.IN_DOUBT),
]


def scripted(wire: Wire, reply: bytes) -> Callable[[Connection, Peer], Awaitable[None]]:
    async def play(connection: Connection, peer: Peer) -> None:
        wire.submissions.append(await connection.request())
        await connection.say(reply)

    return play


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(("reply", "meaning"), [pytest.param(*row[1:], id=row[0]) for row in ANSWERS])
async def test_every_answer_has_its_documented_fate(reply: bytes, meaning: Fate | None) -> None:
    """Only what was refused for now, and by a code that the policy lists, is sent again."""
    wire = Wire()
    async with listening(scripted(wire, reply)) as peer, calling(peer.url) as invoices:
        if meaning is None:
            request = await invoices.submit(DRAFT)
            assert (request.request_id, wire.count) == (ID, 1)
            return
        error = await failed(invoices)
    repeated = isinstance(error, RateLimitError) or getattr(error, "code", None) == "SYS_DEP_503"
    # A 401 once more under a new signature: it may have been a stray one.
    again = 2 if isinstance(error, AuthenticationError) else 1
    assert wire.count == (3 if repeated else again)
    if meaning is Fate.IN_DOUBT:
        assert_in_doubt(error)
    else:
        assert fate(error) is meaning
        assert len(error.attempts) == wire.count


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_refused_twice_then_taken_is_one_invoice() -> None:
    wire = Wire()
    replies = [answer("200 OK", SYS_DEP), answer("429 Too Many Requests"), GOOD]

    async def play(connection: Connection, peer: Peer) -> None:
        while replies:
            wire.submissions.append(await connection.request())
            await connection.say(replies.pop(0))

    async with listening(play) as peer, calling(peer.url) as invoices:
        assert (await invoices.submit(DRAFT)).status is RequestStatus.NEW
    assert wire.count == 3


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_refused_for_now_then_lost_is_in_doubt_with_the_time_of_the_last_attempt() -> None:
    wire = Wire()

    async def play(connection: Connection, peer: Peer) -> None:
        wire.submissions.append(await connection.request())
        if len(wire.submissions) == 1:
            await connection.say(answer("429 Too Many Requests"))

    async with listening(play) as peer, calling(peer.url) as invoices:
        assert_in_doubt(await failed(invoices), attempts=2)
    assert wire.count == 2


CONNECTION_KEY: Any = aiohttp.client_reqrep.ConnectionKey("service.test", 80, False, True, None, None, None)


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(
    "exception",
    [
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError(104, "Connection reset by peer"),
        aiohttp.ClientConnectionError("Connection closed"),
        aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
        aiohttp.SocketTimeoutError("Timeout on reading data from socket"),
        aiohttp.ServerTimeoutError("late"),
        aiohttp.ClientPayloadError("broken"),
        ConnectionResetError(),
        BrokenPipeError(),
        TimeoutError(),
    ],
    ids=lambda exception: type(exception).__name__,
)
async def test_what_is_no_error_of_connecting_is_in_doubt_even_if_the_head_was_not_seen_to_leave(
    exception: Exception,
) -> None:
    """aioresponses never reaches the hook that notes the head: that alone must not prove anything."""
    async with calling("https://service.test/api") as invoices:
        with Mocked() as mocked:
            mocked.post("https://service.test/api/v2/ob/invoices", exception=exception)
            assert_in_doubt(await failed(invoices))
    assert len(mocked.sent) == 1
    assert mocked.sent[0].body == BODY


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize(
    "exception",
    [
        aiohttp.ClientConnectorError(CONNECTION_KEY, OSError(111, "Connection refused")),
        aiohttp.ClientConnectorDNSError(CONNECTION_KEY, OSError(-2, "Name or service not known")),
        aiohttp.ConnectionTimeoutError("Connection timeout to host"),
    ],
    ids=lambda exception: type(exception).__name__,
)
async def test_an_error_of_connecting_is_tried_again(exception: Exception) -> None:
    url = "https://service.test/api/v2/ob/invoices"
    async with calling("https://service.test/api") as invoices:
        with Mocked() as mocked:
            mocked.post(url, exception=exception)
            mocked.post(url, body=GOOD.partition(b"\r\n\r\n")[2])
            assert (await invoices.submit(DRAFT)).request_id == ID
    assert len(mocked.sent) == 2


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
async def test_an_error_of_connecting_after_the_head_was_seen_to_leave_is_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both must hold: an error of connecting proves nothing once a connection was had."""

    async def refused(*args: Any, **named: Any) -> Any:
        raise aiohttp.ClientConnectorError(CONNECTION_KEY, OSError(111, "Connection refused"))

    monkeypatch.setattr(aiohttp.ClientRequest, "send", refused)
    monkeypatch.setattr(StreamWriter, "write_headers", refused)
    wire = Wire()
    async with listening(scripted(wire, GOOD)) as peer, calling(peer.url) as invoices:
        assert_in_doubt(await failed(invoices))
