"""The page of a run in a real browser: no error, nothing asked of the network, its numbers seen, no line cut."""

from __future__ import annotations

import asyncio
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Tab, browsing
from fakes import START
from pypdf import PdfReader
from report_runs import HOSTILE, Seen, invoice_run

from invoicing_async._durable.records import Pause
from invoicing_async.reports import write_run_page
from invoicing_async.runs import Overview, SqliteReader

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="NO BROWSER saw the page: apt-get install chromium"),
]

ENDS = {"success": 80, "failed": 3, "rejected": 6, "in_doubt": 12, "submitted": 2, "invalid": 1, "planned": 2_345}

WIDER = """
[...document.querySelectorAll("body *")]
  .filter(each => !each.closest(".scroll"))
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(each => each.outerHTML.slice(0, 100))
"""
CELLS = """
Object.fromEntries([...document.querySelectorAll("#states tbody tr, #states tfoot tr")]
  .filter(row => row.getBoundingClientRect().height > 0)
  .map(row => [row.cells[0].innerText.trim(), row.cells[1].innerText.trim()]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], Path]:
    """The counts of a run, and its page."""
    folder = tmp_path_factory.mktemp("seen")
    keys = [f"{number} {text}" for number, text in enumerate(HOSTILE) if "\ud800" not in text]

    async def made() -> dict[str, int]:
        pauses = [Pause("create_invoice", START + 100, START + 400, is_over=True)]
        ends = {"in_doubt": ENDS["in_doubt"], **ENDS}  # the hostile keys are those in doubt
        await invoice_run(folder / "run.db", ends, keys=keys, pauses=pauses)
        await write_run_page(folder / "run.db", folder / "run.html")
        async with SqliteReader.read(folder / "run.db") as ledger:
            return {state: number for state, number in (await Overview.of(ledger)).counts.items() if number}

    return asyncio.run(made()), folder / "run.html"


@pytest.fixture(scope="module")
def looked(run: tuple[dict[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser saw of the page: wide, narrow, dark and on paper."""

    async def look() -> dict[str, Any]:
        async with browsing(tmp_path_factory.mktemp("browser")) as tab:
            await tab.resize(1_280)
            await tab.open(run[1].as_uri())
            seen: dict[str, Any] = {"wide": await _look(tab)}
            await tab.resize(375)
            seen["narrow"] = await _look(tab)
            await tab.resize(1_280, dark=True)
            seen["dark"] = await _look(tab)
            seen["pdf"] = await tab.pdf()
            return seen | {"requests": tab.requests, "console": tab.console}

    return asyncio.run(look())


async def _look(tab: Tab) -> dict[str, Any]:
    style = "getComputedStyle(document.body)"
    return {
        "states": await tab.evaluate(CELLS),
        "wider": await tab.evaluate(WIDER),
        "scroll": await tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
        "colours": await tab.evaluate(f"[{style}.color, {style}.backgroundColor]"),
        "charts": await tab.evaluate("[...document.querySelectorAll('.chart path')].map(p => p.getBBox().width)"),
        "picture": await tab.screenshot(),
    }


def test_the_console_is_empty_and_nothing_but_the_file_is_loaded(looked: dict[str, Any], run: Any) -> None:
    """A policy that forbade anything of the page's own would be an error there."""
    assert looked["console"] == []
    assert looked["requests"] == [run[1].as_uri()]


@pytest.mark.parametrize("how", ["wide", "narrow", "dark"])
def test_the_numbers_are_seen(looked: dict[str, Any], run: Any, how: str) -> None:
    counts = {state.replace("_", " "): f"{number:,}" for state, number in run[0].items()}
    assert looked[how]["states"] == {**counts, "total": f"{sum(run[0].values()):,}"}


@pytest.mark.parametrize("how", ["wide", "narrow"])
def test_nothing_is_wider_than_the_window(looked: dict[str, Any], how: str) -> None:
    """Also with keys and reasons that have no place to break."""
    assert looked[how]["wider"] == []
    assert looked[how]["scroll"] == 0
    assert looked[how]["picture"].startswith(b"\x89PNG")


def test_the_charts_are_drawn(looked: dict[str, Any]) -> None:
    assert looked["wide"]["charts"]
    assert min(looked["wide"]["charts"]) > 0


def luminance(colour: str) -> float:
    """As WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(("how", "is_dark"), [("wide", False), ("dark", True)])
def test_the_page_follows_the_readers_scheme_with_contrast(looked: dict[str, Any], how: str, *, is_dark: bool) -> None:
    ink, paper = map(luminance, looked[how]["colours"])
    assert (ink > paper) is is_dark
    assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7


def test_on_paper_there_are_the_same_numbers_and_every_doubt(looked: dict[str, Any], run: Any) -> None:
    """The text of the PDF that the browser prints, in dark mode too."""
    text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(looked["pdf"])).pages)
    for state, number in run[0].items():
        assert re.search(rf"{state.replace('_', ' ')}\s+{number:,}\s", text), state
    keys = re.findall(r"\d+ ' ; rm -rf / #", text)
    assert keys
    assert Seen(run[1].read_text()).text.count("runs resolve") >= text.count("runs resolve") > 0
