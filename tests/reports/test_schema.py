"""The JSON Schema of the lines: made of what makes them, right for what is right and wrong for what is not."""

from __future__ import annotations

from typing import Any

import pytest
from lines_checked import is_line

from invoicing_async.reports import JSON_LINES, json_schema
from invoicing_async.reports import _row_types as row_types
from invoicing_async.reports._columns import COLUMNS
from invoicing_async.reports._row_types import RowType

TYPES = [found for found in vars(row_types).values() if isinstance(found, RowType)]


def whole(schema: dict[str, Any]) -> Any:
    """A value that a schema takes, with all that may be in it."""
    kind: Any = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if "oneOf" in schema:
        return schema["oneOf"][0]["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return whole(schema["anyOf"][0])
    if kind == "object":
        named = {name: whole(part) for name, part in schema.get("properties", {}).items()}
        more = schema.get("additionalProperties")
        return named | ({"any": whole(more)} if isinstance(more, dict) else {})
    if kind == "array":
        return [whole(schema["items"])]
    return {"string": "x", "integer": 7, "number": 7.5, "boolean": True}[kind]


def test_every_column_has_a_meaning_and_no_meaning_lacks_a_column() -> None:
    used = {name for each in TYPES for name in (*each.columns, *each.details)}
    assert used == {*COLUMNS}
    assert len(TYPES) == 8


def test_the_schema_of_all_has_every_kind() -> None:
    assert {*json_schema()["$defs"]} == {kind for kinds in JSON_LINES.values() for kind in kinds}
    with pytest.raises(ValueError, match=r"the command must be one of doctor, .*, got 'demo'"):
        json_schema("demo")


@pytest.mark.parametrize("kind", json_schema()["$defs"])
def test_what_is_wrong_is_refused(kind: str) -> None:
    """Of a whole line of each kind: a member more, one that must be there less, another type, another word."""
    command = next(command for command, kinds in JSON_LINES.items() if kind in kinds)
    schema = json_schema()["$defs"][kind]
    line = whole(schema)
    assert is_line(command, line)
    assert is_line(None, line)
    assert not is_line(command, line | {"surplus": 1})
    for name in schema["required"]:
        assert not is_line(command, {key: value for key, value in line.items() if key != name}), name
    for name in line:
        assert not is_line(command, line | {name: {"a": []}}) or schema["properties"][name] == {"type": "object"}, name
    for name in {"outcome", "state", "grade"} & line.keys():
        assert not is_line(command, line | {name: "bogus"})
