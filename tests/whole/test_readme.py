"""The README is run: its Python against the sandbox, its commands for their form; and what it says of itself is so."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from attrs import asdict
from object_servers import peer
from places import README, ROOT
from readme_blocks import blocks, example

from invoicing_async import (
    AsyncInvoices,
    HmacAuth,
    InvoiceDraft,
    InvoiceLine,
    Limits,
    OAuthClientCredentials,
    OrderDocuments,
    OutagePolicy,
    Poller,
    RetryPolicy,
    Session,
    Timeouts,
)
from invoicing_async._durable.doubts import UNKNOWN_LATE
from invoicing_async._transport.server import serve
from invoicing_async._values.ownership import MARGIN
from invoicing_async.cli import serving
from invoicing_async.drafts import example_draft
from invoicing_async.runs import InvoiceRun
from invoicing_async.sandbox import Faults, Sandbox, demo_orders
from invoicing_async.session._session import internals_of

TEXT = README.read_text()
LINKS = re.findall(r"\]\(#([^)]+)\)", TEXT)


@pytest.mark.asyncio
async def test_the_download_example_saves_every_order(tmp_path: Path) -> None:
    """The first example saves whole PDFs through SYS_DEP_503, and counts them."""
    sandbox = Sandbox(faults=Faults(unavailable_share=0.2))
    orders = [*demo_orders(10), demo_orders(1)[0]]
    async with serve(sandbox, base_path="/api/v1") as base_url:
        auth = HmacAuth(**sandbox.credentials.partner())
        assert await example("month_end")(base_url, auth, orders, str(tmp_path)) == 10
    assert len(list(tmp_path.glob("*.pdf"))) == 10


@pytest.mark.asyncio
async def test_the_invoice_example_settles_every_draft() -> None:
    """The second example ends with a terminal answer for each draft."""
    sandbox = Sandbox(faults=Faults(failed_share=0.3))
    line = InvoiceLine(name="Tea", unit="cup", price="15000", quantity=2)
    template = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
    drafts = [InvoiceDraft(key=f"order-{n}", invoice_template_id=template, lines=[line]) for n in range(8)]
    async with serve(sandbox) as base_url:
        done = await example("settle")(base_url, OAuthClientCredentials(**sandbox.credentials.client()), drafts)
    assert {request.status for request in done} == {"SUCCESS", "FAILED"}
    assert len(done) == 8


@pytest.mark.asyncio
async def test_the_settings_of_both_services_are_read_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_settings: None
) -> None:
    """As the sandbox command prints them."""
    sandbox, (order,) = Sandbox(), demo_orders(1)
    monkeypatch.chdir(tmp_path)
    async with serving.served(sandbox) as where:
        lines = (f"export {name}={value}\n" for name, value in serving.variables(sandbox, where).items())
        Path("invoicing.env").write_text("".join(lines))
        auth = OAuthClientCredentials(**sandbox.credentials.client())
        async with Session(where.invoices, auth=auth) as session:
            request = await AsyncInvoices(session).submit(example_draft(1))
        status = await example("both_services")(order, request.request_id, "documents")
    assert status in {"NEW", "SUCCESS", "FAILED"}
    assert len(list(Path("documents").glob("*.pdf"))) == 1


@pytest.mark.asyncio
async def test_the_session_of_a_company_downloads(tmp_path: Path) -> None:
    sandbox, (order,) = Sandbox(), demo_orders(1)
    async with serve(sandbox, base_path="/api/v1") as base_url:
        async with example("company_session")(base_url, HmacAuth(**sandbox.credentials.partner())) as session:
            saved = await OrderDocuments(session).download(order, tmp_path)
        assert internals_of(session).transport._client.closed  # type: ignore[attr-defined]
    assert saved.path.read_bytes().startswith(b"%PDF-")


@pytest.mark.asyncio
async def test_a_page_and_a_readiness_probe_share_the_session_of_the_batches() -> None:
    """The document comes whole through a view with a deadline of its own, and the session says that it is ready."""
    sandbox, (order,) = Sandbox(), demo_orders(1)
    auth = HmacAuth(**sandbox.credentials.partner())
    async with (
        serve(sandbox, base_path="/api/v1") as base_url,
        example("month_end_session")(base_url, auth) as session,
    ):
        body = await example("invoice_for_a_page")(session, order)
        assert await example("ready")(session)
    assert body.startswith(b"%PDF-")


@pytest.mark.asyncio
async def test_the_example_saves_into_a_bucket() -> None:
    sandbox, orders = Sandbox(), demo_orders(3)
    async with peer() as (found, _), serve(sandbox, base_path="/api/v1") as base_url:
        auth = HmacAuth(**sandbox.credentials.partner())
        addresses = await example("into_a_bucket")(base_url, auth, orders, "bucket")
    assert sorted(f"s3:/{key}" for key in found.held) == sorted(addresses)
    assert len(addresses) == 3


@pytest.mark.asyncio
async def test_the_page_of_a_run_stands_beside_it(tmp_path: Path) -> None:
    async with InvoiceRun.open(tmp_path / "march.db"):
        pass
    page = await example("page_of")(tmp_path / "march.db")
    assert page == tmp_path / "march.html"
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("command", ["invoicing-async demo", "pytest"])
def test_each_promise_is_one_line(command: str) -> None:
    """One line of one shell block does it, and makes its own virtual environment."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if command in line]
    assert lines[0].startswith("python3 -m venv .venv && .venv/bin/python -m pip install")


@pytest.mark.parametrize("kind", [RetryPolicy, Timeouts, Limits, OutagePolicy, Poller])
def test_the_table_of_defaults_is_what_holds(kind: type[Any]) -> None:
    """Each field of the settings of a session is there, with its value."""
    (row,) = re.findall(rf"^\| `{kind.__name__}\((.*)\)` \|", TEXT, re.MULTILINE)
    said = {name: ast.literal_eval(value) for name, value in re.findall(r"(\w+)=([\w.]+)", row)}
    assert said == asdict(kind())


def test_the_time_after_which_nothing_can_arrive_is_that_of_the_defaults() -> None:
    assert Timeouts().intent + Timeouts().attempt + MARGIN == UNKNOWN_LATE
    assert TEXT.count(f" {UNKNOWN_LATE:g} s ") == 2


def anchors(level: str) -> list[str]:
    """What links call the headings of that level: small letters and digits, hyphens between."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(rf"^{level} (.+)$", prose, re.MULTILINE)
    return [re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_each_link_within_the_page_has_its_heading() -> None:
    assert {*LINKS} <= {*anchors("#{2,4}")}


def test_the_contents_name_every_section() -> None:
    """A section that is added is added to the list under "Contents" too, which nobody else has to read to find it."""
    contents = TEXT.split("## Contents\n")[1].split("\n## ")[0]
    listed = re.findall(r"\]\(#([^)]+)\)", contents)
    assert sorted(listed) == sorted({*anchors("##")} - {"contents"})


def test_what_is_guaranteed_is_dated_and_each_row_names_what_holds_it() -> None:
    """Every row of the first table names a test or a benchmark that is there."""
    section = TEXT.split("## What it guarantees")[1].split("\n## ")[0]
    assert re.search(r"As of \d{4}-\d\d-\d\d", section)
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 6
    for row in rows:
        named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+)`", row)
        assert named, row
        assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("name", ["outage", "download"])
def test_the_figures_of_the_first_table_are_those_of_the_benchmark(name: str) -> None:
    """Each number of a row that names a benchmark stands in that benchmark's tables, or rounds one there."""
    row = next(line for line in TEXT.splitlines() if line.startswith("| ") and f"`benchmarks/{name}`)" in line)
    figures = re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?(?! attempts| and with)", row.split("|", 2)[2])
    page = (ROOT / "benchmarks" / name / "README.md").read_text().split("figures: begin")[1]
    there = {float(found.replace(",", "")) for found in re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", page)}
    assert len(figures) >= 4
    for figure in figures:
        value, digits = float(figure.replace(",", "")), len(figure.partition(".")[2])
        assert any(round(number, digits) == value for number in there), figure
