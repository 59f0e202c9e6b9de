"""How a command ends while the service is down: at once when it is told to, and when its patience is over."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from forked import Forked, forked
from served import whole, write_drafts, write_ids

from invoicing_async.__main__ import main
from invoicing_async.cli.exits import Exit
from invoicing_async.policies import OutagePolicy
from invoicing_async.sandbox import Faults, Outage, Sandbox, TooManyRequests
from invoicing_async.session import _internals

pytestmark = pytest.mark.process

MANY = 60
PACE = ("--concurrency", 8, "-v")
DOWNLOAD = ("documents", "download", "ids", "--to", "out")
SUBMIT = ("invoices", "submit", "d.jsonl")
PAUSED = b"the service is down; calls wait"
SOON = 5.0
"""Seconds in which a process ends that waits for nothing; one that waits for turns would have its third by then."""


def until(ready: Callable[[], bool], running: Forked) -> None:
    for _ in range(4_000):
        if ready() or running.poll() is not None:
            break
        threading.Event().wait(0.005)
    assert ready(), running.said()


def working(sandbox: Sandbox) -> int:
    return sandbox.calls("submit") + sandbox.calls("document")


@pytest.fixture
def sandbox(services: Callable[..., Sandbox]) -> Sandbox:
    write_drafts(Path("d.jsonl"), MANY)
    write_ids(Path("ids"), MANY)
    return services(Faults(polls_until_done=(1, 1)), latency=0.01)


def shown() -> dict[str, int]:
    with forked("runs", "show", "run.db", "--json") as showing:
        counts: dict[str, int] = json.loads(showing.communicate(60)[0])["counts"]
    return {state: number for state, number in counts.items() if number}


def resumed(sandbox: Sandbox) -> None:
    """The run does the rest, now that the service is back: each once."""
    sandbox.inject()
    with forked("runs", "resume", "run.db", "--concurrency", 32) as running:
        running.communicate(60)
    assert running.returncode == Exit.DONE
    assert sum(shown().values()) == MANY
    assert len(sandbox.created) in {0, MANY}
    assert all(whole(path) for path in Path("out").glob("*"))


@pytest.mark.parametrize(
    ("tokens", "number"),
    [
        ((*DOWNLOAD, "--run", "run.db"), signal.SIGINT),
        ((*SUBMIT, "--run", "run.db"), signal.SIGTERM),
        (DOWNLOAD, signal.SIGTERM),
        (SUBMIT, signal.SIGINT),
    ],
    ids=lambda value: value.name if isinstance(value, signal.Signals) else "-".join(value[:2] + value[-2:]),
)
def test_a_batch_whose_lane_is_paused_ends_at_once_when_it_is_told_to(
    sandbox: Sandbox, tokens: tuple[object, ...], number: signal.Signals
) -> None:
    """Exit code 3, nothing in doubt, and it can be resumed: it does not wait for the service to come back."""
    with forked(*tokens, *PACE) as running:
        until(lambda: working(sandbox) >= 16, running)
        sandbox.inject(Outage())
        until(lambda: PAUSED in running.said()[1], running)
        running.send_signal(number)
        assert running.wait(SOON) == Exit.STOPPED
        said = running.said()[1]
    assert said.count(b"stopped before the end") == 1
    assert b"in doubt" not in said
    if "--run" in tokens:
        assert b"runs resume run.db" in said
        resumed(sandbox)


def test_a_pause_that_the_service_asked_for_ends_at_once_too(sandbox: Sandbox) -> None:
    """Retry-After of ten minutes: a command that is told to stop does not sit it out."""
    with forked(*DOWNLOAD, "--run", "run.db", *PACE) as running:
        until(lambda: working(sandbox) >= 16, running)
        sandbox.inject(TooManyRequests(600))
        before = working(sandbox)
        until(lambda: working(sandbox) > before, running)
        threading.Event().wait(0.1)
        running.send_signal(signal.SIGTERM)
        assert running.wait(SOON) == Exit.STOPPED
    resumed(sandbox)


def impatient(*tokens: str) -> None:
    """Run a command whose batches wait for one second while the service is down, where others wait for an hour."""
    vars(_internals)["OutagePolicy"] = partial(OutagePolicy, probe=0.2, patience=1.0)
    sys.argv = ["invoicing-async", *tokens]
    main()


@pytest.mark.parametrize("tokens", [DOWNLOAD, SUBMIT], ids=["documents", "invoices"])
def test_a_run_whose_patience_is_over_is_to_be_resumed(sandbox: Sandbox, tokens: tuple[str, ...]) -> None:
    """Exit code 3 as well, with the reason and how to go on; what is left was not sent and nothing is in doubt."""
    with Forked(impatient, *tokens, "--run", "run.db", *map(str, PACE)) as running:
        until(lambda: working(sandbox) >= 16, running)
        sandbox.inject(Outage())
        assert running.wait(20) == Exit.STOPPED
        said = running.said()[1]
    assert b"the service is down since " in said
    assert b"runs resume run.db" in said
    assert shown().keys() <= {"planned", "saved", "submitted", "not_sent"}
    resumed(sandbox)
