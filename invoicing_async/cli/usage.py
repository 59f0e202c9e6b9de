"""The message for a wrong command line: which word is wrong, what is near it, and whose `--help` to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import takewhile

from cyclopts import App, CycloptsError, UnknownCommandError, UnusedCliTokensError

__all__ = ["explain"]

LONG_DASHES = ("\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212")
"""What a text program makes of two hyphens."""


def explain(error: CycloptsError, app: App, tokens: Sequence[str]) -> tuple[str, str]:
    """Return what is wrong with a command line in one line, and what to do."""
    chain, path, _ = app.parse_commands(tokens)
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        if word.startswith("-"):
            near = _near(word, (name for name in path[-1] if name.startswith("-")))
            message = f"Unknown option: {word}.{near or ' The options of a command stand behind it.'}"
        else:
            commands = [*_commands(path[-1])]
            of_groups = (f"{group} {name}" for group in _commands(app) for name in _commands(app[group]))
            near = _near(word, commands) or _near(word, of_groups)
            message = f'Unknown command "{word}".{near} Available commands: {", ".join(commands)}.'
    elif not (message := _unknown_option(tokens, path[-1])):
        message = str(error)
        if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
            unused = ", ".join(map(repr, error.unused_tokens))
            message = f"Not known what to do with {unused}: too many arguments, or quotes are missing."
    if dashed := next((token for token in tokens if token.startswith(LONG_DASHES)), None):
        return message, f"{dashed} begins with a long dash: write --{dashed.lstrip(''.join(LONG_DASHES) + '-')}"
    return message, f"`{' '.join(('invoicing-async', *chain, '--help'))}` shows what there is."


def _unknown_option(tokens: Sequence[str], at: App) -> str:
    """Name the first option that the command does not have, wherever it was put; empty if it has all."""
    known = [name for argument in at.assemble_argument_collection() for name in argument.names if name.startswith("-")]
    for given in takewhile("--".__ne__, tokens):
        word = given.partition("=")[0]
        if word.startswith("--") and word.replace("_", "-") not in known:
            return f"Unknown option: {word}.{_near(word, known)}"
    return ""


def _commands(at: App) -> Iterator[str]:
    return (name for name in at if not name.startswith("-"))


def _near(word: str, names: Iterable[str]) -> str:
    by_last = {name.split()[-1]: name for name in names}
    found = get_close_matches(word, by_last, n=1)
    return f" Did you mean {by_last[found[0]]}?" if found else ""
