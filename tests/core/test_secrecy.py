"""No secret stands where a tool that shows tracebacks with their locals would find it."""

from __future__ import annotations

import asyncio
import pickle
import re
import traceback
from base64 import b64encode
from collections.abc import Awaitable, Callable
from copy import copy
from typing import Any

import pytest
from aiohttp.http import StreamWriter
from leaks import shown
from peers import Connection, Peer, Play, free_port, listening
from yarl import URL

from invoicing_async._core.http import Request, Response
from invoicing_async._core.secrecy import Hidden, quiet, trim
from invoicing_async.auth import Auth, HmacAuth, OAuthClientCredentials, StaticToken
from invoicing_async.errors import InvoicingError
from invoicing_async.policies import RetryPolicy, Timeouts
from invoicing_async.session import Session

KEY, STORE, BEARER, CLIENT, ISSUED = "sk-first-secret", "st-second-secret", "bt-third-secret", "cs-fourth", "at-fifth"
PAIR = b64encode(f"c:{CLIENT}".encode()).decode()
CALL = Request(method="POST", path="/v1/things", body=b"{}", operation="test")
GIVEN = b'{"access_token": "%s"}' % ISSUED.encode()
HASTY = {
    "retry": RetryPolicy(attempts=2, first=0.001, ceiling=0.002),
    "timeouts": Timeouts(connect=1.0, read=0.05, attempt=0.1),
}

AUTHS: dict[str, Callable[[], Auth]] = {
    "hmac": lambda: HmacAuth(partner_client_id="p", secret_key=KEY, store_client_id="s", store_token=STORE),
    "bearer": lambda: StaticToken(BEARER),
    "oauth": lambda: OAuthClientCredentials(client_id="c", client_secret=CLIENT, tenant_connection_code="t"),
}


def http(body: bytes, *, status: int = 200, length: int | None = None) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body) if length is None else length, body)


def playing(answer: bytes | None, token: bytes | None = http(GIVEN)) -> Play:
    """Answer calls and token calls with these, then close; None is silence."""

    async def play(connection: Connection, peer: Peer) -> None:
        while True:
            peer.requests.append(await connection.request())
            is_token = b"/oauth/token" in peer.requests[-1]
            said = token if is_token else answer
            if said is None:
                await connection.hang()
                return
            await connection.say(said)
            if not is_token:
                return

    return play


def secrets(peer: Peer) -> set[str]:
    """All that must not be shown: what was configured, and each signature that was sent."""
    signatures = re.findall(r"x-signature: (?:sha256=)?(\w+)", b"".join(peer.requests).decode("latin-1"))
    return {KEY, STORE, BEARER, CLIENT, ISSUED, PAIR, *signatures}


def exposed(error: BaseException) -> str:
    """Everything of an error that a tool might show: its words, attributes, causes, and its frames' locals."""
    locals_ = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "\n".join([shown(error), *locals_.format(), *_contexts(error), pickle.dumps(error).decode("latin-1")])


def _contexts(error: BaseException) -> list[str]:
    """The locals of every frame of every error behind this one, those that a traceback does not print included."""
    parts, waiting, met = [], [error], set[int]()
    while waiting:
        link: Any = waiting.pop()
        if link is None or id(link) in met:
            continue
        met.add(id(link))
        waiting += [link.__cause__, link.__context__]
        parts += [repr(dict(frame.f_locals)) for frame, _ in traceback.walk_tb(link.__traceback__)]
    return parts


async def caught(work: Awaitable[object]) -> BaseException:
    try:
        await work
    except (InvoicingError, ValueError, asyncio.CancelledError, RuntimeError) as error:
        return error
    raise AssertionError("nothing was raised")


async def body(response: Response) -> bytes:
    return await response.read(1000)


async def refused(response: Response) -> bytes:
    raise ValueError("the reader does not like it")


FAULTS: dict[str, bytes | None] = {
    "401": http(b"no", status=401),
    "500": http(b"no", status=500),
    "not HTTP": b"garbage\r\n\r\n",
    "no framing": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "cut": http(b"half", length=10),
    "closed": b"",
    "silent": None,
    "too long": http(b"x" * 2000),
}


@pytest.mark.asyncio
@pytest.mark.usefixtures("both_paths")
class TestTracebacks:
    @pytest.mark.parametrize("auth", AUTHS)
    @pytest.mark.parametrize("fault", FAULTS)
    async def test_a_failed_call_shows_none(self, auth: str, fault: str) -> None:
        async with (
            listening(playing(FAULTS[fault])) as peer,
            Session(peer.url, auth=AUTHS[auth](), **HASTY) as session,  # type: ignore[arg-type]
        ):
            text = exposed(await caught(session.call(CALL, body)))
        assert [secret for secret in secrets(peer) if secret in text] == []

    @pytest.mark.parametrize(
        "token",
        [
            http(b'{"error": "invalid_client"}', status=400),
            http(b'{"access_token": "%s\\n"}' % ISSUED.encode()),
            http(b'{"access_token": ["%s"]}' % ISSUED.encode()),
            http(b'{"access_token": "%s"' % ISSUED.encode()),
            http(GIVEN, length=500),
            http(GIVEN + b" " * 70_000),
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\nzz\r\n" % (len(GIVEN), GIVEN),
            None,
        ],
        ids=["refused", "line end", "list", "half JSON", "cut", "too long", "no framing", "silent"],
    )
    async def test_a_token_that_could_not_be_had_shows_none(self, token: bytes | None) -> None:
        async with (
            listening(playing(b"", token)) as peer,
            Session(peer.url, auth=AUTHS["oauth"](), **HASTY) as session,  # type: ignore[arg-type]
        ):
            text = exposed(await caught(session.call(CALL, body)))
        assert [secret for secret in secrets(peer) if secret in text] == []

    @pytest.mark.parametrize("auth", AUTHS)
    async def test_nobody_who_listens_shows_none(self, auth: str) -> None:
        async with Session(f"http://127.0.0.1:{free_port()}", auth=AUTHS[auth](), **HASTY) as session:  # type: ignore[arg-type]
            text = exposed(await caught(session.call(CALL, body)))
        assert [secret for secret in secrets(Peer()) if secret in text] == []

    @pytest.mark.parametrize("auth", AUTHS)
    async def test_a_connection_that_ends_as_the_head_is_written_shows_none(
        self, auth: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There the head stands in aiohttp's frames as bytes."""
        writing = StreamWriter.write_headers

        async def closing(self: StreamWriter, line: str, headers: Any) -> None:
            if self.transport is not None and "oauth" not in line:
                self.transport.close()
            await writing(self, line, headers)

        monkeypatch.setattr(StreamWriter, "write_headers", closing)
        async with (
            listening(playing(http(b"fine"))) as peer,
            Session(peer.url, auth=AUTHS[auth](), **HASTY) as session,  # type: ignore[arg-type]
        ):
            text = exposed(await caught(session.call(CALL, body)))
        assert [secret for secret in secrets(peer) if secret in text] == []
        assert "x-signature: " not in text

    @pytest.mark.parametrize("auth", AUTHS)
    async def test_a_call_that_is_cut_off_shows_none(self, auth: str) -> None:
        """By a cancellation, by its session's end, or by its own reader."""
        async with listening(playing(None)) as peer:
            session = await Session(peer.url, auth=AUTHS[auth]()).__aenter__()
            tasks = [asyncio.create_task(session.call(CALL, body)) for _ in range(2)]
            while len([head for head in peer.requests if b"/v1/things" in head]) < len(tasks):  # noqa: ASYNC110 - the peer tells
                await asyncio.sleep(0)
            tasks[0].cancel()
            cancelled = await caught(tasks[0])
            await session.close()
            texts = [exposed(cancelled), exposed(await caught(tasks[1]))]
        async with listening(playing(http(b"fine"))) as other, Session(other.url, auth=AUTHS[auth]()) as session:
            texts.append(exposed(await caught(session.call(CALL, refused))))
        known = secrets(peer) | secrets(other)
        assert [secret for secret in known for text in texts if secret in text] == []


def test_an_error_keeps_the_frames_of_this_library_and_loses_those_of_the_packages_beneath() -> None:
    def asked() -> None:
        asyncio.run(caught(asyncio.sleep(0)))

    with pytest.raises(AssertionError) as found:
        asked()
    trim(found.value, None)
    frames = [
        frame.f_globals["__name__"].partition(".")[0] for frame, _ in traceback.walk_tb(found.value.__traceback__)
    ]
    assert set(frames) == {"test_secrecy"}
    assert len(frames) >= 2


def test_errors_that_refer_to_each_other_and_groups_are_trimmed_whole() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__context__ = second, first
    trim(ExceptionGroup("both", [first, second]), None)
    assert first.__traceback__ is None


def test_what_was_being_handled_already_is_somebody_elses_and_stays_as_it_is() -> None:
    try:
        URL("http://[")
    except ValueError as exc:
        theirs = exc
    frames = len(traceback.extract_tb(theirs.__traceback__))
    error = ValueError("ours")
    error.__context__ = theirs
    trim(error, theirs)
    assert len(traceback.extract_tb(theirs.__traceback__)) == frames > 1
    trim(error, None)
    assert len(traceback.extract_tb(theirs.__traceback__)) == 1


@pytest.mark.asyncio
async def test_a_call_leaves_the_traceback_of_what_its_caller_was_handling() -> None:
    """Two frames of it are of a package whose frames are left out of our own errors."""
    retry = RetryPolicy(attempts=2, first=0.001)
    async with Session(f"http://127.0.0.1:{free_port()}", auth=StaticToken(BEARER), retry=retry) as session:
        try:
            URL("http://[")
        except ValueError as exc:
            theirs, frames = exc, len(traceback.extract_tb(exc.__traceback__))
            with pytest.raises(InvoicingError):
                await session.call(CALL, body)
        assert len(traceback.extract_tb(theirs.__traceback__)) == frames > 1


class TestHidden:
    def test_it_is_used_as_any_text_and_shown_as_nothing(self) -> None:
        secret = Hidden("hush")
        assert (secret, f"{secret}", str(secret), secret.encode()) == ("hush", "hush", "hush", b"hush")
        assert repr([secret]) == "['***']"
        assert type(str(secret)) is str

    def test_it_can_be_pickled_and_copied(self) -> None:
        for found in (pickle.loads(pickle.dumps(Hidden("hush"))), copy(Hidden("hush"))):
            assert (found, repr(found)) == ("hush", "'***'")


WRONG: dict[str, object] = {
    "not UTF-8": "hush\udcff",
    "half a character": "hush\ud800",
    "line end": "hush\n",
    "carriage return": "hush\r\n",
    "in the middle": "hu\nsh",
    "blank": " hush",
    "tab": "hush\t",
    "control": "hu\x00sh",
    "bytes": b"hush",
    "list": ["hush"],
    "empty": "",
}

SECRET_FIELDS: tuple[tuple[type[Any], dict[str, object], str], ...] = (
    (HmacAuth, {"partner_client_id": "p", "secret_key": "k"}, "secret_key"),
    (HmacAuth, {"partner_client_id": "p", "secret_key": "k"}, "store_token"),
    (StaticToken, {}, "token"),
    (
        OAuthClientCredentials,
        {"client_id": "c", "client_secret": "s", "tenant_connection_code": "t"},
        "client_secret",
    ),
    (
        OAuthClientCredentials,
        {"client_id": "c", "client_secret": "s", "tenant_connection_code": "t"},
        "tenant_connection_code",
    ),
)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("kind", "others", "name"), SECRET_FIELDS, ids=[f"{row[0].__name__}.{row[2]}" for row in SECRET_FIELDS]
)
def test_a_secret_that_cannot_be_one_is_refused_where_it_is_made_and_not_shown(
    kind: type[Any], others: dict[str, object], name: str, wrong: str
) -> None:
    def made() -> None:
        kind(**{**others, name: WRONG[wrong]})

    with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{name} ") as found:
        made()
    text = exposed(found.value.with_traceback(found.value.__traceback__.tb_next if found.value.__traceback__ else None))
    assert not re.search("hu.{0,6}sh", text)


@pytest.mark.parametrize("secret", ["k", "a b", "p@ss/wörd", "密钥", "😀", "x" * 10_000, "=+/", "'\"\\"])
def test_any_other_text_is_a_secret(secret: str) -> None:
    auth = HmacAuth(partner_client_id="p", secret_key=secret)
    assert auth.secret_key == secret
    assert secret not in repr(auth) or len(secret) == 1
    assert auth.headers(CALL, base_path="", now=1.0)["x-signature"].startswith("sha256=")


def test_a_missing_argument_does_not_show_the_others() -> None:
    def made() -> None:
        HmacAuth(secret_key=KEY)  # type: ignore[call-arg] # that is the point

    with pytest.raises(TypeError, match="partner_client_id") as found:
        made()
    assert KEY not in exposed(found.value)


def test_a_subclass_that_refuses_in_its_own_way_is_quiet_too() -> None:
    @quiet
    class Picky:
        def __init__(self, secret: str) -> None:
            secret.encode("ascii")

    with pytest.raises(ValueError, match="can't encode") as found:
        Picky("hush\xe9")
    assert type(found.value) is ValueError
    assert found.value.__context__ is None
