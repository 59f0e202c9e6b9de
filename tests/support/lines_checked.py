"""JSON lines held against the schema of the command that printed them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from invoicing_async.reports import JSON_LINES, json_schema

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator


@cache
def validator(command: str | None) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # which takes longer to import than many tests to run

    schema = json_schema(command)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def is_line(command: str | None, line: dict[str, Any]) -> bool:
    return bool(validator(command).is_valid(line))


def check_lines(tokens: Sequence[str], out: str) -> None:
    """Every line that a command printed with --json is as its schema says."""
    command = next((name for name in JSON_LINES if name.split() == [*tokens[: len(name.split())]]), None)
    if command is None or "--json" not in tokens:
        return
    for line in lines_of(out):
        assert is_line(command, line), (command, line, [*validator(command).iter_errors(line)][:1])


def lines_of(out: str) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, out.splitlines())
