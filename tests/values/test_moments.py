"""Moments as people read them: one form, in the zone of the machine."""

from __future__ import annotations

import sys
import time

import pytest

from invoicing_async._durable.records import Holder
from invoicing_async.cli.terminal.times import local_time
from invoicing_async.reports import moment_words

AT = 1_782_898_200.25
ZONES = [
    ("UTC", "2026-07-01 09:30:00 UTC"),
    ("Europe/Berlin", "2026-07-01 11:30:00 CEST (+0200)"),
    ("Asia/Ho_Chi_Minh", "2026-07-01 16:30:00 +0700"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="the zone of a process cannot be set there")
@pytest.mark.parametrize(("zone", "words"), ZONES)
def test_a_moment_is_written_alike_everywhere(zone: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command line, on a page, and of the process that holds a run."""
    with monkeypatch.context() as context:
        context.setenv("TZ", zone)
        time.tzset()
        said = [moment_words(AT), local_time(AT), str(Holder(7, "host", "2026-07-01T09:30:00+00:00"))]
        short = local_time(AT, short=True)
    time.tzset()
    assert said == [words, words, f"process 7 on host since {words}"]
    assert short == words.split()[1]
    assert moment_words(None) == local_time(None, short=True) == ""


@pytest.mark.parametrize("since", ["", "yesterday", "0001-01-01T00:00:00"])
def test_a_note_of_another_kind_is_shown_as_it_is(since: str) -> None:
    assert str(Holder(7, "host", since)).startswith("process 7 on host since ")
