"""Nothing of a body beyond its first 200 bytes, and no header, reaches an error, its history, its causes or a log."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from leaks import shown
from peers import Connection, Peer, listening

from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    OAuthClientCredentials,
    OrderDocuments,
    Poller,
    RetryPolicy,
    Session,
    StaticToken,
    Timeouts,
)
from invoicing_async._core.answers import words_of
from invoicing_async._values.text import MESSAGE_LIMIT
from invoicing_async.drafts import example_draft as example
from invoicing_async.errors import HEAD_LIMIT, InvoicingError

MARK = "SECRETBODY"
FILL = "x" * HEAD_LIMIT
PDF = b"%PDF-1.7\n% " + FILL.encode()
LONG = MARK * 8_000


def head(*lines: str, kind: str = "application/pdf", status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", *lines, "", ""]).encode("latin-1")


def whole(body: bytes | str, kind: str = "application/pdf", status: str = "200 OK", *lines: str) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    return head(f"Content-Length: {len(raw)}", *lines, kind=kind, status=status) + raw


def chunks(*pieces: bytes) -> bytes:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head("Transfer-Encoding: chunked") + framed


JSON = "application/json"
# Not in it: what a service says in words, and the ids that it names; those are found wherever they stand, and bounded.
ANSWERS: dict[str, bytes] = {
    "a junk byte of a length": head(f"Content-Length: {len(PDF)}") + PDF + LONG.encode(),
    "a bad chunk size": chunks(PDF) + f"{LONG}\r\n".encode(),
    "a chunk longer than its size": head("Transfer-Encoding: chunked") + b"5\r\n" + PDF + LONG.encode(),
    "a PDF cut off": head("Content-Length: 999999") + PDF + LONG.encode(),
    "no PDF": whole(f"<html>{FILL}{LONG}"),
    "a PDF without an end": whole(PDF + LONG.encode()),
    "another type": whole(FILL + LONG, kind="text/plain"),
    "a long type": whole("x", kind="text/" + "x" * HEAD_LIMIT + LONG[:60_000]),
    "a long coding": whole("x", JSON, "200 OK", "Content-Encoding: " + "x" * HEAD_LIMIT + LONG[:60_000]),
    "a long id of the call": whole(PDF, JSON, "200 OK", "X-Request-Id: " + "x" * HEAD_LIMIT + LONG[:60_000]),
    "a long reason": whole("{}", status=f"400 {FILL}{LONG[:60_000]}"),
    "a field without a colon": head(LONG[:60_000], "Content-Length: x"),
    "a line too long": head(f"X: {LONG}"),
    "a status line that is none": f"HTTP/1.1 abc {LONG[:60_000]}\r\n\r\n".encode(),
    "no HTTP": f"SSH-2.0-{FILL}{LONG[:60_000]}\r\n\r\n".encode(),
    "broken JSON": whole(f'{{"request_id": "{FILL}", {LONG}', JSON),
    "broken JSON of an error": whole(f'{{"success": "{FILL}", {LONG}', JSON, "422 No"),
    "another shape": whole(json.dumps({"a": FILL, LONG: 1, "b": [LONG], "status": 7}), JSON),
    "a status twice": whole(f'{{"a": "{FILL}", "status": "{LONG}", "status": "NEW"}}', JSON),
    "data of another shape": whole(json.dumps({"a": FILL, "status": "SUCCESS", "data": {"id": LONG}}), JSON),
    "a page": whole(f"<html>{FILL}<p>{LONG}", "text/html", "500 Oops"),
    "plain text": whole(FILL + LONG, "text/plain", "502 Bad"),
    "plain text in lines": whole("a\n" * HEAD_LIMIT + LONG, "text/plain", "404 No"),
    "gzip that is damaged": whole(gzip.compress((FILL + LONG).encode())[:60], JSON, "200 OK", "Content-Encoding: gzip"),
    "gzip of a page": whole(gzip.compress((FILL + LONG).encode()), JSON, "500 Oops", "Content-Encoding: gzip"),
}

AUTH = HmacAuth(partner_client_id="p", secret_key="k", store_client_id="s", store_token="t")
OAUTH = OAuthClientCredentials(client_id="c", client_secret="s", tenant_connection_code="t")
ID = "11111111-2222-4333-8444-000000000001"


async def download(session: Session, folder: Path) -> None:
    await OrderDocuments(session).download("a", folder)


async def passed_through(session: Session, folder: Path) -> None:
    async with OrderDocuments(session).open("a") as document:
        _ = [chunk async for chunk in document.chunks]


async def submit(session: Session, folder: Path) -> None:
    await AsyncInvoices(session).submit(example(1))


async def status(session: Session, folder: Path) -> None:
    await AsyncInvoices(session).wait(ID, poller=Poller(timeout=0.001))


async def export(session: Session, folder: Path) -> None:
    await AsyncInvoices(session).export(ID, folder, poller=Poller(timeout=0.001))


CALLS: dict[str, tuple[Any, Callable[[Session, Path], Coroutine[Any, Any, None]]]] = {
    "download": (AUTH, download),
    "open": (AUTH, passed_through),
    "submit": (StaticToken("t"), submit),
    "wait": (StaticToken("t"), status),
    "export": (StaticToken("t"), export),
    "token": (OAUTH, submit),
}


async def failed(answer: bytes, name: str, folder: Path) -> BaseException | None:
    async def play(connection: Connection, peer: Peer) -> None:
        await connection.request()
        await connection.say(answer)

    auth, call = CALLS[name]
    retry = RetryPolicy(attempts=1, deadline=5)
    async with (
        listening(play) as peer,
        Session(peer.url, auth=auth, retry=retry, timeouts=Timeouts(read=1)) as session,
    ):
        try:
            await call(session, folder)
        except InvoicingError as error:
            return error
    return None


@pytest.mark.usefixtures("both_paths")
@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("name", CALLS)
def test_no_error_holds_more_of_an_answer_than_its_start(
    loop: Any, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    failures = 0
    for what, answer in ANSWERS.items():
        error = loop(failed(answer, name, tmp_path))
        if error is None:
            continue
        failures += 1
        assert MARK not in shown(error), what
        for text in (str(error), *(attempt.error for attempt in error.attempts)):
            assert text.isprintable(), what
            assert len(text) <= MESSAGE_LIMIT + HEAD_LIMIT, what
    assert failures >= len(ANSWERS) - 3
    assert MARK not in caplog.text


def test_of_plain_text_only_its_start_is_taken_for_words() -> None:
    assert words_of(None, b"upstream \n\n timed\tout") == "upstream timed out"
    assert words_of(None, b"a" * 500) == "a" * HEAD_LIMIT
    assert words_of(None, ("ợ" * 500).encode()) == "ợ" * (HEAD_LIMIT // 3)
