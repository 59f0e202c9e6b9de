"""Processes for `test_network_cut`: a service that notes what arrives, and clients that give a submission up.

`python network_work.py service CERTIFICATE` and `python network_work.py client URL KEY END FLAVOUR CERTIFICATE`.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
from contextlib import suppress
from decimal import Decimal
from typing import Any

from invoicing_async._transport import connections, pooled
from invoicing_async._transport.client import AiohttpTransport
from invoicing_async.auth import StaticToken
from invoicing_async.errors import SubmissionInDoubtError
from invoicing_async.invoices import AsyncInvoices
from invoicing_async.models import InvoiceDraft, InvoiceLine
from invoicing_async.policies import Timeouts
from invoicing_async.session import Session

ADDRESS = "10.77.0.2"
PORTS = {"http": 8080, "https": 8443}
TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
REQUEST_ID = "11111111-2222-4333-8444-000000000001"
GIVEN_UP = 1.5
"""Seconds after which a client gives up."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def told() -> None:
    """Wait for a word of whoever started this process."""
    await asyncio.to_thread(sys.stdin.readline)


# -- the service -----------------------------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Note each whole request and answer it."""
    body = f'{{"request_id": "{REQUEST_ID}", "status": "NEW"}}'
    with suppress(ConnectionError, asyncio.IncompleteReadError, OSError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            got = await reader.readexactly(int(length[1]) if length else 0)
            name = re.search(rb'"name": ?"([^"]+)"', got)
            say(f"arrived {name[1].decode() if name else '?'}")
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            await writer.drain()
    writer.close()


async def serve(certificate: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    await asyncio.start_server(answer, ADDRESS, PORTS["http"])
    await asyncio.start_server(answer, ADDRESS, PORTS["https"], ssl=context)
    say("ready")
    await asyncio.Event().wait()


# -- a client --------------------------------------------------------------------------------------------------------


def draft(key: str) -> InvoiceDraft:
    line = InvoiceLine(name=key, unit="piece", price=Decimal("9.90"), quantity=Decimal(1))
    return InvoiceDraft(key=key, invoice_template_id=TEMPLATE, lines=(line,))


def plain(address: Any, *, seconds: float) -> socket.socket:
    """Make a socket as any program does."""
    return socket.socket(*address[:3])


async def give_up(url: str, key: str, end: str, certificate: str) -> None:
    """Submit over a good connection, then into the cut, and give that up in the way that is asked for."""
    timeouts = Timeouts(connect=5, read=60, attempt=GIVEN_UP if end == "time-out" else 60)
    trust = ssl.create_default_context(cafile=certificate)
    transport = AiohttpTransport(timeouts=timeouts, ssl=trust)
    async with Session(url, auth=StaticToken("not-a-secret"), transport=transport, timeouts=timeouts) as session:
        invoices = AsyncInvoices(session)
        say("ready")
        await told()
        await invoices.submit(draft(f"{key} before"))
        say("warm")
        await told()
        try:
            async with asyncio.timeout(GIVEN_UP if end == "cancellation" else None):
                await invoices.submit(draft(key))
        except SubmissionInDoubtError:
            say("in doubt")
        except TimeoutError:
            say("cancelled")
        # Whatever ends the connection, it is not the end of this process.
        await told()
        await transport.close()


def run(url: str, key: str, end: str, flavour: str, certificate: str) -> None:
    if flavour == "plain":
        vars(connections)["make"] = plain
    if flavour == "client":
        vars(pooled)["_PRISTINE"] = None  # as if an agent watched aiohttp's client
    if flavour == "uvloop":
        import uvloop

        uvloop.run(give_up(url, key, end, certificate))
    else:
        asyncio.run(give_up(url, key, end, certificate))


if __name__ == "__main__":
    if sys.argv[1] == "service":
        asyncio.run(serve(sys.argv[2]))
    else:
        run(*sys.argv[2:])
