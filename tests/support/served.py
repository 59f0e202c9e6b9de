"""Served sandboxes, and what the tests of the command line share."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from invoicing_async._einvoices.encode import dump_draft
from invoicing_async._files.pdf import PdfValidator
from invoicing_async.cli import serving
from invoicing_async.drafts import example_draft
from invoicing_async.sandbox import Faults, Sandbox, SandboxSettings

SECRETS = (
    "sk_sandbox_not_a_secret",
    "stkn_sandbox_not_a_secret",
    "sandbox-client-not-a-secret",
    "sandbox-token-not-a-secret",
)


Cli = Callable[..., tuple[int, str, str]]
"""Runs a command in this process: its exit code, stdout and stderr."""


@contextmanager
def serving_sandbox(sandbox: Sandbox) -> Iterator[dict[str, str]]:
    """Serve a sandbox from a thread of its own and give the settings that reach it."""
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), dict[str, str]()
    ended = asyncio.Event()

    async def serve() -> None:
        async with serving.served(sandbox) as where:
            found.update(serving.variables(sandbox, where))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


@contextmanager
def starting() -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes while the block runs; the environment then reaches the last one."""
    with pytest.MonkeyPatch.context() as context, ExitStack() as stack:

        def start(faults: Faults | None = None, **options: Any) -> Sandbox:
            sandbox = Sandbox(SandboxSettings(**options), faults=faults or Faults(polls_until_done=(1, 1)))
            for name, value in stack.enter_context(serving_sandbox(sandbox)).items():
                context.setenv(name, value)
            return sandbox

        yield start


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out what the machine sets. Where it names certificates, each session would read them all anew."""
    for name in os.environ.keys() - {"INVOICING_LEDGER_WAIVE"}:  # which is the tests' own
        if name.startswith(("INVOICING_", "SSL_CERT_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")


def command(*tokens: object) -> list[str]:
    return [sys.executable, "-m", "invoicing_async", *map(str, tokens)]


def write_ids(path: Path, count: int) -> Path:
    path.write_text("".join(f"order-{number}\n" for number in range(count)))
    return path


def write_drafts(path: Path, count: int) -> Path:
    path.write_text("".join(dump_draft(example_draft(number)) + "\n" for number in range(count)))
    return path


def aged(file: str | Path, seconds: float = 3600) -> None:
    """Let everything in a run file have been sent so much earlier: what was sent cannot arrive any more."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE items SET sent_at = sent_at - ?", (seconds,))


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def whole(path: Path) -> bool:
    checker = PdfValidator()
    checker.feed(path.read_bytes())
    return checker.fault() is None


@contextmanager
def signals(ready: Callable[[], bool], count: int) -> Iterator[None]:
    """Send this process SIGINT so many times, as soon as it is ready."""

    def send() -> None:
        for _ in range(4_000):
            if ready():
                break
            threading.Event().wait(0.005)
        for _ in range(count):
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.03)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
