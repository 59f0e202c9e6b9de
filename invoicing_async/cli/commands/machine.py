"""`schema` and `completion`: what programs and shells need to know of the commands."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from ...reports import JSON_LINES, json_schema
from ..exits import CommandError, Exit
from ..input.options import Common
from ..terminal.output import Output

__all__ = ["completion", "schema"]


def schema(*command: Annotated[str, Parameter(show_choices=False)]) -> int:
    """Print the JSON Schema (draft 2020-12) of the lines that commands print with --json.

    Parameters
    ----------
    command
        The words of one command, as in documents download; all without.
    """
    name = " ".join(command)
    if name and name not in JSON_LINES:
        raise CommandError(f"{name!r} prints no JSON lines", hint=f"These do: {', '.join(JSON_LINES)}.")
    _print(json.dumps(json_schema(name or None), indent=2))
    return Exit.DONE


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what completes commands and options in a shell; nothing is installed.

    Parameters
    ----------
    shell
        The shell that reads it.
    """
    from ..app import app

    script = app.generate_completion(shell=shell)
    # The generated script offers no files where an argument is one; where it offers nothing, bash now does.
    _print(script.replace("\ncomplete -F ", "\ncomplete -o bashdefault -o default -F "))
    return Exit.DONE


def _print(text: str) -> None:
    Output.of(Common()).out.print(text, markup=False, soft_wrap=True)
