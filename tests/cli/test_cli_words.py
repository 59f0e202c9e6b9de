"""The words of what did not end well: the same with a run file and without, each thing once, nothing of them lost."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from served import Cli, write_drafts, write_ids

from invoicing_async._core.error_words import words_of
from invoicing_async.cli.terminal.output import LONGEST, Output, shortened
from invoicing_async.errors import SubmissionInDoubtError, TransportError
from invoicing_async.sandbox import Faults, Sandbox

CLASS = re.compile(r"\b[A-Z]\w+Error: ")


def test_a_deferred_order_is_told_alike_with_a_run_and_without(services: Callable[..., Sandbox], cli: Cli) -> None:
    services(Faults(not_eligible_share=1.0, unavailable_share=0.0), latency=0.0)
    write_ids(Path("ids.txt"), 1)
    told = set()
    for more in ((), ("--run", "d.db")):
        out = cli("documents", "download", "ids.txt", "--to", "o", *more)[1]
        line = next(line for line in out.splitlines() if line.startswith("   deferred  order-0"))
        told.add(re.sub(r"request [\w-]+", "request R", line))
    [line] = told
    assert ("ORDER_021" in line, "request R" in line, CLASS.search(line)) == (True, True, None)
    assert not CLASS.search(cli("runs", "show", "d.db", "--items")[1])


def test_a_doubt_names_its_key_once(services: Callable[..., Sandbox], cli: Cli) -> None:
    """In the line that lists it; commands to copy name it too."""
    services(Faults(lost_share=1.0))
    write_drafts(Path("d.jsonl"), 1)
    out = cli("invoices", "submit", "d.jsonl", "--run", "i.db")[1] + cli("runs", "show", "i.db", "--items")[1]
    out += cli("invoices", "submit", "d.jsonl")[1]
    lines = [line for line in out.splitlines() if "may or may not" in line]
    assert len(lines) >= 3
    assert [line for line in lines if line.count("ORDER-0000") > 1 or CLASS.search(line)] == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TransportError("cut"), "cut"),
        (TransportError(), "TransportError"),
        (KeyboardInterrupt(), "interrupted"),
        (SubmissionInDoubtError("invoice 'K' may or may not have been created: cut", key="K"), "may or may not have"),
        (SubmissionInDoubtError("invoice 'K' may or may not", key="L"), "invoice 'K' may"),
    ],
)
def test_an_error_is_said_without_what_stands_beside_it(error: BaseException, words: str) -> None:
    assert words_of(error).startswith(words)


def test_a_line_is_never_cut_where_the_ids_are() -> None:
    """However narrow the terminal; what is very long loses its middle. In a pipe it is whole."""
    long = f"  deferred  {'x ' * 1000}(ORDER_021, HTTP 409, request 7)"
    assert (shortened(long).endswith("request 7)"), len(shortened(long))) == (True, LONGEST + 2)
    for is_terminal, text in ((True, shortened(long)), (False, long)):
        out = Console(file=io.StringIO(), force_terminal=is_terminal, width=40, color_system=None, highlight=False)
        Output(out=out, err=out).amiss(long)
        assert isinstance(out.file, io.StringIO)
        assert out.file.getvalue() == f"{text}\n"
