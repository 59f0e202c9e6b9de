"""The command `invoicing-async`: its commands, and how each one ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from cyclopts import App, CycloptsError

from .. import VERSION
from ..errors import InvoicingError
from .examples import show_examples
from .exits import CommandError, Exit, is_usage
from .input.options import Common
from .logs import end_logging
from .terminal.output import Output, print_error, readable, silence_stdout, stderr
from .usage import explain

if TYPE_CHECKING:
    import asyncio

__all__ = ["COMMANDS", "app", "run"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "completion": (
        "machine:completion",
        "Print what completes commands and options in a shell; nothing is installed.",
    ),
    "demo": (
        "demo:demo",
        "Download invoices and settle e-invoices against both services in miniature. No key, no network.",
    ),
    "doctor": (
        "doctor:doctor",
        "Check the settings, say where each came from, and never a secret. Exit code 1 if something would not work.",
    ),
    "documents": ("documents:app", "The invoices of marketplace orders as PDFs."),
    "invoices": ("invoices:app", "E-invoices: submit drafts, wait for their end."),
    "ledger": ("ledger:app", "The tables in a PostgreSQL database that runs of many machines are kept in."),
    "runs": (
        "runs:app",
        "Runs: what `documents download --run` and `invoices submit --run` keep, and how to go on with it.",
    ),
    "sandbox": (
        "sandbox:sandbox",
        "Serve both services in miniature until Ctrl-C; their settings are printed, for a shell or --env-file.",
    ),
    "schema": ("machine:schema", "Print the JSON Schema (draft 2020-12) of the lines that commands print with --json."),
    "sign": ("sign:sign", "Print every stage of a signature, secrets masked; nothing is sent."),
    "worker": (
        "worker:worker",
        "Work on a run on a database server, beside any number of others; SIGTERM lets what is in flight finish.",
    ),
}
"""Where each command is, and what it does. A command's module is imported when it is the one that was given."""

app: App = App(
    name="invoicing-async",
    help="Order invoices as PDFs and e-invoices by the batch: never lost, never sent twice, never half-written.",
    version=VERSION,
    result_action="return_value",
)
for _name, (_where, _help) in COMMANDS.items():
    app.command(f"{__package__}.commands.{_where}", name=_name, help=_help)


def run(tokens: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    readable()
    try:
        return _run(tokens)
    except CycloptsError as error:
        print_error(stderr(), *explain(error, app, tokens))
        return Exit.USAGE
    except CommandError as error:
        return _told(error, error.code, tokens)
    except BrokenPipeError:
        # The reader of stdout has left: what Python flushes at its end is dropped.
        silence_stdout()
        return Exit.STOPPED
    except (InvoicingError, OSError) as error:
        return _told(error, Exit.SOME_LEFT, tokens)
    except ValueError as error:
        return _told(error, Exit.USAGE, tokens) if is_usage(error) else _fault(error, tokens)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, its user reads a sentence and not a traceback
        return _fault(error, tokens)
    finally:
        end_logging()


def _run(tokens: Sequence[str]) -> int:
    command, bound, _ = app.parse_args(list(tokens), print_error=False, exit_on_error=False)
    if command.__name__ == App.help_print.__name__:
        output, words = Output.of(Common()), app.parse_commands(list(tokens))[0]
        command(
            *bound.args, **(bound.kwargs | {"console": output.out})
        )  # its own would end with 1 when a reader leaves
        show_examples(output, " ".join(word for word in words if not word.startswith("-")))
        return Exit.DONE
    result = command(*bound.args, **bound.kwargs)
    return Exit((_awaited(result) if inspect.iscoroutine(result) else result) or 0)


def _awaited(command: Coroutine[Any, Any, Any]) -> Any:
    """Run a command in a loop. Raises `KeyboardInterrupt` for one that was ended at once."""
    import asyncio

    make_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    if find_spec("uvloop") is not None:  # the extra `speed`
        import uvloop

        make_loop = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            return runner.run(command)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _told(error: Exception, code: Exit, tokens: Sequence[str]) -> int:
    Output.of(Common(debug="--debug" in tokens)).failure(error)
    return code


def _fault(error: Exception, tokens: Sequence[str]) -> int:
    """Tell of an error that no command foresees: it is a fault of the program."""
    hint = "This is a fault of the program. Please report it with what --debug, or INVOICING_DEBUG=1, shows."
    fault = CommandError(f"{type(error).__name__}: {error}", hint=hint)
    return _told(fault.with_traceback(error.__traceback__), Exit.FAULT, tokens)
