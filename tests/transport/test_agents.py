"""OpenTelemetry and Sentry see every attempt, below what it was made for, and the service is told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from places import SUPPORT

WORK = SUPPORT / "agents_work.py"
ATTEMPTS: dict[str, list[int | None]] = {
    "first": [200], "second": [503, 200], "submission": [200, 200], "refused": [None, None],
    "batch": [200, 200, 200, 503],
}  # fmt: skip
"""The statuses of the attempts below each root. A submission's first call is that for its token; one finds nobody."""
SPANS = {"opentelemetry": "POST", "sentry": "http.client"}


@pytest.fixture(
    scope="module",
    params=[("opentelemetry", "already"), ("sentry", "later")],
    ids=lambda param: param[0],
)
def watched(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What an agent saw of some calls, in a process of its own, where warnings are errors too."""
    agent, when = request.param
    command = [sys.executable, "-W", "error", str(WORK), agent, when]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "agent": agent}


def statuses(watched: dict[str, Any], root: str) -> list[int | None]:
    """What an agent is to see; Sentry ends no span of aiohttp's that had no answer, and so reports none."""
    return [status for status in ATTEMPTS[root] if status is not None or watched["agent"] != "sentry"]


def attempts_below(watched: dict[str, Any], root: str) -> list[tuple[str, dict[str, Any]]]:
    spans = watched["spans"]
    (above,) = (number for number, span in spans.items() if span["name"] == root)
    return [(number, span) for number, span in spans.items() if span["parent"] == above]


@pytest.mark.parametrize("root", ATTEMPTS)
def test_every_attempt_is_a_span_below_what_it_was_made_for(watched: dict[str, Any], root: str) -> None:
    below = [span for _, span in attempts_below(watched, root)]
    found = [span["status"] for span in below]
    assert (sorted(found) if root == "batch" else found) == statuses(watched, root)
    assert all(span["name"] == SPANS[watched["agent"]] for span in below)


def test_nothing_else_is_a_span(watched: dict[str, Any]) -> None:
    assert len(watched["spans"]) == len(ATTEMPTS) + sum(len(statuses(watched, root)) for root in ATTEMPTS)


def test_every_request_names_its_own_span_to_the_service(watched: dict[str, Any]) -> None:
    """`traceparent` or `sentry-trace`: another one for each attempt, within the trace of its root."""
    told = [tuple(seen["header"].split("-")) for seen in watched["seen"]]
    answered = [root for root, expected in ATTEMPTS.items() if None not in expected]
    spans = {(span["trace"], number) for root in answered for number, span in attempts_below(watched, root)}
    place = 1 if watched["agent"] == "opentelemetry" else 0
    assert len(told) == len(spans)
    assert {parts[place : place + 2] for parts in told} == spans
