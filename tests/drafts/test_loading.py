"""All drafts of a file at once: what can be sent, and the faults of the rest, draft by draft."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing_async.drafts import Drafts, dump_draft, example_csv, example_draft, load_drafts

CSV_HEAD = "key,invoice_template_id,name,unit,price,quantity"
TEMPLATE = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def load_csv(text: str) -> Drafts:
    return load_drafts(text.encode().splitlines(keepends=True), "csv")


def test_csv_faults_of_one_invoice_stand_together() -> None:
    """A key's rows are one draft, whatever lies between its faults; one without a key may be of either beside it."""
    rows_ = [
        f"A,{TEMPLATE},Lamp,piece,dear,2",
        "A,,Lamp,piece,1,2",
        'A,,"La\nmp",piece,1,many',
        f"B,{TEMPLATE},Lamp,piece,1,2",
        f",{TEMPLATE},Lamp,piece,1,2",
        f"C,{TEMPLATE},Lamp,piece,cheap,2",
    ]
    found = load_csv("\n".join([CSV_HEAD, *rows_]) + "\n")
    assert [(bad.line, bad.key, len(bad.faults)) for bad in found.bad] == [
        (2, "A", 2),
        (6, "B", 1),
        (7, "", 1),
        (8, "C", 2),
    ]
    assert [(fault.line, fault.column) for fault in found.bad[0].faults] == [(2, "price"), (4, "quantity")]
    assert (list(found.lines), found.head) == ([], False)
    found = load_csv("key,price\nA,1")
    assert found.head
    assert [bad.line for bad in found.bad] == [1]
    assert load_csv("price;invoice_template_id\n1;x\n").head


@given(st.integers(0, 12), st.integers(0, 3), st.sampled_from(["jsonl", "csv"]))
@settings(max_examples=40, deadline=None)
def test_what_has_no_fault_is_all_good(count: int, again: int, form: str) -> None:
    """Examples of either form are whole; the same key again, with the same content, is told apart."""
    drafts = [example_draft(number) for number in range(1, count + 1)]
    repeated = drafts[:again] if form == "jsonl" else []
    text = example_csv(count) if form == "csv" else "".join(dump_draft(one) + "\n" for one in [*drafts, *repeated])
    found = load_drafts(text.encode().splitlines(keepends=True), form)  # type: ignore[arg-type] # one of two words
    assert [draft.key for draft in found.good] == [draft.key for draft in drafts]
    assert found.repeated == [(draft.key, count + number) for number, draft in enumerate(repeated, 1)]
    assert (found.bad, found.head, found.count) == ([], False, count + len(repeated))


def test_the_faults_of_json_are_told_line_by_line() -> None:
    """With the key of the line if it has one, and what cannot be printed replaced."""
    good = dump_draft(example_draft(1))
    other = json.dumps(json.loads(good) | {"bogus\x1b": 1, "key": "B"})
    found = load_drafts([f"{line}\n".encode() for line in (good, other, "nope", '{"key": 5}')], "jsonl")
    assert [(bad.line, bad.key) for bad in found.bad] == [(2, "B"), (3, ""), (4, "")]
    assert [*found.lines] == ["ORDER-0001"]
    assert all(bad.error.isprintable() for bad in found.bad)


def test_settings_that_do_not_go_with_a_file_are_refused() -> None:
    with pytest.raises(ValueError, match="decimal_mark is for CSV"):
        load_drafts([], "jsonl", decimal_mark=",")
    with pytest.raises(ValueError, match="rounding"):
        load_drafts([], "jsonl", rounding=Decimal(-1))
    assert load_drafts([], "jsonl", rounding=Decimal(1)).rounding == 1
