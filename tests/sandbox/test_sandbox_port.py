"""The sandbox on a real port speaks HTTP/1.1, and its faults are on the wire what they say, byte for byte."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime

import pytest
import trustme
from attrs import evolve
from fakes import START, FakeClock
from sandbox_requests import signed, submission

from invoicing_async._core.http import Request
from invoicing_async.sandbox import Answer, Fault, Operation, Outage, Sandbox

BASE_PATH = "/api/v1"
PATIENCE = 5.0


@asynccontextmanager
async def served(*texts: str, clock: FakeClock | None = None) -> AsyncIterator[tuple[Sandbox, int]]:
    """A sandbox with these faults on a port, whose time a test turns."""
    sandbox = Sandbox(clock=clock or FakeClock(), inject=map(Fault.parse, texts))
    async with sandbox.serve(base_path=BASE_PATH) as url:
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/api/v1", url)
        assert found is not None
        yield sandbox, int(found[1])


def raw(request: Request, *, version: str = "HTTP/1.1", body: bytes | None = None, **headers: str) -> bytes:
    """The bytes of a request as they are sent."""
    sent = request.body if body is None else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    given = {"Host": "there.test", "Content-Length": str(len(sent)), **request.headers, **named}
    lines = [f"{request.method} {BASE_PATH}{request.target} {version}"]
    lines += [f"{name}: {value}" for name, value in given.items() if value]
    return "\r\n".join([*lines, "", ""]).encode() + sent


async def said(port: int, sent: bytes) -> tuple[bytes, bytes, bool]:
    """Send bytes and read until the connection ends: the head, the rest, and whether it ended by a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    got = b""
    reset = False
    try:
        async with asyncio.timeout(PATIENCE):
            while chunk := await reader.read(65_536):
                got += chunk
    except ConnectionResetError:
        reset = True
    finally:
        writer.close()
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest, reset


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if holds():
                return
            await asyncio.sleep(0)


async def soon(port: int, *, refused: bool) -> None:
    """Wait until connections to the port are refused, or are not."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                if refused:
                    return
            except ConnectionResetError:
                pass  # nobody had accepted it when the port was closed
            else:
                writer.close()
                if not refused:
                    return
            await asyncio.sleep(0)


def length_of(head: bytes) -> int:
    found = re.search(rb"Content-Length: (\d+)", head)
    assert found is not None
    return int(found[1])


class TestHttp:
    @pytest.mark.asyncio
    async def test_a_connection_carries_one_request_after_another(self) -> None:
        """Each answer has its length and a date, and the connection stays."""
        async with served() as (sandbox, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(3):
                writer.write(raw(signed(sandbox)))
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"Date: Wed, 17 Sep 2025 09:12:30 GMT\r\n" in head
                body = await reader.readexactly(length_of(head))
                assert body.startswith(b"%PDF-")
            writer.close()

    @pytest.mark.asyncio
    @pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
    async def test_who_says_so_gets_one_answer(self, version: str) -> None:
        """By `Connection: close`, or an older HTTP."""
        async with served() as (sandbox, port):
            close = "close" if version == "HTTP/1.1" else ""
            head, body, reset = await said(port, raw(signed(sandbox), version=version, Connection=close))
            assert (length_of(head), reset) == (len(body), False)

    @pytest.mark.asyncio
    async def test_a_body_may_come_in_chunks_and_after_an_invitation(self) -> None:
        """Both are what other clients send."""
        async with served() as (sandbox, port):
            request = submission(sandbox)
            half = len(request.body) // 2
            parts = (request.body[:half], request.body[half:], b"")
            chunks = b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts)
            sent = raw(
                request,
                body=chunks,
                Expect="100-continue",
                Connection="close",
                Content_Length="",
                Transfer_Encoding="chunked",
            )
            head, rest, _ = await said(port, sent)
            assert head == b"HTTP/1.1 100 Continue"
            assert rest.startswith(b"HTTP/1.1 200 OK")
            (made,) = sandbox.created.values()
            assert made.body == request.body

    @pytest.mark.asyncio
    async def test_other_paths_and_methods_are_told(self) -> None:
        """404 outside the base path, 405 for another method; HEAD has no body."""
        async with served() as (sandbox, port):
            outside = b"POST /elsewhere HTTP/1.1\r\nConnection: close\r\n\r\n"
            assert (await said(port, outside))[0].startswith(b"HTTP/1.1 404")
            request = evolve(signed(sandbox), method="HEAD")
            head, body, _ = await said(port, raw(request, Connection="close"))
            assert (head[:12], body) == (b"HTTP/1.1 405", b"")

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "sent", [b"nonsense\r\n\r\n", b"POST /x HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"x" * 99_999]
    )
    async def test_what_is_not_http_ends_the_connection(self, sent: bytes) -> None:
        async with served() as (_, port):
            assert (await said(port, sent))[0] == b""

    @pytest.mark.asyncio
    async def test_a_taken_port_is_refused(self) -> None:
        async with served() as (sandbox, port):
            with pytest.raises(OSError, match="in use"):
                async with sandbox.serve(port=port):
                    pass

    @pytest.mark.asyncio
    async def test_tls_is_served_and_reset_as_well(self) -> None:
        """A handshake that fails leaves nothing either."""
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        there, here = (ssl.create_default_context(side) for side in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH))
        authority.issue_cert("127.0.0.1").configure_cert(there)
        authority.configure_trust(here)
        sandbox = Sandbox(clock=FakeClock())
        async with sandbox.serve(base_path=BASE_PATH, ssl=there) as url:
            port = int(url.split(":")[2].split("/")[0])
            assert url.startswith("https://")
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
            for text, heads in (("drip:0", True), ("reset:before-head", False)):
                sandbox.inject(Fault.parse(text))
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=here)
                writer.write(raw(signed(sandbox), Connection="close"))
                with suppress(ConnectionResetError):
                    assert (await reader.read(8) == b"HTTP/1.1") is heads
                writer.transport.abort()

    @pytest.mark.asyncio
    async def test_who_leaves_gives_back_its_place(self) -> None:
        """A request is cancelled when its client is gone."""
        async with served("hang") as (sandbox, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw(signed(sandbox)))
            await until(lambda: sandbox.in_flight == 1)
            writer.close()
            await until(lambda: sandbox.in_flight == 0)

    @pytest.mark.asyncio
    async def test_nothing_is_left_when_it_ends(self) -> None:
        """Neither a task nor a connection that hangs."""
        before = asyncio.all_tasks()
        async with served("hang:at=3") as (sandbox, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw(signed(sandbox)))
            await reader.readuntil(b"\r\n\r\n")
        assert asyncio.all_tasks() == before
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(4)
        writer.close()


class TestWire:
    @pytest.mark.asyncio
    @pytest.mark.parametrize("at", [0, 1, 1000])
    async def test_truncation_closes_after_so_many_bytes(self, at: int) -> None:
        """In good order, with a head that counts more."""
        async with served(f"truncate:{at}") as (sandbox, port):
            head, body, reset = await said(port, raw(signed(sandbox)))
            assert (len(body), reset) == (at, False)
            assert length_of(head) > at
            assert dict(sandbox.injected[Fault.parse(f"truncate:{at}")]) == {"truncated": 1}

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        ("stage", "heads", "length"),
        [("before-work", False, 0), ("before-head", False, 0), ("after-head", True, 0), ("in-body,at=500", True, 500)],
    )
    async def test_a_reset_is_one_at_every_stage(self, stage: str, heads: bool, length: int) -> None:  # noqa: FBT001
        """What came before it arrived, and then the connection is reset, not closed."""
        async with served(f"reset:{stage}") as (sandbox, port):
            head, body, reset = await said(port, raw(signed(sandbox)))
            assert (head.startswith(b"HTTP/1.1 200"), len(body), reset) == (heads, length, True)

    @pytest.mark.asyncio
    async def test_a_lost_answer_is_a_closed_connection(self) -> None:
        async with served("lost") as (sandbox, port):
            assert await said(port, raw(submission(sandbox))) == (b"", b"", False)
            assert len(sandbox.created) == 1

    @pytest.mark.asyncio
    async def test_a_body_without_an_end_lacks_the_last_chunk(self) -> None:
        """Every byte of the document is there, in chunks."""
        async with served("unended") as (sandbox, port):
            head, body, reset = await said(port, raw(signed(sandbox)))
            assert b"Transfer-Encoding: chunked" in head
            assert b"Content-Length" not in head
            assert body.rstrip().endswith(b"%%EOF")
            assert not body.endswith(b"0\r\n\r\n")
            assert not reset

    @pytest.mark.asyncio
    async def test_a_chunked_body_ends_where_no_fault_is(self) -> None:
        """An older HTTP gets it plain, with the end of the connection."""
        async with served() as (sandbox, port):
            request = evolve(signed(sandbox), path="/partner/stores/orders/x/documents/invoice")
            sandbox.script(Operation.DOCUMENT, [Answer(body=b"plain")] * 2)
            _, body, _ = await said(port, raw(request, Connection="close"))
            assert body == b"5\r\nplain\r\n0\r\n\r\n"
            assert (await said(port, raw(request, version="HTTP/1.0")))[1] == b"plain"

    @pytest.mark.asyncio
    async def test_a_drip_arrives_in_pieces(self) -> None:
        """Each is on its way before the next is waited for."""
        clock = FakeClock(auto=False)
        async with served("drip:1,size=100", clock=clock) as (sandbox, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw(signed(sandbox)))
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(3):
                await until(lambda: clock.sleeping > 0)
                clock.advance(1)
                async with asyncio.timeout(PATIENCE):
                    assert len(await reader.read(9_999)) == 100
            writer.close()

    @pytest.mark.asyncio
    async def test_a_clock_that_is_off_shows_in_the_date(self) -> None:
        async with served("skew:-600") as (sandbox, port):
            head, _, _ = await said(port, raw(signed(sandbox), Connection="close"))
            shown = re.search(rb"Date: ([^\r]*)", head)
            assert head.startswith(b"HTTP/1.1 401")
            assert shown is not None
            assert parsedate_to_datetime(shown[1].decode()).timestamp() == START - 600
            assert head.count(b"Date:") == 1


class TestRefused:
    @pytest.mark.asyncio
    async def test_connections_are_refused_while_it_lasts_and_the_port_stays_the_same(self) -> None:
        """Nobody listens; what was connected is reset."""
        clock = FakeClock(auto=False)
        async with served("outage:start=20,length=20,answer=refused", clock=clock) as (sandbox, port):
            await soon(port, refused=False)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw(signed(sandbox)))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(length_of(head))
            clock.advance(20)
            await soon(port, refused=True)
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
            writer.close()
            clock.advance(20)
            await soon(port, refused=False)
            (counts,) = sandbox.injected.values()
            assert counts["closed"] == 1
            assert counts["cut"] >= 1

    @pytest.mark.asyncio
    async def test_an_outage_may_be_injected_and_ended_on_the_way(self) -> None:
        async with served() as (sandbox, port):
            for _ in range(3):
                sandbox.inject(Outage(answer="refused"))
                await soon(port, refused=True)
                sandbox.inject()
                await soon(port, refused=False)

    @pytest.mark.asyncio
    async def test_a_port_may_be_refused_from_its_beginning(self) -> None:
        async with served("outage:answer=refused") as (_, port):
            await soon(port, refused=True)
