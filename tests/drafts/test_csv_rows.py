"""Rows of one key that stand apart: no part of an invoice passes for the whole."""

from __future__ import annotations

from itertools import groupby, product

import pytest

from invoicing_async.drafts import Drafts, DraftsFileError, LineFault, load_drafts, read_csv

HEAD = "key,invoice_template_id,name,unit,price,quantity"
TEMPLATE = "0191d3a8-7c1e-7c55-8f5e-3d8f3c1a2b4d"
ADVICE = ", with other rows between: put the rows of an invoice together, and give each invoice a key of its own"


def row(key: str, name: str = "Lamp", price: str = "1") -> str:
    return f"{key},{TEMPLATE},{name},piece,{price},1"


def table(*rows: str) -> list[bytes]:
    return [f"{line}\n".encode() for line in (HEAD, *rows)]


def load(*rows: str) -> Drafts:
    return load_drafts(table(*rows), "csv")


def faulty_lines(found: Drafts) -> list[int]:
    return [fault.line for bad in found.bad for fault in bad.faults]


def names_by_key(found: Drafts) -> dict[str, list[str]]:
    return {draft.key: [line.name for line in draft.lines] for draft in found.good}


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "different"])
@pytest.mark.parametrize("count", range(1, 6))
def test_a_key_is_whole_or_withheld_in_every_order_of_rows(count: int, equal: bool) -> None:  # noqa: FBT001 - a case of it
    """A key in one stretch has all its lines; each row of one in several has a fault, and it is not sent at all."""
    for keys in product("ABC", repeat=count):
        names = ["Lamp" if equal else f"Lamp {number}" for number in range(count)]
        found = load(*map(row, keys, names))
        stretches = [key for key, _ in groupby(keys)]
        whole = [key for key in dict.fromkeys(keys) if stretches.count(key) == 1]
        lines = {key: [name for name, of in zip(names, keys, strict=True) if of == key] for key in whole}
        assert names_by_key(found) == lines, keys
        assert faulty_lines(found) == [line for line, key in enumerate(keys, 2) if key not in whole], keys
        assert (found.repeated, found.head, found.count) == ([], False, len(stretches)), keys


def test_the_fault_names_the_key_and_where_its_rows_stand() -> None:
    """Every stretch of them, at each of the rows; of very many the first five."""
    found = load(row("A"), row("A"), row("B"), row("A", "Desk"))
    assert [(bad.key, bad.line) for bad in found.bad] == [("A", 2), ("A", 5)]
    faults = [fault for bad in found.bad for fault in bad.faults]
    assert faults == [LineFault("", f"'A' stands on lines 2-3, 5{ADVICE}", line, "key") for line in (2, 3, 5)]
    assert "'A' stands on lines 2, 4, 6, 8, 10 and 2 more places, with" in load(*map(row, "ABACADAEAFAGA")).bad[0].error


@pytest.mark.parametrize("equal", [True, False], ids=["equal", "different"])
def test_without_on_fault_the_file_is_refused(equal: bool) -> None:  # noqa: FBT001 - a case of it
    rows = (row("A"), row("B"), row("A", "Lamp" if equal else "Desk"))
    with pytest.raises(DraftsFileError) as caught:
        list(read_csv(table(*rows)))
    assert [(fault.line, fault.column) for fault in caught.value.faults] == [(2, "key"), (4, "key")]


def test_with_on_fault_no_draft_is_given_before_the_last_row_was_read() -> None:
    """Its first rows look whole until the key comes back, however late."""
    faults: list[LineFault] = []
    drafts = read_csv(
        iter(table(row("A"), *(row(f"B-{number}") for number in range(100)), row("A"))), on_fault=faults.append
    )
    assert next(drafts).draft.key == "B-0"
    assert len(list(drafts)) == 99
    assert [fault.line for fault in faults] == [2, 103]


@pytest.mark.parametrize(
    "last",
    [row("A", price="dear"), row("A") + ",more", "A", row("A").replace(TEMPLATE, "none")],
    ids=["bad price", "too many cells", "too few cells", "bad template"],
)
def test_a_part_with_faults_of_its_own_withholds_the_others(last: str) -> None:
    """It need not be a draft to show that the first rows are not all."""
    for rows, lines in (((row("A"), row("B"), last), {2, 4}), ((last, row("B"), row("A")), {2, 4})):
        found = load(*rows)
        assert list(names_by_key(found)) == ["B"]
        assert set(faulty_lines(found)) == lines


def test_a_row_without_a_key_parts_the_rows_of_one() -> None:
    found = load(row("A"), row(""), row("A", "Desk"), row("B"))
    assert list(names_by_key(found)) == ["B"]
    assert set(faulty_lines(found)) == {2, 3, 4}


def test_keys_that_look_alike_are_one_key() -> None:
    """Composed or not: adjacent rows are one invoice, rows apart are none."""
    composed, decomposed = "H\u00f3a", "Ho\u0301a"
    found = load(row(composed), row(decomposed, "Desk"), row("B"))
    assert names_by_key(found) == {composed: ["Lamp", "Desk"], "B": ["Lamp"]}
    found = load(row(composed), row("B"), row(decomposed))
    assert (list(names_by_key(found)), faulty_lines(found)) == (["B"], [2, 4])


def test_what_is_no_row_parts_nothing() -> None:
    """A blank line, bare commas, or the column names again where two files were put together."""
    found = load(row("A"), "", ",,,,,", HEAD, row("A", "Desk"), row("B"))
    assert names_by_key(found) == {"A": ["Lamp", "Desk"], "B": ["Lamp"]}
    assert found.bad == []


@pytest.mark.parametrize("stray", [row("", "Desk"), f'"A"x,{TEMPLATE},Desk,piece,1,1'], ids=["no key", "a stray quote"])
def test_what_stands_beside_a_row_of_nobody_is_withheld(stray: str) -> None:
    """The row may be the last of the invoice above or the first of the one below; those further away are whole."""
    found = load(row("A"), row("B"), stray, row("C"), row("D"))
    assert list(names_by_key(found)) == ["A", "D"]
    assert any("may lack the row on line 4" in bad.error for bad in found.bad if bad.key == "C")


def test_a_row_of_nobody_between_two_rows_of_one_invoice_is_the_trouble_of_that_one_alone() -> None:
    found = load(row("A"), row("B"), f'"B"x,{TEMPLATE},Desk,piece,1,1', row("B"), row("C"))
    assert list(names_by_key(found)) == ["A", "C"]
