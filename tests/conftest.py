"""What every test gets: the guard against any connection that leaves loopback, and the fixtures of `fakes`."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Generator, Iterator
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fakes import FakeClock
from hypothesis import HealthCheck, settings
from lines_checked import check_lines
from served import Cli, clean, starting
from short_form import SHORT

from invoicing_async.cli.app import run
from invoicing_async.cli.commands import invoices, runs, worker
from invoicing_async.polling import Poller
from invoicing_async.sandbox import Sandbox

pytest_plugins = [
    "pytester",
    "invoicing_async.testing.plugin",
    "postgres_server",
    "pgbouncer",
    "ledger_places",
    "worker_runs",
]
"""The second is on its entry point too where the package was installed with it; once is enough. Each one stands before
those that import it, so that its assertions say what they compare."""

# How long an example takes says more of the machine, which may have other things to do, than of the code.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("short", settings.get_profile("shared machine"), max_examples=25)
settings.load_profile("short" if SHORT else "shared machine")

BATCHES = frozenset(
    f"test_{name}"
    for name in (
        "attempts",
        "auth",
        "batch",
        "bounds",
        "closing",
        "crashes",
        "credential_watch",
        "document_run",
        "documents",
        "download_many",
        "intents",
        "invoices",
        "opening",
        "poll_errors",
        "poll_scheduler",
        "polling",
        "ramp",
        "repair",
        "runs",
        "runs_on_sockets",
        "saving",
        "secrecy",
        "session",
        "stored_drafts",
        "streams",
        "submission_fates",
        "submit_one",
        "transitions_contract",
        "waiting",
        "writer",
    )
)
"""The tests of what runs side by side: `-m batches`, for a run with other tasks or another loop."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of batches."""
    for item in items:
        if item.path.stem in BATCHES:
            item.add_marker("batches")


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Send the first process a report without what a test may be chosen by: it is most of it, and never looked at."""
    data = yield
    if data and data.get("outcome") == "passed":
        data["keywords"] = {}
    return data


def pytest_collection_finish() -> None:
    """Leave what was collected out of each collection of garbage: there are ten thousand tests, and it stays."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--eager-tasks` runs every loop of the tests with eager tasks (Python 3.12 and later)."""
    parser.addoption("--eager-tasks", action="store_true", help="give every event loop asyncio's eager task factory")


def pytest_configure(config: pytest.Config) -> None:
    """Give every loop eager tasks where they are asked for."""
    if not config.getoption("--eager-tasks"):
        return
    factory = getattr(asyncio, "eager_task_factory", None)
    if factory is None:
        raise pytest.UsageError("--eager-tasks needs Python 3.12 or later")
    loop: Any = asyncio.BaseEventLoop
    made = loop.__init__

    def eager(self: asyncio.BaseEventLoop) -> None:
        made(self)
        self.set_task_factory(factory)

    loop.__init__ = eager


class LeftLoopbackError(AssertionError):
    """A test tried to reach another machine."""


@pytest.fixture(scope="session", autouse=True)
def only_loopback() -> Iterator[None]:
    """Refuse every connection and look-up that is not for this machine."""
    real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

    def guarded(name: str) -> Any:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in {socket.AF_INET, socket.AF_INET6} and not ip_address(address[0]).is_loopback:
                raise LeftLoopbackError(f"a test must not connect to {address!r}")
            return real[name](self, address)

        return connect

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in {"localhost", "127.0.0.1", "::1", None}:
            raise LeftLoopbackError(f"a test must not look up {host!r}")
        return found(host, *args, **kwargs)

    found = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(socket.socket, name, guarded(name))
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture(params=["direct", "client"])
def both_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test on either path to the wire: an agent that watches aiohttp's client puts everything on the second."""
    path: str = request.param
    if path == "client":
        watched: Any = aiohttp.ClientSession._request

        async def watching(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> aiohttp.ClientResponse:
            answer: aiohttp.ClientResponse = await watched(self, *args, **kwargs)
            return answer

        monkeypatch.setattr(aiohttp.ClientSession, "_request", watching)
    return path


@pytest.fixture
def clock() -> FakeClock:
    """A clock that moves only when something sleeps on it."""
    return FakeClock()


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """Start sandboxes; the environment then reaches the last one, and the working folder is a new one."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for command in (invoices, runs, worker):
        monkeypatch.setattr(command, "Poller", partial(Poller, first=0.05))  # what is done is done at once here
    with starting() as start:
        yield start


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take what may be set for the command line out of the environment."""
    clean(monkeypatch)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command in this process and give its exit code, stdout and stderr; JSON lines are as their schema says."""

    def call(*tokens: object) -> tuple[int, str, str]:
        words = [str(token) for token in tokens]
        code = run(words)
        out, err = capsys.readouterr()
        check_lines(words, out)
        return code, out, err

    return call


@pytest.fixture
def collected() -> Iterator[None]:
    """Collect garbage at the end, so that a warning about something left open belongs to its own test."""
    yield
    gc.collect()


@pytest.fixture
def logging_is_as_it_was() -> Iterator[None]:
    """Litestar sets the level and the handler of the root logger when an application is made."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    for handler in {*root.handlers} - {*handlers}:
        root.removeHandler(handler)
