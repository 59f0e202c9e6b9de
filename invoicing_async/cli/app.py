"""The command `invoicing-async`: its commands, and how each one ends."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

from cyclopts import App, CycloptsError

from ..errors import InvoicingError
from . import demo, doctor, documents, invoices, repair, runs, sandbox, sign
from .exits import CommandError, Exit
from .options import Common
from .screen import Screen, complain, readable, stderr, unheard

__all__ = ["app", "run"]

app = App(
    name="invoicing-async",
    help="Order invoices as PDFs and e-invoices by the batch: never lost, never sent twice, never half-written.",
    version=partial(version, "invoicing-async"),
    result_action="return_value",
)
for _part in (demo, sandbox, sign, doctor):
    _part.add_to(app)
app.command(documents.app)
app.command(invoices.app)
repair.add_to(runs.app)
app.command(runs.app)


def run(tokens: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    readable()
    try:
        return _run(tokens)
    except CycloptsError as error:
        complain(stderr(), str(error), "`--help` shows what there is.")
        return Exit.USAGE
    except CommandError as error:
        return _told(error, error.code, tokens)
    except BrokenPipeError:
        # What Python flushes at its end goes nowhere: the reader of stdout has left.
        unheard()
        return Exit.STOPPED
    except (InvoicingError, OSError) as error:
        return _told(error, Exit.SOME_LEFT, tokens)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return Exit.INTERRUPTED


def _run(tokens: Sequence[str]) -> int:
    command, bound, _ = app.parse_args(list(tokens), print_error=False, exit_on_error=False)
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            result = runner.run(result)
    return Exit(result or 0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Take uvloop when it is there (extra `speed`)."""
    if find_spec("uvloop") is None:
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _told(error: Exception, code: Exit, tokens: Sequence[str]) -> int:
    Screen.of(Common(debug="--debug" in tokens)).failure(error)
    return code
